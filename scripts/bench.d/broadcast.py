"""The rows of `wsbridge broadcast`: one program's messages to all who have subscribed, by itself and through RabbitMQ.

    fanout        beside floor.c, a bare loop of send(): what it delivers is what one call for each message and subscriber
                  can. With more messages than that wsbridge may deliver more: those that have come meanwhile go out in one call.
    nchan         beside nginx with nchan, one process beside one process
    subscribed    the memory of one that gets a message now and then
    rabbitmq      the highest pace of a program at which a browser gets every line, in order and in time, and what the way
                  through the broker adds to a message's latency

Every message is sent at its time by an absolute clock, and has that time at its head, or its number. client.c, which takes them,
is one thread, and says how busy it was: see `warn_if_busy`.
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
"""How far a browser may lag in the row on RabbitMQ's throughput. What is measured there is the path: a client that a busy machine
does not run for a moment is to show as late, not as one that has lost messages."""

LATE_US = 500_000
"""How late the last line may be there. A path that is 3 % slower than the pace is later than that after 20 seconds."""

Running = tuple[Popen[bytes], int]
Server = Callable[[Path, int], AbstractContextManager[Running]]
"""Runs a server that sends so many stamped messages a second; yields its process and its port."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    few: int
    many: int
    """Subscribers."""
    settle: float
    """Seconds that a server is given when all have subscribed."""
    window: float
    """Seconds for which deliveries are counted then."""
    paces: tuple[int, ...]
    """Lines a second that are tried through RabbitMQ, rising."""
    paced: float
    """Seconds for which a pace is kept up."""


FULL = Scale(1000, 5000, 2, 4, (100_000, 250_000, 500_000, 750_000, 1_000_000, 1_500_000, 2_000_000), 20)

BRIEF = Scale(20, 40, 0.1, 0.3, (2000,), 1.5)
"""So little that it only shows that everything runs."""


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
    """Run nginx with nchan, and what posts to it."""
    return nchan.nginx(tools, rate, MESSAGE_BYTES)


def deliveries(server: Server, clients: int, rate: int, scale: Scale) -> Measure:
    """Messages a second that all clients together get, when all have subscribed."""

    def measure(tools: Path) -> float:
        report = fanout(tools, server, clients, rate, scale)
        return report["messages"] / report["seconds"]

    return measure


def latency_p99(server: Server, clients: int, rate: int, scale: Scale) -> Measure:
    """Microseconds from the stamp in a message to its arrival, which 99 of 100 deliveries do not exceed."""

    def measure(tools: Path) -> float:
        return fanout(tools, server, clients, rate, scale)["p99_us"]

    return measure


def fanout(tools: Path, server: Server, clients: int, rate: int, scale: Scale) -> dict[str, float]:
    """Return what the load generator reports of that many subscribers."""
    with server(tools, rate) as (_, port):
        report = load(tools, port, "fanout", clients, scale.window, scale.settle)
    warn_if_busy(report, f"fanout {clients}x{rate}")
    return report


def subscribed(server: Server, clients: int, scale: Scale) -> Measure:
    """Resident bytes that a subscriber adds to a server and its processes."""

    def measure(tools: Path) -> float:
        # With one that has got a message, whatever the server starts has been started: a fork counts as much as its parent at first.
        with server(tools, 10) as (process, port), holding(tools, port, 1):
            before = sum(map(resident, family(process.pid)))
            with holding(tools, port, clients):
                time.sleep(scale.settle)
                return (sum(map(resident, family(process.pid))) - before) / clients

    return measure


def through_rabbitmq(broker: rabbit.Broker, scale: Scale) -> Measure:
    """The highest pace, in lines a second, at which one browser gets every line in time; 0 where even the lowest is too much."""

    def measure(tools: Path) -> float:
        first_too_fast = bisect_left(scale.paces, True, key=lambda pace: is_too_fast(tools, broker.url, pace, scale.paced))
        return scale.paces[first_too_fast - 1] if first_too_fast else 0

    return measure


def is_too_fast(tools: Path, url: str, pace: int, seconds: float) -> bool:
    """Whether a program that is to keep up a pace is held up, or its last line comes too late, or any not at all."""
    program = (tools / "program", "numbered", str(pace), str(seconds), str(LINE_BYTES))
    with serving((*BROADCAST, QUEUE, f"--broker={url}"), *program) as (_, port):
        report = load(tools, port, "verify", 1, seconds + 2 * LATE_US / 1e6)
    warn_if_busy(report, f"rabbitmq, {pace} lines/s")
    return not report["whole"] or report["late_us"] > LATE_US


def added_by_rabbitmq(broker: rabbit.Broker, scale: Scale) -> Measure:
    """Milliseconds that the way through the broker adds to the median latency of 100 messages a second."""

    def measure(tools: Path) -> float:
        through = fanout(tools, partial(wsbridge, broker=broker.url), 1, 100, scale)["median_us"]
        direct = fanout(tools, wsbridge, 1, 100, scale)["median_us"]
        return (through - direct) / 1000

    return measure


def rows(scale: Scale, broker: rabbit.Broker) -> list[Row]:
    """Return the rows, at a scale. Their names are those of the full one."""

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
