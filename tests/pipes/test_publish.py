"""`wsbridge publish`: it publishes messages from stdin to a channel, and its exit status follows the shell's conventions."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
from pathlib import Path

import pytest

from tests.pipes.conftest import Start, address, finish, serve, stranger, viewers, wait_for_queue, wait_for_viewers, wait_until_confirmed
from tests.support.rabbit import Broker, Proxy, bro_consume
from tests.support.server import Server, free_port, memory_peak, wait_until
from tests.support.site import Certificates

MEGABYTE = 1024 * 1024
LINE = b"x" * 63 + b"\n"

FRAMED = {
    "lines": (b"one\ntwo\r\n\nthree", [b"one", b"two", b"", b"three"]),
    "nul": (b"one\0two\nthree\0", [b"one", b"two\nthree"]),
    "prefixed": (b"\0\0\0\3\1one\0\0\0\2\2\xff\0\0\0\0\0\1", [b"one", b"\xff\0", b""]),
    "json": (b'{"type":"message","text":"one"}\n{"type":"message","base64":"/wA="}\n', [b"one", b"\xff\0"]),
    "chunks": (b"\xff\0\n", [b"\xff\0\n"]),
}


@pytest.mark.parametrize("framing", FRAMED)
def test_framings(framing: str) -> None:
    """Messages on stdin may have any framing; data after the last separator is also a message."""
    data, messages = FRAMED[framing]
    with serve("--input=exchange", "--join=none") as server, server.connect() as client:
        done = finish("publish", f"--url={address(server)}", f"--framing={framing}", data=data)
        assert [client.receive().data for _ in messages] == messages
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_publish_to_the_broker(start: Start, broker: Broker, exchange: str) -> None:
    """With `--broker`, `publish` exits with 0 when the broker has confirmed every message. Any consumer receives the lines."""
    subscribe = start("subscribe", f"--exchange={exchange}", f"--broker={broker.url}", "-n", "100000")
    wait_for_queue(broker, exchange)
    data = b"".join(b"%d\n" % number for number in range(100_000))
    done = finish("publish", f"--exchange={exchange}", f"--broker={broker.url}", data=data)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert subscribe.read(len(data)) == data
    assert subscribe.wait() == 0


async def test_published_lines_for_other_consumers(start: Start, broker: Broker, exchange: str) -> None:
    """A consumer that does not know wsbridge receives lines."""
    publish = start("publish", f"--exchange={exchange}", f"--broker={broker.url}")
    bound = asyncio.Event()
    consuming = asyncio.create_task(bro_consume(broker.url, exchange, 1, bound=bound))
    await bound.wait()
    publish.write(b"first\n")
    assert await consuming == [b"first"]
    publish.close_stdin()
    assert publish.wait() == 0


def test_message_is_sent_at_once(start: Start) -> None:
    """`publish` sends a message as soon as it is complete, while stdin stays open, and uses one connection for all messages."""
    with serve("--input=exchange") as server, server.connect() as client:
        publish = start("publish", f"--url={address(server)}")
        wait_for_viewers(server, 2)
        for text in ("one", "two"):
            publish.write(f"{text}\nhal".encode() if text == "one" else b"f\n")
            assert client.receive_text() == (text if text == "one" else "half")
        assert viewers(server) == 2
        publish.close_stdin()
        assert publish.wait() == 0
        wait_for_viewers(server, 1)


def test_close_record() -> None:
    """With `--framing=json`, a close record ends `publish` with its code; `publish` sends nothing after it."""
    records = b'{"type":"message","text":"one"}\n{"type":"close","code":3001,"reason":"enough"}\n{"type":"message","text":"two"}\n'
    with serve("--input=exchange") as server, server.connect() as client:
        done = finish("publish", f"--url={address(server)}", "--framing=json", data=records)
        assert client.receive_text() == "one"
        server.wait_for_log("close:'3001.*DISCONNECT")
    assert (done.returncode, done.stderr) == (0, b"")


def test_publish_to_a_program(tmp_path: Path) -> None:
    """With `--url`, `publish` exits after all messages have left: the program at the other end receives every line."""
    data = b"".join(b"%d\n" % number for number in range(50_000))
    received = tmp_path / "received"
    with serve("--input=program", "--restart=never", "sh", "-c", f"exec cat >{received}") as server:
        assert finish("publish", f"--url={address(server)}", data=data).returncode == 0
        wait_until(lambda: received.stat().st_size == len(data), "every line")
    assert received.read_bytes() == data


@pytest.mark.parametrize("kind", ["file", "null", "terminal", "pipe"])
def test_kinds_of_stdin(kind: str, start: Start, tmp_path: Path) -> None:
    """Stdin may be a file, /dev/null, a terminal or a pipe."""
    lines, other, path = b"".join(b"%d\n" % number for number in range(1000)), None, tmp_path / "stdin"
    path.write_bytes(lines)
    match kind:
        case "file":
            stdin = os.open(path, os.O_RDONLY)
        case "null":
            stdin, lines = os.open(os.devnull, os.O_RDONLY), b""
        case "terminal":
            (other, stdin), lines = pty.openpty(), b"typed\n"
            os.write(other, lines + b"\x04")
        case _:
            stdin, other = os.pipe()
            os.write(other, lines)
            os.close(other)
            other = None
    with serve("--input=exchange", "--join=history") as server:
        publish = start("publish", f"--url={address(server)}", stdin=stdin)
        os.close(stdin)
        assert (publish.wait(), publish.errors) == (0, "")
        with server.connect() as client:
            assert [client.receive_text() for _ in lines.splitlines()] == lines.decode().splitlines()
    if other is not None:
        os.close(other)


def test_stdin_that_cannot_be_read(start: Start, tmp_path: Path) -> None:
    """A stdin that cannot be read is an error with exit status 1."""
    (tmp_path / "stdin").touch()
    with serve("--input=exchange") as server:
        stdin = os.open(tmp_path / "stdin", os.O_WRONLY)
        publish = start("publish", f"--url={address(server)}", stdin=stdin)
        os.close(stdin)
        assert (publish.wait(), publish.errors) == (1, "wsbridge: cannot read stdin: Bad file descriptor\n")


# Invalid input


def test_message_too_long() -> None:
    """`publish` exits with 1 at a message over `--maxline`, after it has published the earlier messages."""
    with serve("--input=exchange") as server, server.connect() as client:
        done = finish("publish", f"--url={address(server)}", "--maxline=8", data=b"one\n123456789\nnever\n")
        assert client.receive_text() == "one"
    assert (done.returncode, b"longer than 8 bytes" in done.stderr) == (1, True)


def test_framing_error(broker: Broker, exchange: str) -> None:
    """`publish` exits with 1 at data that violates the framing, and the error names the line."""
    records = b'{"type":"message","text":"a"}\nnot\n'
    done = finish("publish", f"--exchange={exchange}", f"--broker={broker.url}", "--framing=json", data=records)
    assert done.returncode == 1
    assert done.stderr.startswith(b"wsbridge: stdin: line 2 is not a record")


@pytest.mark.parametrize(
    ("words", "status", "needle"),
    [
        (["--exchange=x"], 1, "--broker"),
        ([], 1, "--url"),
        (["--url=ws://h/", "--broker=amqp://h/"], 1, "together"),
        (["--url=http://user:secret@h/"], 1, "ws://"),
        (["--url=ws://user:secret@"], 1, "ws://"),
        (["--broker=amqp://h/"], 1, "--exchange is missing"),
        (["--broker=amqp://h/", "--exchange=amq.x"], 1, "amq."),
        (["--url=ws://h/", "--replay"], 1, "--replay cannot be used with --url"),
        (["--url=ws://h/", "--exchange=x"], 1, "--exchange cannot be used with --url"),
        (["--url=ws://u:se/cret@h/"], 1, "%2F"),
        (["--exchange=x", "--broker=amqp://u:se/cret@h/"], 1, "%2F"),
        (["--exchange=x", "--broker=amqp://u:12/cret@h/"], 1, "%2F"),
        (["--exchange=x", "--broker=amqp://u:12?cret@h/"], 1, "%2F"),
        (["--exchange=x", "--broker=amqp://u:12#cret@h/"], 1, "%2F"),
        (["--url=ws://h/", "--framing=xml"], 1, "--framing"),
        (["--url=ws://h/", "--loglevel=x"], 1, "--loglevel"),
        (["--url=ws://h/", "cat"], 1, "accepts no COMMAND"),
        (["--exchange=x", "amqp://u:secret@h/"], 1, "amqp://…@h/"),
        (["--exchange=x", "-broker:amqp://u:secret==@h/"], 2, "-broker:amqp://…"),
        (["--url=ws://h/", "-n", "1"], 2, "-n"),
    ],
)
def test_usage_errors(words: list[str], status: int, needle: str) -> None:
    """For a usage error, `publish` prints one line and a short help before it connects, and prints no password."""
    done = finish("publish", *words)
    first, *_, last = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout, needle in first, "wsbridge publish --help" in last) == (status, b"", True, True)
    assert "cret" not in done.stderr.decode()


@pytest.mark.parametrize("variables", [{}, {"WSBRIDGE_REPLAY": "1", "WSBRIDGE_EXCHANGE": "other"}])
def test_flag_precedes_a_variable(variables: dict[str, str | None]) -> None:
    """A --url on the command line overrides a variable that names a broker. A --broker overrides a URL in the same way."""
    with serve("--input=exchange") as server, server.connect() as client:
        done = finish("publish", f"--url={address(server)}", data=b"one\n", env={"WSBRIDGE_BROKER": "amqp://nowhere/", **variables})
        assert (done.returncode, done.stderr) == (0, b"")
        assert client.receive_text() == "one"
    done = finish("publish", "--broker=amqp://127.0.0.1:1/", "--exchange=x", env={"WSBRIDGE_URL": "ws://nowhere/"})
    assert (done.returncode, b"amqp://127.0.0.1:1/ cannot be reached" in done.stderr) == (4, True)
    done = finish("publish", env={"WSBRIDGE_URL": "ws://nowhere/", "WSBRIDGE_BROKER": "amqp://nowhere/"})
    assert (done.returncode, b"together" in done.stderr) == (1, True)


# Unreachable or refusing servers


def test_unreachable_at_the_start(exchange: str) -> None:
    """If `publish` cannot reach the server or the broker at the start, it exits with 4, and prints no password."""
    port = free_port()
    done = finish("publish", f"--url=ws://user:secret@127.0.0.1:{port}/?secret")
    assert done.returncode == 4
    assert done.stderr.decode() == f"wsbridge: ws://127.0.0.1:{port}/ cannot be reached: Connection refused; is a server running there?\n"
    done = finish("publish", f"--exchange={exchange}", f"--broker=amqp://user:secret@127.0.0.1:{port}/")
    assert (done.returncode, b"cannot be reached" in done.stderr, b"secret" in done.stderr) == (4, True, False)


def test_refused_upgrade() -> None:
    """If a server refuses the upgrade, `publish` exits with 4 and prints the server's response."""
    with serve("--input=exchange", "--maxclients=1") as server, server.connect():
        done = finish("publish", f"--url={address(server)}", data=b"one\n")
    assert (done.returncode, b"refuses the upgrade: 429" in done.stderr) == (4, True)


def test_reason_of_the_refusal() -> None:
    """`publish` prints the reason that a wsbridge server gives for a refusal."""
    with serve("--input=exchange", "--sameorigin") as server:
        done = finish("publish", f"--url={address(server)}", data=b"one\n")
    assert (done.returncode, done.stderr.decode()) == (
        4,
        f"wsbridge: {address(server)} refuses the upgrade: 403 Forbidden: Same origin policy mismatch\n",
    )


def test_wrong_scheme(certificates: Certificates) -> None:
    """If the TLS handshake fails, the error suggests ws://; if a plain connection fails, `publish` exits with 4."""
    with serve("--input=exchange") as server:
        done = finish("publish", f"--url=wss://127.0.0.1:{server.port}/")
    assert (done.returncode, b"failed the TLS handshake: " in done.stderr, b"; use ws:// if the server" in done.stderr) == (4, True, True)
    with serve("--input=exchange", *certificates.server_flags) as server:
        done = finish("publish", f"--url={address(server)}")
    assert done.returncode == 4


def test_no_websocket(tmp_path: Path) -> None:
    """If the URL leads to no WebSocket, `publish` exits with 4 and prints the status."""
    with Server(f"--staticdir={tmp_path}") as server:
        done = finish("publish", f"--url={address(server)}none", data=b"one\n")
    assert (done.returncode, b"refuses the upgrade: 404" in done.stderr) == (4, True)


def test_channel_without_input() -> None:
    """If the channel accepts no messages, `publish` exits with 4, and the error names the flag that the server needs."""
    with serve("sleep", "100") as server:
        done = finish("publish", f"--url={address(server)}", data=b"one\n")
    assert done.returncode == 4
    assert done.stderr.decode() == f"wsbridge: the channel at {address(server)} accepts no messages; start its server with --input\n"


def test_server_that_disconnects_early(start: Start) -> None:
    """If the server disconnects before the end of stdin, `publish` exits with 4, since the server may not have processed all messages."""
    with serve("--input=exchange") as server:
        publish = start("publish", f"--url={address(server)}")
        publish.write(b"one\n")
        publish.wait_until_read()
        server.stop()
        assert (publish.wait(), "1001 server is shutting down" in publish.errors) == (4, True)


def away(place: bytes) -> bytes:
    return b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nConnection: close\r\nLocation: " + place + b"\r\n\r\n"


@pytest.mark.parametrize("answer", [away(b"ftp://user:secret@h/"), away(b"http://user:secret@h:x/"), b"Nonsense\r\n\r\n"])
def test_invalid_response(answer: bytes, start: Start) -> None:
    """For an invalid redirect or a response that is not HTTP, `publish` exits with 4. The error has no secret of either URL."""
    with stranger(answer) as url:
        publish = start("publish", f"--url={url.replace('://', '://user:secret@')}?secret")
        assert publish.wait() == 4
    nowhere = f"wsbridge: {url} redirects to ftp://h/, which is not a WebSocket URL"
    assert publish.errors.startswith((f"wsbridge: {url} cannot be used: ", nowhere))
    assert "secret" not in publish.errors


PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n<html>\nHello!\n</html>"
TLS_ONLY = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 31\r\n\r\n<html>\nHTTPS is spoken here.\n<"
REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 12\r\n\r\n403 \x1b[2Jno\xc2\x9b"
ENDED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    b"\x88\x10\x03\xe9\x1b]0;owned\x07\nall"
)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (PAGE, "{url} is not a WebSocket server: 200 OK"),
        (TLS_ONLY, "{url} refuses the upgrade (use wss:// if the server uses TLS): 400 Bad Request"),
        (REFUSED, "{url} refuses the upgrade: 403 \\x1b[2Jno\\x9b"),
        (ENDED, "disconnected from {url} (1001 \\x1b]0;owned\\x07\\nall); the last messages may be lost"),
    ],
    ids=["page", "tls", "refused", "ended"],
)
def test_control_characters_in_a_response(answer: bytes, said: str, start: Start) -> None:
    """`publish` escapes control characters in a server's text, so that it cannot forge a line or control the terminal."""
    with stranger(answer) as url:
        publish = start("publish", f"--url={url}")
        assert (publish.wait(), publish.errors) == (4, f"wsbridge: {said.format(url=url)}\n")


# Backpressure


def test_full_socket(start: Start) -> None:
    """While the server reads nothing, `publish` does not read stdin, so its buffer is bounded."""
    with serve("--input=program", "--restart=never", "sh", "-c", "sleep 1000") as server:
        publish = start("publish", f"--url={address(server)}")
        publish.fill(LINE, 64 * MEGABYTE)
        assert memory_peak(publish.pid) < 100 * MEGABYTE
        publish.send_signal(signal.SIGTERM)
        assert publish.wait() == -signal.SIGTERM
        sentence = r"wsbridge: (\S+) did not acknowledge all messages: (\d+) bytes were not sent, and the last messages may be lost\n"
        told = re.fullmatch(sentence, publish.errors)
        assert told
        assert (told[1], int(told[2]) > MEGABYTE // 2) == (address(server), True)


def test_no_answer_to_the_close_frame(start: Start) -> None:
    """If the server does not answer the close frame after a signal, `publish` reports that the last messages may be lost."""
    with serve("--input=exchange") as server, server.connect() as client, Proxy(("127.0.0.1", server.port)) as proxy:
        publish = start("publish", f"--url=ws://127.0.0.1:{proxy.port}/")
        publish.write(b"first\n")
        assert client.receive_text() == "first"
        proxy.swallow()
        publish.write(b"on its way\n")
        publish.wait_until_read()
        publish.send_signal(signal.SIGTERM)
        assert publish.wait() == -signal.SIGTERM
    assert publish.errors == f"wsbridge: ws://127.0.0.1:{proxy.port}/ did not acknowledge all messages: the last messages may be lost\n"


def test_full_spool(start: Start, broker: Broker, exchange: str) -> None:
    """While the broker confirms nothing, `publish` does not read stdin, so the spool is bounded."""
    before, _ = broker.confirms()
    with Proxy(("127.0.0.1", broker.port)) as proxy:
        publish = start("publish", f"--exchange={exchange}", f"--broker=amqp://guest:guest@127.0.0.1:{proxy.port}/")
        publish.write(b"first\n")
        publish.wait_until_read()
        wait_until_confirmed(broker, proxy, before)
        proxy.swallow()
        assert publish.fill(LINE, 32 * MEGABYTE) > 7 * MEGABYTE
        assert memory_peak(publish.pid) < 100 * MEGABYTE


# Loss of the broker


def test_reconnect_to_the_broker(start: Start, broker: Broker, exchange: str) -> None:
    """With `--replay`, a lost connection loses no message: at the end of stdin, `publish` waits for all confirms."""
    before, _ = broker.confirms()
    with Proxy(("127.0.0.1", broker.port)) as proxy:
        words = (f"--exchange={exchange}", "--replay", f"--broker=amqp://guest:guest@127.0.0.1:{proxy.port}/")
        publish = start("publish", *words)
        publish.write(b"1\n")
        wait_until_confirmed(broker, proxy, before)
        proxy.refuse()
        proxy.cut()
        publish.write(b"2\n3\n")
        publish.close_stdin()
        publish.wait_for_error("cannot be reached")
        assert publish.process.poll() is None
        proxy.accept()
        assert publish.wait() == 0
        assert "reconnected to the broker at " in publish.errors
        printed = finish("subscribe", *words, "--since=0-0", "-n=3")
        assert printed.stdout == b"1\n2\n3\n"


def test_unconfirmed(start: Start, broker: Broker, exchange: str) -> None:
    """Without `--replay`, unconfirmed messages of a lost connection may be lost; `publish` reports this and exits with 4."""
    before, _ = broker.confirms()
    with Proxy(("127.0.0.1", broker.port)) as proxy:
        publish = start("publish", f"--exchange={exchange}", f"--broker=amqp://guest:guest@127.0.0.1:{proxy.port}/")
        publish.write(b"first\n")
        publish.wait_until_read()
        wait_until_confirmed(broker, proxy, before)
        proxy.swallow()
        publish.write(b"on its way\n")
        publish.wait_for_error("is not confirming messages")
        proxy.flow()
        proxy.cut()
        publish.wait_for_error("reconnected to the broker at ")
        publish.close_stdin()
        assert publish.wait() == 4
        assert publish.errors.endswith("wsbridge: 1 message was not confirmed by the broker, and may be lost\n")


def test_unconfirmed_at_a_signal(start: Start, broker: Broker, exchange: str) -> None:
    """After a signal, `publish` gives the broker a few seconds, then reports the unconfirmed messages."""
    before, _ = broker.confirms()
    with Proxy(("127.0.0.1", broker.port)) as proxy:
        publish = start("publish", f"--exchange={exchange}", "--replay", f"--broker=amqp://guest:guest@127.0.0.1:{proxy.port}/")
        publish.write(b"first\n")
        publish.wait_until_read()
        wait_until_confirmed(broker, proxy, before)
        proxy.swallow()
        publish.write(b"on its way\n")
        publish.wait_until_read()
        publish.send_signal(signal.SIGTERM)
        assert publish.wait() == -signal.SIGTERM
        assert "1 message was not confirmed" in publish.errors


def test_second_signal(start: Start, broker: Broker, exchange: str) -> None:
    """A second signal ends `publish` at once."""
    before, _ = broker.confirms()
    with Proxy(("127.0.0.1", broker.port)) as proxy:
        publish = start("publish", f"--exchange={exchange}", "--replay", f"--broker=amqp://guest:guest@127.0.0.1:{proxy.port}/")
        publish.write(b"first\n")
        publish.wait_until_read()
        wait_until_confirmed(broker, proxy, before)
        proxy.swallow()
        publish.write(b"on its way\n")
        publish.wait_for_error("is not confirming messages")
        publish.send_signal(signal.SIGTERM)
        # The first signal must be delivered before the second is sent, because the kernel merges equal signals.
        wait_until(lambda: not pending_signals(publish.pid), "the first signal's delivery")
        publish.send_signal(signal.SIGINT)
        assert publish.wait() == -signal.SIGINT
        assert "not confirmed" not in publish.errors


def pending_signals(pid: int) -> int:
    """Return the mask of the signals that are pending for a process, from /proc."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("ShdPnd:")[1].split()[0], 16)


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_signals(number: signal.Signals, start: Start) -> None:
    """After a signal, `publish` sends the messages that it has read, closes the connection cleanly, and dies of that signal."""
    with serve("--input=exchange") as server, server.connect() as client:
        publish = start("publish", f"--url={address(server)}")
        publish.write(b"one\n")
        assert client.receive_text() == "one"
        publish.send_signal(number)
        assert (publish.wait(), publish.errors) == (-number, "")
        wait_for_viewers(server, 1)
        server.wait_for_log("close:'1005'.*DISCONNECT")


def test_signal_with_a_broker(start: Start, broker: Broker, exchange: str) -> None:
    """After a signal, `publish` still publishes the messages that it has read from the pipe."""
    with Proxy(("127.0.0.1", broker.port)) as proxy:
        words = (f"--exchange={exchange}", "--replay", f"--broker=amqp://guest:guest@127.0.0.1:{proxy.port}/")
        publish = start("publish", *words)
        publish.write(b"one\n")
        done = finish("subscribe", *words, "--since=0-0", "-n=1")
        assert (done.returncode, done.stdout) == (0, b"one\n"), done.stderr
        publish.send_signal(signal.SIGINT)
        # On a busy machine, a slow broker may cause log lines; no other output is permitted.
        slow = r"(wsbridge: the broker at \S+ takes (nothing: \d+ bytes wait for it|messages again)\n)*"
        assert (publish.wait(), re.sub(slow, "", publish.errors)) == (-signal.SIGINT, "")


def test_blocked_signal(start: Start) -> None:
    """SIGTERM ends `publish` even if its parent has blocked the signal."""
    with serve("--input=exchange") as server:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            publish = start("publish", f"--url={address(server)}")
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        wait_for_viewers(server, 1)
        publish.send_signal(signal.SIGTERM)
        assert publish.wait() == -signal.SIGTERM


def test_ignored_signal(start: Start) -> None:
    """A SIGINT that is ignored at the start stays ignored, as for a background job of a script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with serve("--input=exchange") as server, server.connect() as client:
            publish = start("publish", f"--url={address(server)}")
            wait_for_viewers(server, 2)
            publish.send_signal(signal.SIGINT)
            publish.write(b"still here\n")
            assert client.receive_text() == "still here"
            publish.close_stdin()
            assert publish.wait() == 0
    finally:
        signal.signal(signal.SIGINT, before)
