"""Cases from runs of websocketd: packets, limits, timers, descriptors and logs (cases 74-90)."""

from __future__ import annotations

import os
import re
import resource
import socket
import time
from pathlib import Path

import pytest

from tests.parity.conftest import Starter
from tests.support.client import (
    DeadlinePassed,
    Opcode,
    close_payload,
    encode_frame,
    open_stream,
    read_response,
    request_bytes,
)
from tests.support.server import Server, is_alive, wait_for_exit, write_to_fifo
from tests.support.tool import command, recorded

KIB = 1 << 10
MIB = 1 << 20


@pytest.mark.case(74)
def test_early_frames_are_processed(wsbridge: Starter) -> None:
    """The server processes frames in the handshake's segment, including a partial frame."""
    early = encode_frame(b"first") + encode_frame(b"second")
    server = wsbridge("cat")
    with server.connect(early=early) as client:
        assert [client.receive_text(), client.receive_text()] == ["first", "second"]
    with server.connect(early=early[:-3]) as client:
        assert client.receive_text() == "first"
        client.send_raw(early[-3:])
        assert client.receive_text() == "second"


UPGRADE = [
    ("Host", "h"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
]


@pytest.mark.case(74)
def test_upgrade_with_a_body(wsbridge: Starter) -> None:
    """The server refuses an upgrade request with a body."""
    with open_stream(port=wsbridge("cat").port) as stream:
        stream.send(request_bytes("GET", "/", [*UPGRADE, ("Content-Length", "3")], b"abc"))
        assert read_response(stream).status == 400


@pytest.mark.case(74)
def test_upgrade_of_http_1_0(wsbridge: Starter) -> None:
    """An upgrade request needs HTTP/1.1."""
    with open_stream(port=wsbridge("cat").port) as stream:
        stream.send(request_bytes("GET", "/", UPGRADE, version="HTTP/1.0"))
        assert read_response(stream).status == 400


@pytest.mark.case(74)
@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT"])
def test_upgrade_by_another_method(bridge: Starter, method: str) -> None:
    """An upgrade request needs the method GET."""
    with open_stream(port=bridge("cat").port) as stream:
        stream.send(request_bytes(method, "/", UPGRADE))
        assert read_response(stream, method=method).status == 405


@pytest.mark.case(75)
def test_connection_in_two_lines(wsbridge: Starter) -> None:
    """`Connection: keep-alive` and `Connection: Upgrade` in two header lines count as an upgrade."""
    with wsbridge("cat").connect(headers=[("Connection", "keep-alive"), ("Connection", "Upgrade")]) as client:
        assert client.is_open()


@pytest.mark.case(76)
def test_large_header_reaches_the_program(bridge: Starter) -> None:
    """A cookie of 100 KB reaches the program."""
    server = bridge("sh", "-c", 'printf %s "$HTTP_COOKIE" | wc -c')
    with server.connect(headers=[("Cookie", "c" * 100_000)]) as client:
        assert client.receive_text() == "100000"


@pytest.mark.case(76)
def test_header_block_has_a_limit(bridge: Starter) -> None:
    """The server answers a header block over 1 MiB with 431."""
    headers = [(f"X-{number}", "x" * 100 * KIB) for number in range(10)] + [("X-Last", "x" * 32 * KIB)]
    assert bridge("cat").refusal(headers=headers).status == 431


@pytest.mark.case(76)
def test_variable_has_a_limit(wsbridge: Starter) -> None:
    """The server answers a header over 128 KiB with 431 before the upgrade, because the kernel cannot pass it to a program."""
    server = wsbridge("cat")
    assert server.refusal(headers=[("Cookie", "c" * 200 * KIB)]).status == 431
    assert "CONNECT" not in server.log


@pytest.mark.case(77)
def test_slow_program_keeps_its_client(wsbridge: Starter, tmp_path: Path) -> None:
    """The server keeps a client that answers pings while its program reads slowly: the deadline pauses meanwhile."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    server = wsbridge("--binary", "--pingms=500", "sh", "-c", 'read word <"$0"; exec cat', fifo)
    data = b"x" * 64 * KIB
    with server.connect(answers_pings=False) as client, client.sending(encode_frame(data, Opcode.BINARY) * 64) as sender:
        # Pongs would queue behind unread data, as a browser's do, so two deadlines pass without a pong.
        with pytest.raises(DeadlinePassed):
            client.receive(timeout=2.2)
        write_to_fifo(fifo, "go on")
        assert client.receive_bytes(64 * len(data)) == data * 64
        sender.join()
        client.answers_pings = True
        client.send_binary(b"still here")
        assert client.receive_bytes(10) == b"still here"


@pytest.mark.case(78)
def test_options_of_accepted_sockets(bridge: Starter) -> None:
    """Accepted sockets have TCP_NODELAY, and keepalive after 15 s without traffic, every 15 s, 9 times."""
    flags = {"websocketd": [], "wsbridge": ["--pingms=0"]}[bridge.name]
    server = bridge(*flags, "cat")
    with server.connect() as client:
        assert client.is_open()
        with server.accepted(client) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            keepalive = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in keepalive] == [15, 15, 9]


@pytest.mark.case(79)
def test_limit_of_descriptors(wsbridge: Starter) -> None:
    """The server raises its soft descriptor limit to the hard limit; a program gets the original limit."""
    server = wsbridge("sh", "-c", "ulimit -Sn; ulimit -Hn", prefix=["sh", "-c", 'ulimit -Sn 300; exec "$@"', "sh"])
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    assert soft == hard
    with server.connect() as client:
        assert client.receive_lines() == ["300", str(hard)]


@pytest.mark.case(80)
def test_close_is_echoed_at_once(bridge: Starter, tmp_path: Path) -> None:
    """The server echoes a close frame at once, whatever the program does. It closes TCP when the program has exited."""
    with bridge("--closems=200", *command("witness", tmp_path / "record", "TERM")).connect() as client:
        pid = int(client.receive_text())
        client.send_close(1000)
        assert client.receive_close().code == 1000
        assert is_alive(pid), "the echo came too late to tell"
        client.wait_for_end()
        assert not is_alive(pid)


@pytest.mark.case(80)
def test_ordinary_end_is_no_error(wsbridge: Starter) -> None:
    """A close, a drop, a reset and the program's own exit cause no ERROR line in the log."""
    server = wsbridge("sh", "-c", "echo hello; read line && [ $line = more ] && exec cat")
    endings = [lambda client: client.send_close(), lambda client: client.drop(), lambda client: client.reset()]
    for number, end in enumerate(endings, 1):
        with server.connect() as client:
            assert client.receive_text() == "hello"
            end(client)
            server.wait_for_log(rf"(?s)(\| DISCONNECT.*){{{number}}}")
    assert re.findall(".*(?:ERROR|FATAL).*", server.log) == []
    assert server.errors == ""


@pytest.mark.case(81)
def test_messages_before_a_close_reach_stdin(bridge: Starter, tmp_path: Path) -> None:
    """All messages before a close frame reach stdin before its EOF."""
    path = tmp_path / "received"
    with bridge("--closems=5000", "sh", "-c", 'echo $$; exec tee "$0"', path).connect() as client:
        pid = int(client.receive_text())
        frames = [encode_frame(b"message %d" % number) for number in range(1000)]
        client.send_raw(b"".join(frames) + encode_frame(close_payload(1000), Opcode.CLOSE))
        client.receive_close()
        wait_for_exit(pid)
    assert path.read_text() == "".join(f"message {number}\n" for number in range(1000))


@pytest.mark.case(82)
def test_empty_origin_entry_matches_nothing(wsbridge: Starter) -> None:
    """An empty entry of --origin matches no origin; the server drops spaces around entries."""
    server = wsbridge("--origin= a.com ,, b.com", "cat")
    for origin in (None, "null", "file://", "http://c.com"):
        assert server.refusal(origin=origin).status == 403
    for origin in ("http://a.com", "http://b.com"):
        with server.connect(origin=origin) as client:
            assert client.is_open()


@pytest.mark.case(83)
def test_path_info_is_one_trimmed_line(bridge: Starter) -> None:
    """The server trims PATH_INFO, and replaces its newlines with spaces."""
    server = bridge("sh", "-c", 'printf "%s\n" "[$PATH_INFO]"')
    for path, path_info in (("/a%20", "/a"), ("/a%0Ab", "/a b"), ("/a%0D%0A", "/a")):
        with server.connect(path) as client:
            assert client.receive_lines() == [f"[{path_info}]"]


@pytest.mark.case(83)
def test_nul_in_the_path_is_refused(wsbridge: Starter) -> None:
    """The server answers %00 in the path with 400 before the upgrade."""
    server = wsbridge("cat")
    assert server.refusal("/a%00b").status == 400
    assert "CONNECT" not in server.log


@pytest.mark.case(84)
def test_own_name_is_the_resolved_path(bridge: Starter, tmp_path: Path) -> None:
    """A program's $0 is the path where the server found the command. A command that contains a slash is unchanged."""
    (tmp_path / "probe").symlink_to("/bin/cat")
    path = f"{tmp_path}:{os.environ['PATH']}"
    for word, name in (("probe", str(tmp_path / "probe")), ("./probe", "./probe")):
        with bridge("--binary", word, "/proc/self/cmdline", cwd=tmp_path, env={"PATH": path}).connect() as client:
            messages, _ = client.receive_until_close()
            assert b"".join(message.data for message in messages).split(b"\0")[0].decode() == name


@pytest.mark.case(84)
def test_program_starts_clean(bridge: Starter) -> None:
    """A program starts with the descriptors 0, 1 and 2, all pipes, and without blocked or ignored signals, including SIGPIPE."""
    with bridge(*command("descriptors")).connect() as client:
        assert [line.partition(":")[0] for line in client.receive_lines()] == ["0 pipe", "1 pipe", "2 pipe"]
    with bridge("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status").connect() as client:
        masks = {name: int(mask, 16) for name, mask in (line.split(":\t") for line in client.receive_lines())}
    # 32 and 33 belong to glibc, whose posix_spawn() leaves them ignored.
    standard_signals = (1 << 31) - 1
    assert (masks["SigBlk"], masks["SigIgn"] & standard_signals) == (0, 0)


@pytest.mark.case(85)
def test_log_lines_cannot_be_forged(wsbridge: Starter) -> None:
    """The log escapes control characters in stderr lines, and quotes in the values of its fields."""
    server = wsbridge("sh", "-c", r"printf 'a\033[31mred\rb\tc\n' >&2")
    with server.connect("/it's?a='") as client:
        client.receive_close()
    server.wait_for_log(r"\| stderr     \| .*31mred")
    server.wait_for_log(r"\| DISCONNECT")
    assert not re.search(r"[^\n\x20-\x7e]", server.log)
    assert "it's" not in server.log


VERSION_12 = ("Sec-WebSocket-Version", "12")
NO_KEY = ("Sec-WebSocket-Key", None)
BAD_ORIGIN = ("Origin", "http://b.com")
GOOD_ORIGIN = ("Origin", "http://a.com")


@pytest.mark.case(86)
def test_order_of_refusals(bridge: Starter, tmp_path: Path) -> None:
    """The server checks an upgrade in the order script (404), method (405), version (400), origin (403), key (400). It starts no
    program."""
    server = noting(bridge, tmp_path)
    requests = (
        (404, "POST", "/missing", [VERSION_12, BAD_ORIGIN, NO_KEY]),
        (405, "POST", "/note", [VERSION_12, BAD_ORIGIN, NO_KEY]),
        (400, "GET", "/note", [VERSION_12, BAD_ORIGIN]),
        (403, "GET", "/note", [BAD_ORIGIN, NO_KEY]),
        (400, "GET", "/note", [GOOD_ORIGIN, NO_KEY]),
    )
    for status, method, path, headers in requests:
        assert server.refusal(path, method=method, headers=headers).status == status, (method, path, headers)
    assert not (tmp_path / "started").exists()


@pytest.mark.case(86)
def test_maxforks_is_refused_first(bridge: Starter, tmp_path: Path) -> None:
    """The answer 429 precedes all other refusals, and the server starts no program."""
    server = noting(bridge, tmp_path, "--maxforks=1")
    with server.connect("/note", headers=[GOOD_ORIGIN]) as client:
        assert client.receive_text() == "started"
        for method, path in (("POST", "/missing"), ("POST", "/note"), ("GET", "/note")):
            assert server.refusal(path, method=method, headers=[VERSION_12, BAD_ORIGIN, NO_KEY]).status == 429
    assert (tmp_path / "started").read_text() == "x"


def noting(bridge: Starter, directory: Path, *flags: str) -> Server:
    """A server with one script, which records each start."""
    folder = directory / "scripts"
    folder.mkdir()
    script = folder / "note"
    script.write_text(f"#!/bin/sh\nprintf x >>'{directory}/started'\necho started\nexec cat\n")
    script.chmod(0o755)
    return bridge(*flags, f"--dir={folder}", "--origin=a.com")


@pytest.mark.case(87)
def test_incomplete_request_times_out(wsbridge: Starter, tmp_path: Path) -> None:
    """The server disconnects a client that sends no complete request header for 10 s. It keeps an idle keep-alive connection."""
    (tmp_path / "a.txt").write_text("a")
    server = wsbridge(f"--staticdir={tmp_path}")
    whole = request_bytes("GET", "/a.txt", [("Host", "localhost")])
    start = time.monotonic()
    with open_stream(port=server.port) as idle, open_stream(port=server.port) as half, open_stream(port=server.port) as unsent:
        idle.send(whole)
        assert read_response(idle).body == b"a"
        half.send(whole[:-10])
        half.wait_for_end(timeout=20)
        unsent.wait_for_end(timeout=20)
        assert time.monotonic() - start >= 9.9
        idle.send(whole)
        assert read_response(idle).body == b"a"


@pytest.mark.case(88)
@pytest.mark.parametrize("one", ["0x1", "0X0_1", "01", "0b1"])
def test_integers_of_go(bridge: Starter, one: str) -> None:
    """The server accepts integers in the syntax of Go's source."""
    server = bridge(f"--maxforks={one}", "cat")
    with server.connect() as client:
        assert client.is_open()
        assert server.refusal().status == 429


@pytest.mark.case(88)
@pytest.mark.parametrize("value", ["1", "T", "True"])
def test_booleans_of_go(bridge: Starter, value: str) -> None:
    """The server accepts booleans in Go's syntax, and underscores between the digits of an integer."""
    with bridge(f"--binary={value}", "--maxforks=1_000", "--closems=0x0", "echo", "x").connect() as client:
        assert client.receive_bytes(2) == b"x\n"


@pytest.mark.case(88)
@pytest.mark.parametrize(
    "flag",
    [
        "--binary=yes",
        "--binary=",
        "--port=08080",
        "--port=80.0",
        "--port=",
        "--maxforks=1__0",
        "--closems=-1",
        "--port=99999999999999999999",
    ],
)
def test_other_spellings_are_wrong(bridge: Starter, flag: str) -> None:
    """For a value that is no boolean or integer in Go's syntax, the server exits with status 2."""
    assert bridge.run(flag, "cat").returncode == 2


@pytest.mark.case(89)
def test_loss_of_the_logs_reader(wsbridge: Starter) -> None:
    """The server survives the loss of its log's reader."""
    server = wsbridge("cat")
    server.lose_log()
    with server.connect() as first:
        assert first.is_open()
        server.wait_until_log_is_lost()
        for _ in range(3):
            with server.connect() as client:
                client.send_text("x")
                assert client.receive_text() == "x"
        first.send_text("still here")
        assert first.receive_text() == "still here"


WRONG_FRAMES = {
    "no mask": encode_frame(b"x", masked=False),
    "RSV1": encode_frame(b"x", rsv=4),
    "RSV3": encode_frame(b"x", rsv=1),
    "opcode 3": encode_frame(b"x", 3),
    "opcode 11": encode_frame(b"x", 11),
    "long ping": encode_frame(b"x" * 126, Opcode.PING),
    "fragmented ping": encode_frame(b"x", Opcode.PING, fin=False),
    "message inside a message": encode_frame(b"x", fin=False) + encode_frame(b"y"),
    "nothing to continue": encode_frame(b"x", Opcode.CONTINUATION),
}


@pytest.mark.case(90)
def test_protocol_error_ends_the_session(bridge: Starter, tmp_path: Path) -> None:
    """The server answers a frame that RFC 6455 forbids with close code 1002; the program reads EOF on stdin."""
    record = tmp_path / "record"
    server = bridge("--closems=5000", *command("witness", record, "eof"))
    for name, frames in WRONG_FRAMES.items():
        with server.connect() as client:
            pid = int(client.receive_text())
            client.send_raw(frames)
            assert client.receive_close().code == 1002, name
            wait_for_exit(pid)
    assert [event for event, _ in recorded(record)] == ["eof"] * len(WRONG_FRAMES)


@pytest.mark.case(90)
def test_ladder_after_a_protocol_error(bridge: Starter, tmp_path: Path) -> None:
    """After a protocol error, the ladder of signals ends a program that ignores EOF on stdin."""
    record = tmp_path / "record"
    with bridge(*command("witness", record, "TERM")).connect() as client:
        pid = int(client.receive_text())
        client.send_raw(WRONG_FRAMES["no mask"])
        wait_for_exit(pid)
    assert [event for event, _ in recorded(record)] == ["eof", "INT", "TERM"]


@pytest.mark.case(90)
def test_ladder_after_a_long_message(wsbridge: Starter, tmp_path: Path) -> None:
    """For a message over --maxframesize, the server closes with 1009, and for invalid UTF-8 with 1007. The ladder ends the program."""
    record = tmp_path / "record"
    server = wsbridge("--maxframesize=10", *command("witness", record, "TERM"))
    with server.connect() as client:
        pid = int(client.receive_text())
        client.send_text("0123456789+")
        assert client.receive_close().code == 1009
        wait_for_exit(pid)
    assert [event for event, _ in recorded(record)] == ["eof", "INT", "TERM"]
    with server.connect() as client:
        client.receive_text()
        client.send_frame(b"\xff", Opcode.TEXT)
        assert client.receive_close().code == 1007
