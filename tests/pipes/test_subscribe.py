"""`wsbridge subscribe`: it prints a channel's messages to stdout and lost messages to stderr. Its exit status follows the shell's
conventions."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipes.conftest import (
    BROADCAST,
    Start,
    address,
    finish,
    serve,
    stranger,
    viewers,
    wait_for_queue,
    wait_for_viewers,
    wait_until_confirmed,
)
from tests.pipes.test_publish import ENDED, FRAMED
from tests.support.client import DEADLINE
from tests.support.deadline import scaled
from tests.support.rabbit import Broker, Proxy, bro_publish
from tests.support.server import Server, environment, free_port, memory_peak, wait_until
from tests.support.site import Certificates
from wsbridge.bus.memory import MemoryBus
from wsbridge.channel.position import Position
from wsbridge.channel.ring import Channel, Slow
from wsbridge.flow import Batch, Kind
from wsbridge.framing import make_framing
from wsbridge.metrics import Metrics
from wsbridge.pipes.run import settle
from wsbridge.pipes.subscribe import Printer, Reader, Screen, Search, remaining_seconds
from wsbridge.sessions.fanout import Fanout
from wsbridge.sessions.relay import Relay
from wsbridge.stdio import StdoutWriter

MEGABYTE = 1024 * 1024
POSITION = r"[0-9a-z.]{1,64}-\d+"


def broker_words(broker: Broker, exchange: str, *words: str) -> tuple[str, ...]:
    return (f"--exchange={exchange}", f"--broker={broker.url}", *words)


# Output


@pytest.mark.parametrize("framing", FRAMED)
def test_framings(framing: str, start: Start) -> None:
    """`subscribe` prints messages in any framing, in the same form in which they were published."""
    data, messages = FRAMED[framing]
    printed = {"lines": b"one\ntwo\n\nthree\n"}.get(framing, data)
    with serve("--input=exchange") as server:
        subscribe = start("subscribe", f"--url={address(server)}", f"--framing={framing}", f"-n={len(messages)}")
        wait_for_viewers(server, 1)
        assert finish("publish", f"--url={address(server)}", f"--framing={framing}", data=data).returncode == 0
        assert subscribe.read(len(printed) + 1) == printed
        assert (subscribe.wait(), subscribe.errors) == (0, "")


def test_message_is_printed_at_once(start: Start) -> None:
    """`subscribe` writes each message as soon as it arrives, also into a pipe."""
    with serve("--input=exchange") as server, server.connect() as client:
        subscribe = start("subscribe", f"--url={address(server)}")
        wait_for_viewers(server, 2)
        for text in ("one", "two"):
            client.send_text(text)
            assert subscribe.lines(1) == [text]


def test_number_of_messages(start: Start) -> None:
    """With `-n N`, `subscribe` exits with 0 after N messages, and prints no more."""
    with serve("--input=exchange") as server:
        subscribe = start("subscribe", f"--url={address(server)}", "-n", "3")
        wait_for_viewers(server, 1)
        assert finish("publish", f"--url={address(server)}", data=b"1\n2\n3\n4\n5\n").returncode == 0
        assert (subscribe.wait(), subscribe.read(100), subscribe.errors) == (0, b"1\n2\n3\n", "")
        wait_for_viewers(server, 0)


async def test_other_publishers(start: Start, broker: Broker, exchange: str) -> None:
    """With `--broker`, `subscribe` prints messages of any publisher on the exchange, line by line."""
    subscribe = start("subscribe", *broker_words(broker, exchange), "-n", "2")
    wait_for_queue(broker, exchange)
    await bro_publish(broker.url, exchange, "one\ntwo\n")
    assert subscribe.lines(2) == ["one", "two"]
    assert (subscribe.wait(), subscribe.errors) == (0, "")


@pytest.mark.parametrize("kind", ["file", "null", "terminal", "socket"])
def test_kinds_of_stdout(kind: str, start: Start, tmp_path: Path) -> None:
    """Stdout may be a file, /dev/null, a terminal or a socket. `subscribe` appends to a file that was opened for appending."""
    path, ours = tmp_path / "stdout", -1
    path.write_bytes(b"before\n")
    match kind:
        case "file":
            theirs = os.open(path, os.O_WRONLY | os.O_APPEND)
        case "null":
            theirs = os.open(os.devnull, os.O_WRONLY)
        case "terminal":
            ours, theirs = pty.openpty()
        case _:
            one, other = socket.socketpair()
            ours, theirs = one.detach(), other.detach()
    with serve("--input=exchange") as server:
        subscribe = start("subscribe", f"--url={address(server)}", "-n=20000", stdout=theirs)
        os.close(theirs)
        wait_for_viewers(server, 1)
        lines = b"".join(b"%d\n" % number for number in range(20_000))
        assert finish("publish", f"--url={address(server)}", data=lines).returncode == 0
        got = b""
        while ours >= 0 and len(got.replace(b"\r", b"")) < len(lines):
            got += os.read(ours, 65536)
        assert (subscribe.wait(), subscribe.errors) == (0, "")
    if kind == "file":
        assert path.read_bytes() == b"before\n" + lines
    if ours >= 0:
        assert got.replace(b"\r", b"") == lines
        os.close(ours)


def test_stdout_that_cannot_be_written(start: Start) -> None:
    """If stdout cannot be written, for example on a full disk, `subscribe` exits with 1."""
    full = os.open("/dev/full", os.O_WRONLY)
    with serve("--input=exchange") as server, server.connect() as client:
        subscribe = start("subscribe", f"--url={address(server)}", stdout=full)
        os.close(full)
        wait_for_viewers(server, 2)
        client.send_text("one")
        assert (subscribe.wait(), subscribe.errors) == (1, "wsbridge: cannot write to stdout: No space left on device\n")


# Positions


def test_resume_at_a_server(start: Start) -> None:
    """`--show-position` prints each message's position before it, and `--since` continues after that position."""
    with serve("--input=exchange", "--join=history") as server:
        assert finish("publish", f"--url={address(server)}", data=b"1\n2\n3\n4\n").returncode == 0
        shown = finish("subscribe", f"--url={address(server)}", "--show-position", "-n=2").stdout.decode().splitlines()
        assert [re.fullmatch(rf"{POSITION} (\d)", line)[1] for line in shown] == ["1", "2"]  # type: ignore[index]
        since = shown[1].split()[0]
        done = finish("subscribe", f"--url={address(server)}?some=thing", f"--since={since}", "-n=2")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"3\n4\n", b"")


def test_resume_at_the_broker(broker: Broker, exchange: str) -> None:
    """With `--replay`, `subscribe` resumes at the broker after a position, also inside a batch of messages."""
    words = broker_words(broker, exchange, "--replay")
    for data in (b"1\n2\n", b"3\n4\n5\n", b"6\n"):
        assert finish("publish", *words, data=data).returncode == 0
    shown = finish("subscribe", *words, "--since=0-0", "--show-position", "-n=6").stdout.decode().splitlines()
    assert [line.split()[1] for line in shown] == list("123456")
    for number in (1, 3, 5):
        since = shown[number - 1].split()[0]
        done = finish("subscribe", *words, f"--since={since}", f"-n={6 - number}")
        assert (done.returncode, done.stdout.decode().split(), done.stderr) == (0, list("123456")[number:], b"")


def test_positions_are_interchangeable(broker: Broker, exchange: str) -> None:
    """With `--replay`, a position from the broker is valid at any node, and a node's position at the broker."""
    words = broker_words(broker, exchange, "--replay")
    assert finish("publish", *words, data=b"1\n2\n3\n4\n").returncode == 0
    with Server(*words, "--join=history", bridge=BROADCAST) as server:
        at_node = finish("subscribe", f"--url={address(server)}", "--show-position", "-n=4").stdout
        at_broker = finish("subscribe", *words, "--since=0-0", "--show-position", "-n=4").stdout
        assert at_node == at_broker
        since = at_broker.decode().splitlines()[1].split()[0]
        assert finish("subscribe", f"--url={address(server)}", f"--since={since}", "-n=2").stdout == b"3\n4\n"


@pytest.mark.parametrize("since", ["0.0123456789-1", "7.0123456789-1", "elsewhere-3"])
def test_position_outside_the_stream(since: str, broker: Broker, exchange: str) -> None:
    """If the stream does not hold the position, `subscribe` reports lost messages, and prints every later message that the stream holds."""
    words = broker_words(broker, exchange, "--replay")
    assert finish("publish", *words, data=b"1\n2\n").returncode == 0
    done = finish("subscribe", *words, f"--since={since}", "-n=2", timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1\n2\n", b"wsbridge: some messages were lost\n")


def test_empty_stream(start: Start, broker: Broker, exchange: str) -> None:
    """In an empty stream, the position before the first message is valid: `subscribe` prints the first message that arrives."""
    words = broker_words(broker, exchange, "--replay")
    subscribe = start("subscribe", *words, "--since=0-0", "-n=1")
    wait_until(lambda: f"wsbridge.{exchange}" in broker.queues(), "the stream")
    assert finish("publish", *words, data=b"first\n").returncode == 0
    assert (subscribe.lines(1), subscribe.wait(), subscribe.errors) == (["first"], 0, "")


def test_new_messages_only(start: Start, broker: Broker, exchange: str) -> None:
    """Without `--since`, `subscribe` begins with the next published message, with `--replay` too."""
    words = broker_words(broker, exchange, "--replay")
    assert finish("publish", *words, data=b"old\n").returncode == 0
    subscribe = start("subscribe", *words, "-n=1")
    # Nothing shows when the subscription begins, so the test publishes until `subscribe` has received a message.
    wait_until(lambda: finish("publish", *words, data=b"new\n").returncode == 0 and subscribe.process.poll() is not None, "its end", 60)
    assert (subscribe.read(100), subscribe.errors) == (b"new\n", "")


# Lost messages


def test_lost_count() -> None:
    """`subscribe` reports the count of messages that the server no longer keeps on stderr, and prints the rest."""
    with serve("--input=exchange", "--join=history", "--queue=0") as server:
        assert finish("publish", f"--url={address(server)}", data=b"1\n").returncode == 0
        since = finish("subscribe", f"--url={address(server)}", "--show-position", "-n=1").stdout.decode().split()[0]
        with server.connect() as client:
            assert client.receive_text() == "1"
            for number in range(2, 1021):
                client.send_text(str(number))
                assert client.receive_text() == str(number)
        done = finish("subscribe", f"--url={address(server)}", f"--since={since}", "-n=1")
        first = int(done.stdout)
        assert (done.returncode, done.stderr.decode()) == (0, f"wsbridge: {first - 2} messages were lost\n")
        assert first > 2
        done = finish("subscribe", f"--url={address(server)}", "--since=elsewhere-1", "-n=1")
        assert (done.returncode, done.stderr) == (0, b"wsbridge: some messages were lost\n")


@pytest.mark.parametrize(
    ("records", "position", "printed"),
    [
        ([b"!at e-4"], "e-4", b""),
        ([b"!at e-4", b"e-5\nfive"], "e-5", b"five\n"),
        ([b"e-5\nfive", b"!lost e-25 20"], "e-25", b"five\n"),
        ([b"e-5\nfive", b"!lost e-25 20", b"e-26\nmore"], "e-26", b"five\nmore\n"),
        ([b"!lost e-25 20", b"!later record"], "e-25", b""),
    ],
)
async def test_position_after_a_batch(records: list[bytes], position: str, printed: bytes) -> None:
    """`subscribe` resumes after the last record, a message or a loss, so that it reports nothing twice."""
    loop = asyncio.get_running_loop()
    ours, theirs = os.pipe()
    output = StdoutWriter(theirs, failed=lambda error: None, loop=loop)
    _, encoder = make_framing("lines", limit=0)
    printer = Printer(encoder, count=0, show_position=False, on_count=lambda: None)
    reader = Reader(printer, output, "e-1", loop.create_future())
    reader.write(Batch(Kind.TEXT, records))
    output.close()
    os.close(theirs)
    assert (reader.position, os.read(ours, 100)) == (position, printed)
    os.close(ours)


def test_reconnect_to_a_server(start: Start) -> None:
    """After a lost connection, `subscribe` reconnects and resumes after the last message: no message is lost or repeated."""
    with serve("--input=exchange") as server, Proxy(("127.0.0.1", server.port)) as proxy:
        subscribe = start("subscribe", f"--url=ws://127.0.0.1:{proxy.port}/", "-n=4")
        wait_for_viewers(server, 1)
        with server.connect() as client:
            client.send_text("1")
            assert subscribe.lines(1) == ["1"]
            proxy.refuse()
            proxy.cut()
            subscribe.wait_for_error("cannot be reached")
            client.send_text("2")
            client.send_text("3")
            proxy.accept()
            assert subscribe.lines(2) == ["2", "3"]
            client.send_text("4")
            assert (subscribe.lines(1), subscribe.wait()) == (["4"], 0)
    assert "reconnected to ws://" in subscribe.errors
    assert "lost" not in subscribe.errors


def test_reconnect_before_the_first_message(start: Start) -> None:
    """If a connection breaks before the first message, `subscribe` resumes at the position where it began."""
    with serve("--input=exchange") as server, Proxy(("127.0.0.1", server.port)) as proxy:
        subscribe = start("subscribe", f"--url=ws://127.0.0.1:{proxy.port}/", "-n=1")
        wait_until(lambda: proxy.brought, "the server's answer")
        with server.connect() as client:
            proxy.refuse()
            proxy.cut()
            subscribe.wait_for_error("cannot be reached")
            client.send_text("first")
            proxy.accept()
            assert (subscribe.lines(1), subscribe.wait()) == (["first"], 0)
    assert "lost" not in subscribe.errors


def test_server_restart(start: Start) -> None:
    """A restarted server has a new channel, so `subscribe` reports that an unknown number of messages was lost."""
    port = free_port()
    listen = ("--address=127.0.0.1", f"--port={port}")
    with serve("--input=exchange", listen=listen) as server, server.connect() as client:
        subscribe = start("subscribe", f"--url=ws://127.0.0.1:{port}/", "-n=2")
        wait_for_viewers(server, 2)
        client.send_text("1")
        assert subscribe.lines(1) == ["1"]
    with serve("--input=exchange", listen=listen) as server, server.connect() as client:
        wait_for_viewers(server, 2)
        client.send_text("2")
        assert (subscribe.lines(1), subscribe.wait()) == (["2"], 0)
    assert "1001 server is shutting down" in subscribe.errors
    assert "wsbridge: some messages were lost\n" in subscribe.errors


def test_reconnect_to_the_broker(start: Start, broker: Broker, exchange: str) -> None:
    """`subscribe` reconnects to the broker by itself. Without `--replay`, it reports that messages may be lost."""
    with Proxy(("127.0.0.1", broker.port)) as proxy:
        url = f"--broker=amqp://guest:guest@127.0.0.1:{proxy.port}/"
        lossy = start("subscribe", f"--exchange={exchange}", url, "-n=1")
        wait_for_queue(broker, exchange)
        kept = start("subscribe", f"--exchange={exchange}.kept", url, "--replay", "--since=0-0", "-n=2")
        kept_words = broker_words(broker, f"{exchange}.kept", "--replay")
        wait_until(lambda: f"wsbridge.{exchange}.kept" in broker.queues(), "the stream")
        assert finish("publish", *kept_words, data=b"1\n").returncode == 0
        assert kept.lines(1) == ["1"]
        proxy.refuse()
        proxy.cut()
        for end in (lossy, kept):
            end.wait_for_error("cannot be reached")
        assert finish("publish", *kept_words, data=b"2\n").returncode == 0
        proxy.accept()
        assert (kept.lines(1), kept.wait()) == (["2"], 0)
        lossy.wait_for_error("reconnected to the broker at ")
        assert finish("publish", *broker_words(broker, exchange), data=b"1\n").returncode == 0
        assert (lossy.lines(1), lossy.wait()) == (["1"], 0)
        assert "wsbridge: some messages were lost\n" in lossy.errors
        assert "lost\n" not in kept.errors


# Slow readers


@pytest.mark.parametrize("mode", [(), ("--replay", "--since=0-0")], ids=["queue", "stream"])
def test_slow_reader_of_the_broker(mode: tuple[str, ...], start: Start, broker: Broker, exchange: str) -> None:
    """A stdout that is not read causes backpressure at the broker: `subscribe` buffers a bounded amount, and no message is lost."""
    words = broker_words(broker, exchange, *mode[:1])
    count = 40 * MEGABYTE // 64
    data = b"".join(b"%063d\n" % number for number in range(count))
    subscribe = start("subscribe", *words, *mode[1:], f"-n={count}")
    wait_for_queue(broker, exchange)
    assert finish("publish", *words, data=data).returncode == 0
    peak = memory_peak(subscribe.pid)
    assert subscribe.read(len(data)) == data
    assert (subscribe.wait(), subscribe.errors, peak < 120 * MEGABYTE) == (0, "", True)


def test_slow_reader_of_a_server(start: Start) -> None:
    """A stdout that is not read causes backpressure at the server, which drops messages. `subscribe` prints or counts each message."""
    count = 40 * MEGABYTE // 64
    lines = f"read go; seq -f %063.0f 1 {count}; echo last; read end"
    with serve("--input=program", "--restart=never", "--send-timeout=0", "sh", "-c", lines) as server:
        subscribe = start("subscribe", f"--url={address(server)}")
        wait_for_viewers(server, 1)
        assert finish("publish", f"--url={address(server)}", data=b"go\n").returncode == 0
        wait_until(lambda: b'"messages": %d' % (count + 1) in server.get("/status").body, "every message", DEADLINE)
        assert memory_peak(subscribe.pid) < 100 * MEGABYTE
        printed = subscribe.read_until(b"last\n").count(b"\n") - 1
        # Another thread reads stderr.
        subscribe.wait_for_error(" lost\n")
        wait_until(lambda: printed + told_as_lost(subscribe.errors) >= count, "word of every loss")
        assert printed + told_as_lost(subscribe.errors) == count


# The end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_signals(number: signal.Signals, start: Start) -> None:
    """After a signal, `subscribe` closes the connection cleanly, and dies of that signal."""
    with serve("--input=exchange") as server, server.connect() as client:
        subscribe = start("subscribe", f"--url={address(server)}")
        wait_for_viewers(server, 2)
        client.send_text("one")
        assert subscribe.lines(1) == ["one"]
        subscribe.send_signal(number)
        assert (subscribe.wait(), subscribe.errors) == (-number, "")
        server.wait_for_log("close:'1005'.*DISCONNECT")


def test_signal_with_a_broker(start: Start, broker: Broker, exchange: str) -> None:
    """After a signal, `subscribe` also deletes its queue at the broker, and dies of that signal."""
    subscribe = start("subscribe", *broker_words(broker, exchange))
    wait_for_queue(broker, exchange)
    subscribe.send_signal(signal.SIGTERM)
    assert (subscribe.wait(), subscribe.errors) == (-signal.SIGTERM, "")
    wait_until(lambda: exchange not in dict(broker.bindings()), "the end of its queue")


SHORT_LINK_TIMEOUT = """
import os, sys
from wsbridge.bus.rabbitmq import link as link
from wsbridge.bus.rabbitmq.tuning import TUNING
from wsbridge.cli.main import run

object.__setattr__(TUNING, "check_interval", 0.1)
close = link.Link.close

async def report_and_close(lost_link):
    print("closing the link", file=sys.stderr, flush=True)
    await close(lost_link)

link.Link.close = report_and_close
sys.exit(run("wsbridge", sys.argv[1:], os.environ))
"""
"""Drops a broker that is silent for a second, and prints this before it closes the connection."""


SLOW_OPENING = """
import asyncio, os, sys
from wsbridge.bus.rabbitmq.bus import RabbitBus
from wsbridge.cli.main import run

open_bus = RabbitBus.open

async def open_and_receive(bus, receiver):
    arrived, receive = asyncio.Event(), receiver.receive

    def receive_and_report(body):
        receive(body)
        arrived.set()

    receiver.receive = receive_and_report
    await open_bus(bus, receiver)
    print("open", file=sys.stderr, flush=True)
    await arrived.wait()

RabbitBus.open = open_and_receive
sys.exit(run("wsbridge", sys.argv[1:], os.environ))
"""
"""Completes the opening of the bus only after the first message has arrived."""


def test_message_during_the_opening(start: Start, broker: Broker, exchange: str) -> None:
    """`subscribe` prints a message that the broker delivers while the opening of the bus completes."""
    subscribe = start("subscribe", *broker_words(broker, exchange), "-n", "1", python=("-c", SLOW_OPENING))
    subscribe.wait_for_error("open")
    assert finish("publish", *broker_words(broker, exchange), data=b"early\n").returncode == 0
    assert subscribe.lines(1) == ["early"]
    assert subscribe.wait() == 0


@pytest.mark.parametrize("end", ["subscribe", "publish"])
def test_signal_while_the_link_times_out(end: str, start: Start, broker: Broker, exchange: str) -> None:
    """A signal ends the process, although the connection to a silent broker is just timing out."""
    with Proxy(("127.0.0.1", broker.port)) as proxy:
        words = (end, f"--exchange={exchange}", f"--broker=amqp://guest:guest@127.0.0.1:{proxy.port}/")
        published, _ = broker.confirms()
        process = start(*words, python=("-c", SHORT_LINK_TIMEOUT))
        # The connection must be open first: a broker that is silent before is an error.
        if end == "publish":
            process.write(b"x\n")
            wait_until_confirmed(broker, proxy, published)
        else:
            wait_for_queue(broker, exchange)
            assert finish("publish", *broker_words(broker, exchange), data=b"x\n").returncode == 0
            assert process.lines(1) == ["x"]
        proxy.swallow()
        process.wait_for_error("closing the link")
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM


def test_signal_while_stdout_is_full(start: Start) -> None:
    """A signal ends `subscribe`, although the reader of its stdout reads nothing."""
    with serve("--restart=never", "sh", "-c", "while :; do seq 100000; done") as server:
        subscribe = start("subscribe", f"--url={address(server)}")
        subscribe.wait_until_full()
        subscribe.send_signal(signal.SIGINT)
        assert subscribe.wait() == -signal.SIGINT


@pytest.mark.parametrize("when", ["idle", "busy"])
def test_reader_that_exits(when: str, start: Start) -> None:
    """When the reader of its stdout has exited, `subscribe` dies of SIGPIPE without a message, also while it has nothing to print."""
    with serve("--input=exchange", "--join=history") as server:
        assert finish("publish", f"--url={address(server)}", data=b"1\n").returncode == 0
        subscribe = start("subscribe", f"--url={address(server)}")
        assert subscribe.lines(1) == ["1"]
        if when == "busy":
            subscribe.send_signal(signal.SIGSTOP)
            assert finish("publish", f"--url={address(server)}", data=b"2\n").returncode == 0
        subscribe.close_stdout()
        subscribe.send_signal(signal.SIGCONT)
        assert (subscribe.wait(), subscribe.errors) == (-signal.SIGPIPE, "")
        wait_until(lambda: viewers(server) == 0, "its leaving")


def test_reader_that_exits_with_a_broker(start: Start, broker: Broker, exchange: str) -> None:
    """With a broker too, `subscribe` dies of SIGPIPE when the reader of its stdout has exited."""
    subscribe = start("subscribe", *broker_words(broker, exchange))
    wait_for_queue(broker, exchange)
    subscribe.close_stdout()
    assert (subscribe.wait(), subscribe.errors) == (-signal.SIGPIPE, "")


@pytest.mark.parametrize("words", [["--help"], ["subscribe", "--help"], ["--license"], ["--version"]])
def test_help_with_a_reader_that_exits(words: list[str]) -> None:
    """`wsbridge --help | head -1` dies of SIGPIPE without a message."""
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, "-m", "wsbridge", *words],
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=environment({}),
        timeout=scaled(DEADLINE),
        check=False,
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


# Unreachable or refusing servers


@pytest.mark.parametrize(
    ("words", "status", "needle"),
    [
        (["--exchange=x"], 1, "--url"),
        ([], 1, "--broker"),
        (["--url=ws://h/", "--broker=amqp://h/"], 1, "together"),
        (["--url=ws://h/", "-n=-1"], 1, "--n=-1"),
        (["--url=ws://h/", "-n=x"], 2, "-n"),
        (["--url=ws://h/", "--since=x y"], 1, "--since"),
        (["--broker=amqp://h/", "--exchange=x", "--since=0-0"], 1, "--since needs --replay"),
        (["--broker=amqp://h/", "--exchange=x", "--show-position"], 1, "--show-position needs --replay"),
        (["--url=ws://h/", "cat"], 1, "accepts no COMMAND"),
    ],
)
def test_usage_errors(words: list[str], status: int, needle: str) -> None:
    """For a usage error, `subscribe` prints one line and a short help before it connects."""
    done = finish("subscribe", *words)
    first, *_, last = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout, needle in first, "wsbridge subscribe --help" in last) == (status, b"", True, True)


def test_unreachable_at_the_start(exchange: str) -> None:
    """If `subscribe` cannot reach the server or the broker at the start, it exits with 4."""
    port = free_port()
    done = finish("subscribe", f"--url=ws://user:secret@127.0.0.1:{port}/path?secret")
    assert done.returncode == 4
    assert done.stderr.decode().startswith(f"wsbridge: ws://127.0.0.1:{port}/path cannot be reached: Connection refused;")
    done = finish("subscribe", f"--exchange={exchange}", f"--broker=amqp://user:secret@127.0.0.1:{port}/")
    assert (done.returncode, b"cannot be reached" in done.stderr, b"secret" in done.stderr) == (4, True, False)


def test_control_characters_in_a_close_reason(start: Start) -> None:
    """`subscribe` escapes control characters in a server's close reason, in the log too."""
    head, close = ENDED.split(b"\r\n\r\n")
    with stranger(head + b"\r\nSec-WebSocket-Protocol: wsbridge.v1\r\n\r\n" + close) as url:
        subscribe = start("subscribe", f"--url={url}")
        subscribe.wait_for_error("all); reconnecting\n")
        assert subscribe.errors.startswith(f"wsbridge: disconnected from {url} (1001 \\x1b]0;owned\\x07\\nall); reconnecting\n")


def test_no_channel() -> None:
    """If the WebSocket is not a channel, `subscribe` exits with 4 and an error."""
    with Server("cat") as server:
        done = finish("subscribe", f"--url={address(server)}")
    assert done.returncode == 4
    words = "does not support the subprotocol wsbridge.v1; is it a `wsbridge broadcast`?"
    assert done.stderr.decode() == f"wsbridge: {address(server)} {words}\n"


def test_broker_that_refuses(broker: Broker, exchange: str) -> None:
    """If the broker refuses, `subscribe` exits with 4 and prints the broker's reason."""
    done = finish("subscribe", *broker_words(broker, exchange, "--passive"))
    assert (done.returncode, b"has no exchange" in done.stderr) == (4, True)


def test_message_too_long(start: Start) -> None:
    """`subscribe` exits with 4 at a message over `--maxline`, since a server would send it again."""
    with serve("--input=exchange") as server, server.connect() as client:
        subscribe = start("subscribe", f"--url={address(server)}", "--maxline=8")
        wait_for_viewers(server, 2)
        client.send_text("x" * 1000)
        assert (subscribe.wait(), "over the limit of 8 bytes; raise the limit with --maxline" in subscribe.errors) == (4, True)
        server.wait_for_log("close:'1009.*DISCONNECT")


def test_messages_before_a_message_too_long(start: Start) -> None:
    """A slow reader of stdout still receives all messages before the message that ends `subscribe`."""
    lines = b"".join(b"%099d\n" % number for number in range(200))
    program = "read -r go; all=$(seq -f %099.0f 0 199; head -c 20000 /dev/zero | tr '\\0' x); echo \"$all\"; exec sleep 1000"
    with serve("--input=program", "--restart=never", "sh", "-c", program) as server:
        subscribe = start("subscribe", f"--url={address(server)}", "--maxline=10000")
        assert subscribe.process.stdout is not None
        fcntl.fcntl(subscribe.process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        wait_for_viewers(server, 1)
        assert finish("publish", f"--url={address(server)}", data=b"go\n").returncode == 0
        server.wait_for_log("close:'1009.*DISCONNECT")
        assert subscribe.read(len(lines) + 1) == lines
        assert (subscribe.wait(), "--maxline" in subscribe.errors) == (4, True)


def test_over_tls(certificates: Certificates) -> None:
    """`wss://` uses TLS, and `subscribe` refuses an untrusted certificate."""
    trusting = {"SSL_CERT_FILE": f"{certificates.folder}/ca.pem"}
    with serve("--input=exchange", "--join=history", *certificates.server_flags) as server:
        url = f"--url=wss://localhost:{server.port}/"
        assert finish("publish", url, data=b"one\ntwo\n", env=trusting).returncode == 0
        done = finish("subscribe", url, "-n=2", env=trusting)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"one\ntwo\n", b"")
        done = finish("subscribe", url, "-n=2")
        assert (done.returncode, b"certificate" in done.stderr) == (4, True)


def told_as_lost(errors: str) -> int:
    return sum(map(int, re.findall(r"wsbridge: (\d+) messages? w", errors)))


# The end of a search


@pytest.mark.parametrize(
    ("received_at", "now", "remaining"),
    [
        (0, 100, 3),
        (0, 103, 0),
        (102, 103, 2),
        (110, 112, 1),
        (110, 114, -1),
        (129.5, 129.5, 0.5),
        (131, 131, -1),
    ],
)
def test_remaining_seconds(received_at: float, now: float, remaining: float) -> None:
    """The search for a position in a stream ends after three seconds without data, and after half a minute at the latest."""
    assert remaining_seconds(100, received_at, now) == remaining


@pytest.mark.parametrize("is_empty", [False, True])
async def test_search(is_empty: bool) -> None:
    """The search continues while data arrives, except in an empty stream. Then `subscribe` prints the messages."""
    loop, metrics = asyncio.get_running_loop(), Metrics()
    channel = Channel("0.00", queue_bytes=1000, history=0, history_bytes=0, slow=Slow.DROP_OLDEST)
    fanout = Fanout(channel, metrics=metrics, loop=loop)
    ours, theirs = os.pipe()
    output = StdoutWriter(theirs, failed=lambda error: None, loop=loop)
    _, encoder = make_framing("lines", limit=0)
    printer = Printer(encoder, count=0, show_position=False, on_count=lambda: None)
    screen = Screen(printer, output, fanout, MemoryBus("0"))
    search = Search(Relay(fanout, new_epoch=lambda: "1", metrics=metrics), screen, fanout, Position("7.9f3ac01b", 1), silence=0.05)
    if not is_empty:
        channel.append(Batch(Kind.TEXT, [b"there"]))
    shown: list[int] = []

    def received_at() -> float:
        shown.append(len(fanout))
        return loop.time() if len(shown) < 4 else 0.0

    await search.wait(received_at)
    assert (len(fanout), shown) == (1, [0] * (0 if is_empty else 4))
    fanout.leave(screen)
    output.close()
    os.close(theirs)
    assert os.read(ours, 100) == (b"" if is_empty else b"there\n")
    os.close(ours)


def test_settle_ignores_a_finished_future() -> None:
    """`settle` ignores a future that already has a result or is cancelled."""
    loop = asyncio.new_event_loop()
    first, second = loop.create_future(), loop.create_future()
    settle(first, 1)
    settle(first, 2)
    second.cancel()
    settle(second, 1)
    assert (first.result(), second.cancelled()) == (1, True)
    loop.close()
