"""The server as a whole: its start, its announcement, --once and its shutdown."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.client import Client, Close, Opcode, Refused, connect, encode_frame, open_stream, read_response, request_bytes
from tests.support.proc import TRANSPORTS, descriptors, no_callback_fails, nothing_left, same_limits, until, zombies
from tests.support.server import LISTEN, Server, is_alive, mortal, run, wait_for_exit, wait_until
from tests.support.tool import command, recorded
from wsbridge.metrics import Metrics
from wsbridge.server.server import Server as Process
from wsbridge.settings import BridgeSettings, ListenSettings, ProcessSettings, ProgramSettings, ServerSettings

UPGRADE = [
    ("Host", "h"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]
LONG_LADDER = "--closems=60000"
"""A ladder that is longer than a test lasts."""


@pytest.fixture(params=TRANSPORTS)
def transports(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment for aiofastnet's transports in one run of the test, and for the loop's own in the other."""
    if request.param == "aiofastnet":
        pytest.importorskip("aiofastnet")
    return TRANSPORTS[request.param]


# The start


def test_announcement(tmp_path: Path) -> None:
    """The server announces its real addresses, and each accepts connections."""
    listen = ("--address=127.0.0.1", "--address=localhost", "--port=0", f"--unixsocket={tmp_path}/s", "--redirport=0")
    with Server("--devconsole", "cat", listen=listen) as server:
        ports = re.findall(r"Starting WebSocket server   : ws://(?:127\.0\.0\.1|localhost):(\d+)/", server.log)
        assert len(ports) == 2
        for port in ports:
            with connect(port=int(port)) as client:
                client.send_text("hello")
                assert client.receive_text() == "hello"
        assert re.search(rf"Starting WebSocket server   : unix socket at {tmp_path}/s$", server.log, re.MULTILINE)
        with server.connect(unix=f"{tmp_path}/s") as client:
            assert client.is_open()
        assert re.search(r"Developer console           : http://127\.0\.0\.1:\d+/$", server.log, re.MULTILINE)


def test_one_failed_listener(tmp_path: Path) -> None:
    """If one of several listeners fails, the server keeps none open, reports the address and the reason, and exits with 3."""
    ended = run(*(word.replace("{port}", "0") for word in LISTEN), f"--unixsocket={tmp_path}/none/s", "cat")
    assert ended.returncode == 3
    assert f"{tmp_path}/none/s" in ended.stdout + ended.stderr
    assert "Starting WebSocket server" not in ended.stdout
    ended = run("--address=127.0.0.1", "--address=192.0.2.1", "--port=0", "cat")
    assert ended.returncode == 3
    assert "192.0.2.1" in ended.stdout + ended.stderr


def test_unusable_certificate(tmp_path: Path) -> None:
    """The server reports an unusable certificate by its name, and exits with 3."""
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate\n")
    ended = run("--port=0", "--ssl", f"--sslcert={wrong}", f"--sslkey={wrong}", "cat")
    assert ended.returncode == 3
    assert str(wrong) in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_inherited_descriptors(tmp_path: Path) -> None:
    """A program gets only the descriptors 0, 1 and 2, also if the server was started with others."""
    prefix = ("sh", "-c", 'exec 7>"$0" 9</dev/null; exec "$@"', str(tmp_path / "file"))
    with Server(*command("descriptors"), prefix=prefix) as server, server.connect() as client:
        assert [line.split()[0] for line in client.receive_lines()] == ["0", "1", "2"]


def test_pty() -> None:
    """With --pty, a filter that block-buffers its output on a pipe answers each line at once, and its exit closes the session."""
    with Server("--pty", "grep", "o") as server, server.connect() as client:
        for number in range(3):
            client.send_text(f"no {number}")
            assert client.receive_text() == f"no {number}"
    with Server("--pty", "sh", "-c", "[ -t 1 ] && seq 10000; exit 3") as server, server.connect() as client:
        messages, close = client.receive_until_close()
        assert [int(message.data) for message in messages] == list(range(1, 10_001))
        assert close == Close(1011, "exit 3")


# --once


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143), ("kill -KILL $$", 137)])
def test_once_exits_with_the_programs_status(script: str, status: int) -> None:
    """--once serves one session and exits with the status of its program, or 128 + N after signal N."""
    with Server("--once", "sh", "-c", f"echo last; {script}") as server:
        with server.connect() as client:
            messages, close = client.receive_until_close()
            assert [message.data for message in messages] == [b"last"]
            assert close.code == (1000 if status == 0 else 1011)
        assert server.wait() == status


def test_once_when_the_client_disconnects() -> None:
    """With --once, the server also exits when the client disconnects."""
    with Server("--once", "cat") as server:
        with server.connect() as client:
            client.send_text("hello")
            assert client.receive_text() == "hello"
        assert server.wait() == 0


def test_once_serves_one_session() -> None:
    """With --once, no other session begins during the session; earlier refused requests do not count."""
    with Server("--once", "--origin=good.com", "cat") as server:
        assert server.refusal(origin="http://bad.com").status == 403
        assert server.get("/").status == 404
        with server.connect(origin="http://good.com") as client:
            client.send_text("hello")
            assert client.receive_text() == "hello"
            with pytest.raises((ConnectionError, Refused)):
                server.connect(origin="http://good.com")
            client.send_text("still here")
            assert client.receive_text() == "still here"
        assert server.wait() == 0


@pytest.mark.parametrize(("flags", "status"), [((), 429), (("--busy=close",), 1013)])
def test_once_with_two_connections(flags: tuple[str, ...], status: int) -> None:
    """Of two open connections, one gets the session, and the other gets an error."""
    with Server("--once", *flags, "sh", "-c", "read code; exit $code") as server, open_stream(port=server.port) as other:
        with server.connect() as client:
            other.send(request_bytes("GET", "/", UPGRADE))
            response = read_response(other)
            if status == 429:
                assert response.status == 429
            else:
                assert Client(other, response).receive_close().code == status
            client.send_text("5")
            assert client.receive_close().code == 1011
        assert server.wait() == 5


def test_once_with_a_program_that_cannot_start(tmp_path: Path) -> None:
    """With --once, the server exits with an error if its program cannot start."""
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    with Server("--once", str(broken)) as server:
        with server.connect() as client:
            assert client.receive_close().code == 1011
        assert server.wait() != 0


# Shutdown


def test_shutdown_with_many_sessions(tmp_path: Path) -> None:
    """At the shutdown, the server accepts no new client, closes every session with 1001 and ends it by the ladder. The exit status is 0."""
    words = ("sh", "-c", 'exec "$@" "$QUERY_STRING" TERM', "sh", *command("witness"))
    with Server("--closems=100", *words) as server, ExitStack() as stack:
        clients = [stack.enter_context(server.connect(f"/?{tmp_path / str(index)}")) for index in range(5)]
        pids = [int(client.receive_text()) for client in clients]
        with mortal(*pids):
            server.send_signal(signal.SIGTERM)
            assert [client.receive_close().code for client in clients] == [1001] * 5
            with pytest.raises(ConnectionRefusedError):
                server.connect()
            assert server.wait() == 0
            assert [pid for pid in pids if is_alive(pid)] == []
    assert {tuple(event for event, _ in recorded(tmp_path / str(index))) for index in range(5)} == {("eof", "INT", "TERM")}


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_second_signal_kills(tmp_path: Path, second: signal.Signals) -> None:
    """A second signal kills all remaining programs, whatever the pauses of the ladder."""
    record = tmp_path / "record"
    with Server(LONG_LADDER, *command("witness", record)) as server, server.connect() as client:
        pid = int(client.receive_text())
        with mortal(pid):
            server.send_signal(signal.SIGTERM)
            assert client.receive_close().code == 1001
            wait_until(lambda: record.exists() and recorded(record), "the end of stdin")
            server.send_signal(second)
            assert server.wait() >= 0
            assert not is_alive(pid)
    assert [event for event, _ in recorded(record)] == ["eof"]


def test_shutdown_with_a_client_that_sends(transports: dict[str, str]) -> None:
    """A client that sends permanently also receives 1001."""
    with Server("cat", env=transports) as server, server.connect() as client, client.sending(encode_frame(b"x" * 1000) * 100_000):
        client.receive_text()
        server.send_signal(signal.SIGTERM)
        assert client.receive_close().code == 1001
        client.stream.sock.shutdown(socket.SHUT_RDWR)
        assert server.wait() == 0


def test_shutdown_with_a_slow_client(transports: dict[str, str]) -> None:
    """A client that has not read for a while receives its pending messages, then 1001."""
    # --closems also lengthens the time for the client, which may be slow on a busy machine.
    with Server("--closems=3000", *command("flood"), env=transports) as server, server.connect(receive_buffer=1 << 16) as client:
        server.wait_for_log("blocked at")
        server.send_signal(signal.SIGTERM)
        messages, close = client.receive_until_close()
        assert close.code == 1001
        assert [int(message.data) for message in messages] == list(range(len(messages)))
        assert server.wait() == 0


SCRIPTS = {
    "before the head": "sleep 1000",
    "in the middle": "printf 'Content-Type: a/b\\n\\nbegun'; sleep 1000",
    "stubborn": "trap '' TERM INT; sleep 1000; sleep 1000",
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_shutdown_with_a_script(tmp_path: Path, script: str) -> None:
    """A running CGI script does not delay the shutdown: it is ended too, and the exit status is 0."""
    cgi = tmp_path / "cgi"
    cgi.mkdir()
    path = cgi / "script"
    path.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid\n{script}\n")
    path.chmod(0o755)
    with Server(f"--cgidir={cgi}") as server, open_stream(port=server.port) as stream:
        stream.send(request_bytes("GET", "/script", [("Host", "h")]))
        wait_until((tmp_path / "pid").exists, "the script's note")
        pid = int((tmp_path / "pid").read_text())
        with mortal(pid):
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == 0
            wait_for_exit(pid)


def test_shutdown_without_sessions(tmp_path: Path) -> None:
    """A server with only idle connections exits at once, and removes its Unix socket."""
    path = f"{tmp_path}/s"
    with Server("cat", listen=(f"--unixsocket={path}",), unix=path) as server, open_stream(unix=path) as stream:
        stream.send(request_bytes("GET", "/", [("Host", "h")]))
        stream.read_until(b"\r\n\r\n")
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert not Path(path).exists()


def test_metrics_at_the_exit(tmp_path: Path) -> None:
    """The server counts served sessions, refusals and losses, and logs the counts at its exit."""
    with Server("--origin=good.com", "--maxline=10", "sh", "-c", "read line; echo $line") as server:
        for words in ("short", "far too long a line"):
            with server.connect(origin="http://good.com") as client:
                client.send_text(words)
                client.receive_close()
        assert server.refusal(origin="http://bad.com").status == 403
        with server.connect(origin="http://good.com") as client:
            client.send_frame(b"x", Opcode.TEXT, masked=False)
            assert client.receive_close().code == 1002
        wait_until(lambda: server.log.count("| DISCONNECT") == 3, "the ends of the sessions")
        server.stop()
    (line,) = [line for line in server.log.splitlines() if "Server stopped." in line]
    expected = {"sessions=3", "refused_403=1", "messages_in=2", "messages_out=1", "protocol_errors=1", "messages_too_long=1"}
    assert expected <= set(line.split())


# The log


def test_json_log() -> None:
    """With --log-format json, every line is an object: time, level, category, the fields of its connection, and the event."""
    with Server("--log-format=json", "--loglevel=debug", "sh", "-c", "echo 'a \"complaint\"' >&2; cat", listen=LISTEN) as server:
        with server.connect("/path?q", headers=[("Host", "h.com")]) as client:
            client.send_close(1000)
            client.receive_close()
        server.wait_for_log('"DISCONNECT"')
    lines = [json.loads(line) for line in server.log.splitlines()]
    assert all({"time", "level", "category", "message"} <= set(line) for line in lines)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["time"]) for line in lines)
    by_message = {line["message"]: line for line in lines}
    connect_line, complaint, disconnect = by_message["CONNECT"], by_message['a "complaint"'], by_message["DISCONNECT"]
    assert (connect_line["level"], connect_line["category"], connect_line["url"]) == ("access", "session", "http://h.com/path?q")
    assert (complaint["level"], complaint["category"]) == ("error", "stderr")
    assert connect_line["id"] == complaint["id"] == disconnect["id"]
    assert disconnect["pid"].isdigit()


def test_text_log() -> None:
    """Each log line has a time, a level, a category, fields and an event; each line of a connection has its id."""
    with Server("--loglevel=debug", "sh", "-c", "echo complaint >&2; exit 3") as server:
        with server.connect(headers=[("Host", "h.com"), ("Origin", "http://o.com")]) as client:
            client.receive_close()
        server.wait_for_log(r"\| DISCONNECT$")
    form = r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4} \| (DEBUG |TRACE |ACCESS|INFO  |ERROR |FATAL ) \| [a-z]+ +\| .*\| .*"
    lines = server.log.splitlines()
    assert [line for line in lines if not re.fullmatch(form, line)] == []
    (connected,) = [line for line in lines if line.endswith("| CONNECT")]
    found = re.search(r"\| url:'http://h\.com/' id:'(\d+)' remote:'127\.0\.0\.1' command:'\S+/sh' origin:'http://o\.com' \|", connected)
    assert found
    ours = [line for line in lines if f"id:'{found[1]}'" in line]
    assert [line.rpartition(" | ")[2] for line in ours if "| stderr " in line] == ["complaint"]
    assert any("exit 3" in line for line in ours)


@pytest.mark.parametrize(
    ("level", "shown"),
    [("debug", {"INFO", "ACCESS", "ERROR", "DEBUG"}), ("access", {"INFO", "ACCESS", "ERROR"}), ("info", {"INFO", "ERROR"})],
)
def test_levels(level: str, shown: set[str]) -> None:
    """--loglevel selects lines of this level or worse."""
    with Server(f"--loglevel={level}", "sh", "-c", "echo complaint >&2; exit 3") as server:
        with server.connect() as client:
            client.receive_close()
        server.wait_for_log("complaint")
        server.stop()
    assert {line.split(" | ")[1].strip() for line in server.log.splitlines()} == shown


@pytest.mark.parametrize("level", ["error", "fatal", "none"])
def test_quiet_levels(level: str, tmp_path: Path) -> None:
    """At the level error, the log has only programs' errors; at higher levels, it is empty. Sessions work normally."""
    path = f"{tmp_path}/s"
    server = Server(f"--loglevel={level}", "sh", "-c", "echo complaint >&2; echo done", listen=(f"--unixsocket={path}",), unix=path)
    with server:
        with server.connect() as client:
            assert client.receive_lines() == ["done"]
        server.stop()
    assert len(server.log.splitlines()) == (level == "error")


# No leftovers


SUBREAPER = "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1); os.execvp(sys.argv[1], sys.argv[1:])"
"""Makes its program the parent of its orphaned descendants, like the first process of a container."""


def test_orphans_are_no_zombies() -> None:
    """No zombie remains if the server inherits the orphans of its programs."""
    prefix = (sys.executable, "-c", SUBREAPER)
    with Server("sh", "-c", "sleep 1000 >&2 & echo $!; (sleep 0.01 &) >&2", prefix=prefix) as server:
        for _ in range(3):
            with server.connect() as client:
                orphan = int(client.receive_text())
                with mortal(orphan):
                    assert client.receive_close() == Close(1000)
                    client.wait_for_end()
                    wait_for_exit(orphan)
        wait_until(lambda: server.log.count("| DISCONNECT") == 3, "the ends of the sessions")
        wait_until(lambda: zombies(server.pid) == [], "the zombies to be reaped")


KINDS = ("Client", "Child", "Bridge", "Connection", "Request", "FrameReader", "Heartbeat", "Lines")


def ours_alive() -> dict[str, int]:
    """Return the number of live objects of a session's types."""
    gc.collect()
    names = [type(thing).__name__ for thing in gc.get_objects() if str(type(thing).__module__).startswith("wsbridge.")]
    return {kind: names.count(kind) for kind in KINDS}


def cycles(port: int, count: int) -> None:
    """Open sessions, and end them in every way that a client can."""
    ways: list[Callable[[Client], None]] = [Client.drop, Client.reset, lambda client: client.send_close(1000)]
    for number in range(count):
        client = connect(port=port)
        client.send_text(str(number))
        assert client.receive_text() == str(number)
        ways[number % len(ways)](client)
        client.drop()
        if number % 7 == 0:
            with open_stream(port=port) as stream:
                stream.send(request_bytes("GET", "/", [("Host", "h")]))
                stream.read_until(b"\r\n\r\n")


@pytest.mark.parametrize("fast", ["1", "0"], ids=["aiofastnet", "asyncio"])
async def test_no_task_and_no_object_is_left(fast: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """After many sessions, no task, descriptor, child or object of a session remains."""
    monkeypatch.setenv("WSBRIDGE_FASTNET", fast)
    caplog.set_level(logging.INFO, "wsbridge")
    settings = ServerSettings(
        server=ProcessSettings(guard=False),
        endpoints=(BridgeSettings(program=ProgramSettings(command=("/bin/cat",))),),
        listeners=(ListenSettings(address="127.0.0.1:0"),),
    )
    metrics, had = Metrics(), descriptors()
    with same_limits(), no_callback_fails():
        bridging = Process(settings, metrics)
        serving = asyncio.create_task(bridging.run())
        try:
            await until(lambda: "Starting WebSocket server" in caplog.text, "the announcement")
            found = re.search(r"ws://127\.0\.0\.1:(\d+)/", caplog.text)
            assert found
            await asyncio.to_thread(cycles, int(found[1]), 5)
            await until(lambda: ours_alive() == dict.fromkeys(KINDS, 0), "the objects of the first sessions to go")
            tasks, before = asyncio.all_tasks(), descriptors()
            with nothing_left():
                await asyncio.to_thread(cycles, int(found[1]), 60)
                await until(lambda: asyncio.all_tasks() == tasks, "the end of every task")
                await until(lambda: len(descriptors()) <= len(before), "the descriptors to be as many as before")
            await until(lambda: ours_alive() == dict.fromkeys(KINDS, 0), "the objects of the sessions to go")
            assert metrics.sessions == 65
        finally:
            bridging.stop()
            assert await serving == 0
            for fd in descriptors().keys() - had.keys():
                os.close(fd)  # the Spawner's own descriptor, which lasts as long as its process


def test_nothing_is_left_of_simultaneous_sessions() -> None:
    """Simultaneous sessions do not affect each other, and leave nothing behind."""
    with Server("sh", "-c", "echo $$; exec cat") as server:
        with server.connect() as client:
            client.receive_text()
        wait_until(lambda: len(server.children()) == 1, "the end of the first session")
        before = server.descriptors()
        answers: list[list[str]] = []

        def talk(name: str) -> None:
            for number in range(5):
                with server.connect() as client:
                    pid = client.receive_text()
                    client.send_text(f"{name} {number}")
                    answers.append([pid, client.receive_text() == f"{name} {number}"])  # type: ignore[list-item]

        threads = [threading.Thread(target=talk, args=(str(index),)) for index in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 100
        assert all(same for _, same in answers)
        wait_until(lambda: len(server.children()) == 1, "the end of every program")
        wait_until(lambda: server.descriptors() <= before, "the descriptors to be as many as before")
        assert zombies(server.pid) == []


def test_legacy_locale(tmp_path: Path) -> None:
    """In a locale other than UTF-8, paths and variables are unchanged."""
    legacy = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    script = tmp_path / "é"
    script.write_text('#!/bin/sh\necho "$SCRIPT_NAME"\n')
    script.chmod(0o755)
    with Server(f"--dir={tmp_path}", "--maxforks=1", env=legacy) as server:
        for _ in range(2):
            with server.connect("/%c3%a9") as client:
                assert client.receive_text() == "/é"
                client.wait_for_end()
