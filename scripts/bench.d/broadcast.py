"""The rows of `wsbridge broadcast`: one program's messages to all subscribers, directly and through RabbitMQ.

    fanout        compared with floor.c, a bare loop with one send() per message and subscriber. At a higher pace, wsbridge
                  may deliver more than floor.c, because it sends waiting messages in one call.
    nchan         compared with nginx and nchan, one process each
    subscribed    the memory of a subscriber that gets a message now and then
    rabbitmq      the highest pace of a program at which a browser gets every line, in order and in time; and the latency
                  that the path through the broker adds to a message

Every message is sent at its time by an absolute clock, and begins with that time or with its number. client.c, which reads the
messages, has one thread, and reports its load: see `warn_if_busy`.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import Popen

import nchan
import rabbit
from row import Measure, Row
from serving import WSBRIDGE, family, free_port, holding, listening, load, resident, serving, warn_if_busy

BROADCAST = (WSBRIDGE, "broadcast", "--exchange=bench", "--restart=never")

MESSAGE_BYTES = 100
LINE_BYTES = 64

QUEUE = f"--queue={64 * 1024 * 1024}"
"""The limit for a client in the row on RabbitMQ's throughput. The row measures the path: a client that a busy machine does not run for
a moment should count as late, not as a client with lost messages."""

LATE_US = 500_000
"""The permitted delay of the last line. A path that is 3 % slower than the pace exceeds it after 20 seconds."""

Running = tuple[Popen[bytes], int]
Server = Callable[[Path, int], AbstractContextManager[Running]]
"""Runs a server that sends the given number of stamped messages per second; yields its process and its port."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a measurement."""

    few: int
    many: int
    """The number of subscribers."""
    settle: float
    """Seconds between the last subscription and the measurement."""
    window: float
    """Seconds of the measurement."""
    paces: tuple[int, ...]
    """The paces in lines per second that are tried through RabbitMQ, rising."""
    paced: float
    """Seconds for which a pace must be kept."""


FULL = Scale(1000, 5000, 2, 4, (100_000, 250_000, 500_000, 750_000, 1_000_000, 1_500_000, 2_000_000), 20)

BRIEF = Scale(20, 40, 0.1, 0.3, (2000,), 1.5)
"""A short measurement, which only shows that everything works."""


def wsbridge(tools: Path, rate: int, *, broker: str | None = None) -> AbstractContextManager[Running]:
    """Run a broadcast of stamped lines."""
    flags = [f"--broker={broker}"] if broker else []
    return serving([*BROADCAST, *flags], tools / "program", "stamped", str(rate), str(MESSAGE_BYTES))


@contextmanager
def floor(tools: Path, rate: int) -> Iterator[Running]:
    """Run the loop in C."""
    port = free_port()
    with listening([tools / "floor", str(port), str(rate), str(MESSAGE_BYTES)], port) as server:
        yield server, port


def nginx(tools: Path, rate: int) -> AbstractContextManager[Running]:
    """Run nginx with nchan, and the program that posts to it."""
    return nchan.nginx(tools, rate, MESSAGE_BYTES)


def deliveries(server: Server, clients: int, rate: int, scale: Scale) -> Measure:
    """Messages per second that all clients receive together, when all have subscribed."""

    def measure(tools: Path) -> float:
        report = fanout(tools, server, clients, rate, scale)
        return report["messages"] / report["seconds"]

    return measure


def latency_p99(server: Server, clients: int, rate: int, scale: Scale) -> Measure:
    """The 99th percentile of the microseconds from a message's stamp to its arrival."""

    def measure(tools: Path) -> float:
        return fanout(tools, server, clients, rate, scale)["p99_us"]

    return measure


def fanout(tools: Path, server: Server, clients: int, rate: int, scale: Scale) -> dict[str, float]:
    """Return the load generator's report about this number of subscribers."""
    with server(tools, rate) as (_, port):
        report = load(tools, port, "fanout", clients, scale.window, scale.settle)
    warn_if_busy(report, f"fanout {clients}x{rate}")
    return report


def subscribed(server: Server, clients: int, scale: Scale) -> Measure:
    """Resident bytes that a subscriber adds to a server and its processes."""

    def measure(tools: Path) -> float:
        # With one subscriber that has received a message, all processes of the server run: a fork first counts as much as its parent.
        with server(tools, 10) as (process, port), holding(tools, port, 1):
            before = sum(map(resident, family(process.pid)))
            with holding(tools, port, clients):
                time.sleep(scale.settle)
                return (sum(map(resident, family(process.pid))) - before) / clients

    return measure


def through_rabbitmq(broker: rabbit.Broker, scale: Scale) -> Measure:
    """The highest pace, in lines per second, at which one browser gets every line in time; 0 if even the lowest pace is too high."""

    def measure(tools: Path) -> float:
        first_too_fast = bisect_left(scale.paces, True, key=lambda pace: is_too_fast(tools, broker.url, pace, scale.paced))
        return scale.paces[first_too_fast - 1] if first_too_fast else 0

    return measure


def is_too_fast(tools: Path, url: str, pace: int, seconds: float) -> bool:
    """Return whether backpressure delays a program at this pace, or its last line arrives too late, or a line is missing."""
    program = (tools / "program", "numbered", str(pace), str(seconds), str(LINE_BYTES))
    with serving((*BROADCAST, QUEUE, f"--broker={url}"), *program) as (_, port):
        report = load(tools, port, "verify", 1, seconds + 2 * LATE_US / 1e6)
    warn_if_busy(report, f"rabbitmq, {pace} lines/s")
    return not report["whole"] or report["late_us"] > LATE_US


def added_by_rabbitmq(broker: rabbit.Broker, scale: Scale) -> Measure:
    """Milliseconds that the path through the broker adds to the median latency of 100 messages per second."""

    def measure(tools: Path) -> float:
        through = fanout(tools, partial(wsbridge, broker=broker.url), 1, 100, scale)["median_us"]
        direct = fanout(tools, wsbridge, 1, 100, scale)["median_us"]
        return (through - direct) / 1000

    return measure


def rows(scale: Scale, broker: rabbit.Broker) -> list[Row]:
    """Return the rows at a scale. Their names are those of the full scale."""

    def beside_floor(name: str, unit: str, better: str, measure: Callable[..., Measure], clients: int, rate: int) -> Row:
        ours, theirs = (measure(server, clients, rate, scale) for server in (wsbridge, floor))
        return Row(name, unit, better, ours, theirs, "send() in C")

    def beside_nchan(name: str, unit: str, better: str, measure: Callable[..., Measure], *arguments: int) -> Row:
        ours, theirs = (measure(server, *arguments, scale) for server in (wsbridge, nginx))
        return Row(name, unit, better, ours, theirs, "nchan", missing=nchan.MISSING)

    return [
        beside_floor("fanout 1000x400", "deliveries/s", "more", deliveries, scale.few, 400),
        beside_floor("fanout 1000x5000", "deliveries/s", "more", deliveries, scale.few, 5000),
        beside_floor("fanout 5000x60", "deliveries/s", "more", deliveries, scale.many, 60),
        beside_floor("fanout 5000x60, p99", "us", "less", latency_p99, scale.many, 60),
        beside_nchan("nchan 1000x400", "deliveries/s", "more", deliveries, scale.few, 400),
        beside_nchan("subscribed: resident a client", "bytes", "less", subscribed, scale.few),
        Row("rabbitmq 1x64B, all in time", "lines/s", "more", through_rabbitmq(broker, scale), missing=rabbit.MISSING),
        Row("rabbitmq adds, p50", "ms", "less", added_by_rabbitmq(broker, scale), missing=rabbit.MISSING),
    ]
