"""The end of a CGI script: by a complete response, a disconnected client, a shutdown, or an invalid response."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import open_stream, read_response, request_bytes
from tests.support.deadline import scaled
from tests.support.server import Server, is_alive, wait_for_exit, wait_until, write_to_fifo
from tests.support.site import Serve, write_script
from tests.support.tool import command, recorded
from wsbridge.http.cgi import CgiScripts
from wsbridge.rules.paths import PathType

HOST = [("Host", "h")]
PLAIN = 'printf "Content-Type: text/plain\\n\\n"'

Scripts = Callable[..., Server]


@pytest.fixture
def scripts(serve: Serve, tmp_path: Path) -> Scripts:
    """Serves scripts by name, one at a time; `$F` is a folder for their files."""

    def start(*flags: str, maxforks: int = 1, **texts: str) -> Server:
        (tmp_path / "cgi").mkdir()
        for name, text in texts.items():
            write_script(tmp_path / "cgi" / name, f"F={tmp_path}\n{text}")
        return serve(f"--cgidir={tmp_path / 'cgi'}", f"--maxforks={maxforks}", "--loglevel=debug", *flags)

    return start


def left(path: Path) -> str:
    """Return what a script has written to a file, as soon as it is a complete line."""
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), f"{path.name} to be written")
    return path.read_text().strip()


def assert_serves(server: Server) -> None:
    """Check that the server serves a script as soon as the slot of the previous script is free."""
    wait_until(lambda: server.get("/ok").status == 200, "the slot to be free")


OK = f"{PLAIN}; echo ok"

# The client disconnects

BUSY = {
    "body": (f"echo $$ > $F/pid; exec {' '.join(command('witness', '/dev/null', 'eof'))}", b"only a part"),
    "silent": ("echo $$ > $F/pid; exec sleep 1000", b""),
    "head": (f"{PLAIN}; echo $$ > $F/pid; exec sleep 1000", b""),
    "flood": (f"{PLAIN}; echo $$ > $F/pid; exec yes", b""),
    "deaf": ("echo $$ > $F/pid; exec sleep 1000", b"x" * 1_900_000),
}
"""The activity of a script when its client disconnects, and the part of its body of 2 MB that has been sent.

The last body is larger than the read-ahead: the end of its connection waits in the client's kernel, behind the body.
"""
WAYS = [(busy, way) for busy in BUSY for way in ("close", "reset")]


@pytest.mark.parametrize(("busy", "way"), WAYS)
def test_client_that_disconnects(scripts: Scripts, tmp_path: Path, busy: str, way: str) -> None:
    """When a client disconnects, the ladder ends its script in any activity, and its slot becomes free."""
    text, body = BUSY[busy]
    server = scripts(busy=text, ok=OK)
    stream = open_stream(port=server.port, receive_buffer=4096)
    length = [("Content-Length", "2000000")] if body else []
    stream.send(request_bytes("POST", "/busy", [*HOST, *length], body))
    pid = int(left(tmp_path / "pid"))
    assert server.get("/ok").status == 429
    if way == "close":
        stream.close()
    else:
        stream.reset()
    wait_for_exit(pid)
    assert_serves(server)
    assert server.errors == ""


def test_client_that_reads_nothing(scripts: Scripts, tmp_path: Path) -> None:
    """A client that accepts no data for --send-timeout is disconnected, and its script ends."""
    server = scripts("--send-timeout=0.3", flood=f"{PLAIN}; echo $$ > $F/pid; exec yes", ok=OK)
    with open_stream(port=server.port, receive_buffer=4096) as stream:
        stream.send(request_bytes("GET", "/flood", HOST))
        wait_for_exit(int(left(tmp_path / "pid")))
        server.wait_for_log("closing: the client accepted no data for 0.3 s")
        assert_serves(server)


def test_slow_client(scripts: Scripts, tmp_path: Path) -> None:
    """A client that reads slowly stays connected, however much data remains."""
    flood = f"{PLAIN}; echo $$ > $F/pid; exec yes"
    server = scripts(f"--send-timeout={scaled(1)}", maxforks=0, flood=flood, tick=f"sleep 0.1; {OK}")
    with open_stream(port=server.port, receive_buffer=4096) as stream:
        stream.send(request_bytes("GET", "/flood", HOST))
        for _ in range(20):
            stream.read_exactly(8192)
            assert server.get("/tick").body == b"ok\n"
        assert is_alive(int(left(tmp_path / "pid")))


# The server shuts down


def test_shutdown_uses_the_ladder(scripts: Scripts, tmp_path: Path) -> None:
    """At shutdown, a script goes down the whole ladder, and the server ends with it."""
    (tmp_path / "record").touch()
    tool = " ".join(command("witness", tmp_path / "record", "TERM"))
    server = scripts(stubborn=f"{PLAIN}; exec {tool}", ok=OK)
    with open_stream(port=server.port) as stream:
        stream.send(request_bytes("GET", "/stubborn", HOST))
        stream.read_until(b"\r\n\r\n")
        wait_until(lambda: recorded(tmp_path / "record"), "the script to see the end of its stdin")
        server.stop()
        assert [event for event, _ in recorded(tmp_path / "record")] == ["eof", "INT", "TERM"]
        assert not stream.read_to_end().endswith(b"0\r\n\r\n"), "a truncated response looks complete"
    assert not re.search("did not end|left behind", server.log)


def test_shutdown_lets_a_script_finish(scripts: Scripts, tmp_path: Path) -> None:
    """At shutdown, output that a script prints after the end of its stdin still reaches the client."""
    server = scripts("--closems=60000", polite=f"{PLAIN}; echo ready > $F/ready; cat; echo bye", ok=OK)
    with open_stream(port=server.port) as stream:
        stream.send(request_bytes("POST", "/polite", [*HOST, ("Content-Length", "10")], b"half,"))
        left(tmp_path / "ready")
        stream.read_until(b"half,")
        server.stop()
        assert stream.read_to_end().endswith(b"bye\n\r\n0\r\n\r\n")


# An invalid response


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "hello",
        "hello\\n\\nhi",
        "Content-Type: text/plain\\n<h1>hi</h1>\\n",
        "Status: 2000\\nContent-Type: text/plain\\n\\nhi",
        "Location: /%%00\\n\\n",
    ],
)
def test_invalid_response(scripts: Scripts, printed: str) -> None:
    """A script without a valid header section results in 500, and the connection stays usable."""
    server = scripts(bad=f"printf '{printed}'", ok=OK)
    with open_stream(port=server.port) as stream:
        stream.send(request_bytes("GET", "/bad", HOST))
        assert read_response(stream).status == 500
        assert_serves(server)
        stream.send(request_bytes("GET", "/nowhere", HOST))
        assert read_response(stream).status == 404


@pytest.mark.parametrize(
    "line",
    [
        "a warning",
        "<!--: spam",
        "X: a\\rSet-Cookie: b",
        "X: a\\033b",
        "X(y): a",
        "Content-Length: -1",
        "Content-Length: 1\\nContent-Length: 2",
        "  indented: yes",
    ],
)
def test_invalid_header_line(scripts: Scripts, line: str) -> None:
    """The server logs and skips an invalid header line, serves the page, and keeps the connection."""
    server = scripts(maxforks=0, odd=f"printf '{line}\\nContent-Type: text/plain\\nX-A: 1\\n\\nhi'")
    with open_stream(port=server.port) as stream:
        for _ in range(2):
            stream.send(request_bytes("GET", "/odd", HOST))
            response = read_response(stream)
            assert (response.status, response.body, response.value("X-A")) == (200, b"hi", "1")
            assert [response.value(name) for name in ("X", "Set-Cookie", "indented")] == [None] * 3
    server.wait_for_log(r"\| ERROR .*cgiscript:.*skipped a header line from the CGI script: ")


def test_many_invalid_header_lines(scripts: Scripts) -> None:
    """Of many invalid lines, the log has the first ten and the number of the others."""
    server = scripts(odd="seq 500; printf 'Content-Type: text/plain\\n\\nhi'")
    assert server.get("/odd").body == b"hi"
    server.wait_for_log("skipped 490 more header lines from the CGI script$")
    assert server.log.count("skipped a header line from the CGI script: ") == 10


def test_pythons_cgitb(scripts: Scripts, tmp_path: Path) -> None:
    """The server accepts the page that Python's cgitb prints for an exception before any header."""
    server = scripts()
    script = tmp_path / "cgi" / "trace"
    page = '<!--: spam\\nContent-Type: text/html\\n\\n<body bgcolor="#f0f0f8"> -->\\n<p>ZeroDivisionError'
    script.write_text(f"#!{sys.executable}\nprint('{page}')\n")
    script.chmod(0o755)
    response = server.get("/trace")
    assert (response.status, response.value("Content-Type")) == (200, "text/html")
    assert b"ZeroDivisionError" in response.body


def test_header_that_is_not_utf8(scripts: Scripts) -> None:
    """A byte of a header that is not UTF-8 becomes U+FFFD."""
    server = scripts(latin="printf 'Content-Type: text/plain\\nX: caf\\351\\n\\nhi'", ok=OK)
    response = server.get("/latin")
    assert (response.status, response.body) == (200, b"hi")
    assert (response.value("X") or "").encode("latin-1") == "caf�".encode()


def test_response_shorter_than_declared(scripts: Scripts) -> None:
    """A response shorter than its Content-Length ends the connection, so that no other bytes count as its body."""
    server = scripts(short="printf 'Content-Type: text/plain\\nContent-Length: 100\\n\\nabc'", ok=OK)
    with open_stream(port=server.port) as stream:
        stream.send(2 * request_bytes("GET", "/short", HOST))
        stream.read_until(b"\r\n\r\n")
        assert stream.read_to_end() == b"abc"
    assert_serves(server)


def test_response_longer_than_declared(scripts: Scripts) -> None:
    """A response longer than its Content-Length is truncated, and the connection stays usable."""
    long = "printf 'Content-Type: text/plain\\nContent-Length: 3\\n\\nabc'; head -c 600000 /dev/zero; echo done > $F/done"
    server = scripts(maxforks=2, long=long, ok=OK)
    with open_stream(port=server.port) as stream:
        for path, body in (("/long", b"abc"), ("/ok", b"ok\n")):
            stream.send(request_bytes("GET", path, HOST))
            assert read_response(stream).body == body


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_response_without_a_body(scripts: Scripts, tmp_path: Path, method: str, status: int) -> None:
    """If the response has no body, the server drops the output, and the script may end by itself."""
    text = f"printf 'Status: {status}\\nContent-Type: text/plain\\n\\n'; head -c 2000000 /dev/zero; sleep 0.3; echo done > $F/done"
    server = scripts(maxforks=2, long=text, ok=OK)
    with open_stream(port=server.port) as stream:
        stream.send(request_bytes(method, "/long", HOST))
        assert read_response(stream, method=method).status == status
        assert left(tmp_path / "done") == "done"
        stream.send(request_bytes("GET", "/ok", HOST))
        assert read_response(stream).body == b"ok\n"


@pytest.mark.parametrize("length", ["", "Content-Length: 3\\n"], ids=["unknown", "declared"])
def test_length_for_an_old_client(scripts: Scripts, length: str) -> None:
    """A response of unknown length to an HTTP/1.0 client, which has no chunks, closes the connection; any other response keeps it."""
    server = scripts(maxforks=0, old=f"printf 'Content-Type: text/plain\\n{length}\\nabc'")
    with open_stream(port=server.port) as stream:
        stream.send(request_bytes("GET", "/old", [*HOST, ("Connection", "keep-alive")], version="HTTP/1.0"))
        response = read_response(stream)
        assert (response.status, response.body) == (200, b"abc")
        if length:
            stream.send(request_bytes("GET", "/old", HOST))
            assert read_response(stream).body == b"abc"


# Events before the end of the response


@pytest.mark.parametrize("name", ["SEGV", "KILL", "TERM"])
def test_crash_during_the_response(scripts: Scripts, name: str) -> None:
    """If a signal ends a script, its response is visibly truncated."""
    server = scripts(crash=f"{PLAIN}; printf half; kill -{name} $$", ok=OK)
    with open_stream(port=server.port) as stream:
        stream.send(request_bytes("GET", "/crash", HOST))
        answer = stream.read_to_end()
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"half\r\n")
    server.wait_for_log(f"CGI response truncated: .*signal {name}")
    assert_serves(server)


def test_crash_before_the_response(scripts: Scripts) -> None:
    """If a signal ends a script before its response, the client receives 500."""
    server = scripts(crash="kill -KILL $$", ok=OK)
    assert server.get("/crash").status == 500
    assert_serves(server)


@pytest.mark.parametrize(("printed", "status"), [(f"{PLAIN}; echo hello", 200), (":", 500)], ids=["an answer", "nothing"])
def test_stdout_held_open(scripts: Scripts, tmp_path: Path, printed: str, status: int) -> None:
    """If another process keeps stdout of an exited script open, the response and that process end after --drainms."""
    server = scripts("--drainms=50", left=f"{printed}; sleep 1000 & echo $! > $F/pid", ok=OK)
    response = server.get("/left")
    assert response.status == status
    assert status == 500 or response.body == b"hello\n"
    wait_for_exit(int(left(tmp_path / "pid")))
    assert_serves(server)


def test_stdout_held_open_by_a_printing_process(scripts: Scripts, tmp_path: Path) -> None:
    """The same holds if that process prints continuously: its output is not part of the response."""
    server = scripts("--drainms=50", left=f"{PLAIN}; while :; do echo more; sleep 0.01; done & echo $! > $F/pid", ok=OK)
    assert server.get("/left").status == 200
    wait_for_exit(int(left(tmp_path / "pid")))
    assert_serves(server)


def test_no_drain_loses_nothing(scripts: Scripts) -> None:
    """The client receives all output before the script's exit, even without --drainms and even if it reads slowly."""
    server = scripts("--drainms=0", large=f"{PLAIN}; head -c 10000000 /dev/zero")
    with open_stream(port=server.port, receive_buffer=4096) as stream:
        stream.send(request_bytes("GET", "/large", HOST))
        assert read_response(stream).body.count(b"\0") == 10_000_000


# Local redirects


SHOW = f"{PLAIN}; env; echo BODY=$(cat)"


@pytest.mark.parametrize("target", ["/show/x?q=1", "/./none/../show//x?q=1"])
def test_local_redirect_is_a_get(scripts: Scripts, target: str) -> None:
    """The target of a local redirect is normalized, and served as GET without the body and without its headers."""
    server = scripts(maxforks=0, to=f"cat > $F/body; printf 'Location: {target}\\n\\n'", show=SHOW)
    headers = [("Content-Type", "text/plain"), ("Content-Language", "en"), ("X-Kept", "yes")]
    response = server.request("POST", "/to", headers=headers, body=b"hello")
    found = dict(line.split("=", 1) for line in response.body.decode().splitlines())
    assert (found["REQUEST_METHOD"], found["PATH_INFO"], found["QUERY_STRING"], found["BODY"]) == ("GET", "/x", "q=1", "")
    assert found["HTTP_X_KEPT"] == "yes"
    assert not [name for name in found if "CONTENT" in name]


@pytest.mark.parametrize("lives", ["exec sleep 1000", "trap '' INT TERM; while :; do sleep 0.01; done"], ids=["polite", "stubborn"])
def test_local_redirects_run_in_turn(scripts: Scripts, lives: str) -> None:
    """The script after a local redirect starts when the first script has ended and its slot is free."""
    first = f"echo $$ > $F/pid; printf 'Location: /second\\n\\n'; {lives}"
    server = scripts(first=first, second=f"{PLAIN}; kill -0 $(cat $F/pid) 2>&1 || echo gone")
    response = server.get("/first")
    assert (response.status, response.body.splitlines()[-1]) == (200, b"gone")


@pytest.mark.parametrize("target", ["/ok", "/page"])
def test_local_redirects_are_limited(scripts: Scripts, tmp_path: Path, target: str) -> None:
    """A request follows at most three local redirects, to scripts or files."""
    (tmp_path / "page").write_text("ok\n")
    targets = {"one": "/two", "two": "/three", "three": "/four", "four": target}
    texts = {name: f"printf 'Location: {path}\\n\\n'" for name, path in targets.items()}
    server = scripts(f"--staticdir={tmp_path}", **texts, ok=OK)
    response = server.get("/two")
    assert (response.status, response.body) == (200, b"ok\n")
    assert server.get("/one").status == 500


# The body


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_client_that_expects_100_before_its_body(scripts: Scripts, version: str) -> None:
    """A client that expects 100 Continue receives it before its body is read; HTTP/1.0 does not have it."""
    server = scripts(show=SHOW)
    with open_stream(port=server.port) as stream:
        stream.send(request_bytes("POST", "/show", [*HOST, ("Content-Length", "5"), ("Expect", "100-Continue")], version=version))
        if version == "HTTP/1.1":
            assert stream.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        stream.send(b"hello")
        response = read_response(stream)
    assert (response.status, response.body.splitlines()[-1]) == (200, b"BODY=hello")


def chunks(*parts: bytes, trailer: bytes = b"") -> bytes:
    """Return the parts of a body as chunks, with the end."""
    return b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n" + trailer + b"\r\n"


CHUNKED = ("Transfer-Encoding", "chunked")
COUNT = f'{PLAIN}; env | grep -E "^(HTTP_T|CONTENT_)"; cat | md5sum'


@pytest.mark.parametrize("sizes", [(), (1,), (65536,), (3, 70_000, 1), (100_000,) * 30], ids=["empty", "byte", "memory", "both", "file"])
def test_chunked_body(scripts: Scripts, sizes: tuple[int, ...]) -> None:
    """The server reads a whole chunked body before it starts the script with the length (RFC 3875, section 4.1.2)."""
    server = scripts(count=COUNT)
    parts = [os.urandom(size) for size in sizes]
    with open_stream(port=server.port) as stream:
        for _ in range(2):
            headers = [*HOST, CHUNKED, ("Trailer", "X-End"), ("Content-Encoding", "gzip")]
            stream.send(request_bytes("POST", "/count", headers, chunks(*parts, trailer=b"X-End: 1\r\n")))
            lines = read_response(stream).body.decode().split("\n")
            assert sorted(lines[:-2]) == [f"CONTENT_LENGTH={sum(sizes)}"]
            assert lines[-2].split()[0] == hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()


def test_chunked_body_that_is_too_long(scripts: Scripts) -> None:
    """A chunked body over --maxbody receives 413, starts no script and ends its connection; one of exactly that length is served."""
    server = scripts("--maxbody=200000", count=COUNT, ok=OK)
    for size, status in ((200_000, 200), (200_001, 413), (1_000, 200)):
        with open_stream(port=server.port) as stream:
            stream.send(request_bytes("POST", "/count", [*HOST, CHUNKED], chunks(b"x" * size)))
            assert read_response(stream).status == status, size
            if status == 413:
                stream.wait_for_end()
    assert server.get("/ok").status == 200
    server.stop()
    assert server.log.count("Process exit") == 3


def test_small_bound_of_a_chunked_body(scripts: Scripts) -> None:
    """--maxbody also limits bodies that fit into memory; 0 means no limit."""
    server = scripts("--maxbody=10", count=COUNT)
    with open_stream(port=server.port) as stream:
        stream.send(request_bytes("POST", "/count", [*HOST, CHUNKED], chunks(b"x" * 11)))
        assert read_response(stream).status == 413
    assert server.request("POST", "/count", body=b"x" * 100_000).status == 200, "a body of known length is not buffered"


@pytest.mark.parametrize("coding", ["gzip, chunked", "chunked, gzip", "identity"])
def test_other_transfer_codings(scripts: Scripts, coding: str) -> None:
    """An unknown transfer coding is refused (RFC 9112, section 6.1), and so is a coding that does not mark the end of the body."""
    server = scripts(count=COUNT, ok=OK)
    response = server.request("POST", "/count", headers=[("Transfer-Encoding", coding)], body=chunks(b"x"))
    assert response.status in (400, 501)
    assert server.get("/ok").status == 200


def test_chunks_of_an_old_client(scripts: Scripts) -> None:
    """HTTP/1.0 has no chunks: the server refuses such a request, and closes its connection (RFC 9112, section 6.1)."""
    server = scripts(count=COUNT)
    with open_stream(port=server.port) as stream:
        headers = [*HOST, CHUNKED, ("Connection", "keep-alive")]
        stream.send(request_bytes("POST", "/count", headers, chunks(b"x"), version="HTTP/1.0"))
        assert read_response(stream).status == 400
        stream.wait_for_end()


def test_invalid_chunks(scripts: Scripts) -> None:
    """Invalid chunks receive 400, and start no script."""
    server = scripts(count=f"touch $F/started; {COUNT}", ok=OK)
    with open_stream(port=server.port) as stream:
        stream.send(request_bytes("POST", "/count", [*HOST, CHUNKED], b"3\r\nabc\r\nnonsense\r\n"))
        assert read_response(stream).status == 400
    assert_serves(server)


# A body that does not arrive


WAITING = {
    "no body": ([("Content-Length", "10")], b""),
    "asked for": ([("Content-Length", "10"), ("Expect", "100-continue")], b""),
    "a part": ([("Content-Length", "10")], b"part\n"),
    "no chunk": ([CHUNKED], b""),
    "half a chunk": ([CHUNKED], b"5\r\nab"),
}


@pytest.mark.parametrize("waiting", WAITING)
def test_body_timeout(scripts: Scripts, tmp_path: Path, waiting: str) -> None:
    """If nothing of a body arrives for --body-timeout, the client receives 408; a running script ends."""
    server = scripts("--body-timeout=0.3", busy=f"echo $$ > $F/pid; {PLAIN} > /dev/null; cat > /dev/null; exec sleep 1000", ok=OK)
    headers, body = WAITING[waiting]
    with open_stream(port=server.port) as stream:
        stream.send(request_bytes("POST", "/busy", [*HOST, *headers], body))
        if waiting == "asked for":
            assert stream.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        response = read_response(stream)
        assert (response.status, response.value("Connection")) == (408, "close")
        stream.wait_for_end()
    if waiting == "a part":
        wait_for_exit(int(left(tmp_path / "pid")))
    else:
        assert not (tmp_path / "pid").exists()
    assert_serves(server)
    server.wait_for_log("no part of the request body arrived for 0.3 s")
    server.stop()
    assert "clients_timed_out=1" in server.log


@pytest.mark.parametrize("waiting", [name for name in WAITING if name != "a part"])
def test_waiting_body_holds_no_slot(scripts: Scripts, waiting: str) -> None:
    """A request holds no slot before the first bytes of its body, or before the end of a chunked body."""
    server = scripts("--body-timeout=0", count=COUNT, ok=OK)
    headers, body = WAITING[waiting]
    with open_stream(port=server.port) as first, open_stream(port=server.port) as second:
        for stream in (first, second):
            stream.send(request_bytes("POST", "/count", [*HOST, *headers], body))
        assert server.get("/ok").status == 200


def test_body_timeout_during_the_response(scripts: Scripts) -> None:
    """If the response has begun, a body timeout truncates it."""
    server = scripts("--body-timeout=0.3", busy=f"{PLAIN}; echo begun; cat; exec sleep 1000", ok=OK)
    with open_stream(port=server.port) as stream:
        stream.send(request_bytes("POST", "/busy", [*HOST, ("Content-Length", "10")], b"part\n"))
        stream.read_until(b"part\n")
        assert not stream.read_to_end().endswith(b"0\r\n\r\n")
    assert_serves(server)


def test_body_timeout_excludes_backpressure(scripts: Scripts, tmp_path: Path) -> None:
    """The body timeout does not include the time in which the script reads nothing."""
    os.mkfifo(tmp_path / "go")
    server = scripts("--body-timeout=0.5", maxforks=2, slow=f"read word < $F/go; {PLAIN}; wc -c", ok=OK)
    with open_stream(port=server.port) as stream:
        stream.send(request_bytes("POST", "/slow", [*HOST, ("Content-Length", "3000000")]))
        threading.Thread(target=lambda: stream.sock.sendall(b"x" * 3_000_000)).start()
        for _ in range(20):
            assert server.get("/ok").status == 200
        write_to_fifo(tmp_path / "go", "go")
        assert read_response(stream, timeout=30).body == b"3000000\n"


def test_client_that_pipelines_and_disconnects(scripts: Scripts, tmp_path: Path) -> None:
    """The server detects the disconnect of a client that has pipelined many requests."""
    server = scripts(busy="echo $$ > $F/pid; exec sleep 1000", ok=OK)
    with open_stream(port=server.port) as stream:
        stream.send(request_bytes("GET", "/busy", HOST) + request_bytes("GET", "/ok", HOST) * 2000)
        pid = int(left(tmp_path / "pid"))
    wait_for_exit(pid)
    assert_serves(server)


def test_script_that_ignores_its_body(scripts: Scripts) -> None:
    """A script may answer without reading its body."""
    server = scripts(ok=OK)
    response = server.request("POST", "/ok", body=b"x" * 3_000_000)
    assert (response.status, response.body) == (200, b"ok\n")


# The file


def test_link_that_changes_after_the_walk(tmp_path: Path) -> None:
    """The check that a script is inside the directory uses its real path, even if a link changes during the lookup."""
    inside, outside = tmp_path / "cgi", write_script(tmp_path / "outside", OK)
    inside.mkdir()
    link = inside / "link"
    link.symlink_to(write_script(inside / "script", OK))
    parts: Any = dict.fromkeys(("limiter", "registry", "launcher", "metrics", "timeout", "drain_seconds", "body_seconds"))
    cgi = CgiScripts(str(inside), dotfiles=False, software="", passed={}, max_body_bytes=0, **parts)
    found = cgi.find("/link/info")
    assert found is not None
    assert (found.file, found.script.name, found.script.info) == (str(inside / "script"), "/link", "/info")

    def look(walked: str) -> PathType:
        link.unlink()
        link.symlink_to(outside)
        return PathType.FILE

    cgi._lookup = look
    assert cgi.find("/link") is None
