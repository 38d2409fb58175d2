"""A reload changes only the parts that differ. An invalid configuration changes nothing."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.server.conftest import listen
from tests.support.client import Client, Close, Closed, Stream, open_stream, read_response, request_bytes
from tests.support.configured import Configure, Configured, bridge, channel, endpoint, listener, table
from tests.support.server import command_line, free_port, is_alive, listens, mortal, wait_for_exit, wait_until
from tests.support.site import BIG, TEXT, Certificates, write_script
from tests.support.tool import command, recorded

RESTARTED = Close(1012, "the configuration has changed; reconnect")
CAT = bridge("/unchanged", "echo $$; exec cat")
NOTHING = "nothing has changed"


class UnchangedSession:
    """A session of an unchanged endpoint, which a reload must not affect."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.pid = client.receive_text()
        self.count = 0

    def check(self) -> None:
        """Check that the session continues with the same program."""
        self.count += 1
        self.client.send_text(f"message {self.count}")
        assert self.client.receive_text() == f"message {self.count}"


@contextmanager
def unchanged_session(server: Configured) -> Iterator[UnchangedSession]:
    with server.connect("/unchanged") as client:
        session = UnchangedSession(client)
        session.check()
        yield session
        session.check()


def get(stream: Stream, path: str) -> bytes:
    """Make a request on a connection that stays open; return the body of the response."""
    stream.send(request_bytes("GET", path, [("Host", "localhost")]))
    return read_response(stream).body


def reply(server: Configured, path: str) -> str:
    """Return the first message of a new session."""
    with server.connect(path) as client:
        return client.receive_text()


def last_reply(server: Configured, path: str) -> str:
    """Return the first message of a new session; empty if a reload ends the session before it."""
    with suppress(Closed):
        return reply(server, path)
    return ""


# Endpoints


def test_ladder_of_the_guard(configured: Configure, tmp_path: Path) -> None:
    """If the server is killed after a reload, the guard ends each program by the `close_delay` with which it began."""
    program = [*command("witness")]
    at_start = endpoint("bridge", "/start", command=[*program, tmp_path / "start", "TERM"])
    later = endpoint("bridge", "/later", command=[*program, tmp_path / "later", "INT"], close_delay="600s")
    server = configured(listener(), at_start)
    with server.connect("/start") as client:
        quick = int(client.receive_text())
        server.reload(listener(), at_start, later)
        with server.connect("/later") as other:
            slow = int(other.receive_text())
            (guard,) = [child for child in server.children() if "wsbridge-guard" in command_line(child)]
            with mortal(quick, slow, *server.children()):
                server.send_signal(signal.SIGKILL)
                server.wait()
                wait_for_exit(quick)
                wait_until(lambda: recorded(tmp_path / "later"), "the end of the stdin")
                assert is_alive(slow)
                assert [event for event, _ in recorded(tmp_path / "later")] == ["eof"]
                os.killpg(guard, signal.SIGKILL)
    assert [event for event, _ in recorded(tmp_path / "start")] == ["eof", "INT", "TERM"]


def test_endpoints(configured: Configure, tmp_path: Path) -> None:
    """Endpoints are added, changed and removed. Sessions of changed and removed endpoints end with 1012 and by the ladder."""
    old = [endpoint("bridge", path, command=[*command("witness", tmp_path / path[1:], "TERM")]) for path in ("/changed", "/removed")]
    new = [bridge("/changed", "echo new"), bridge("/added", "echo added")]
    server = configured(listener(), CAT, *old)
    with unchanged_session(server), server.connect("/changed") as changed, server.connect("/removed") as removed:
        pids = [int(client.receive_text()) for client in (changed, removed)]
        with mortal(*pids):
            assert server.refusal("/added").status == 404
            verdict = server.reload(listener(), CAT, *new)
            assert verdict == f"reloaded {server.file}: added /added; changed /changed; removed /removed"
            assert [reply(server, path) for path in ("/changed", "/added")] == ["new", "added"]
            assert server.refusal("/removed").status == 404
            assert [client.receive_close() for client in (changed, removed)] == [RESTARTED] * 2
            for pid in pids:
                wait_for_exit(pid)
    for name in ("changed", "removed"):
        assert [event for event, _ in recorded(tmp_path / name)] == ["eof", "INT", "TERM"]


def test_ladder_of_a_changed_endpoint(configured: Configure, tmp_path: Path) -> None:
    """A program ends by its own endpoint's ladder while the new program serves. A forced shutdown kills it."""
    slow = endpoint("bridge", "/slow", command=[*command("witness", tmp_path / "record", "USR1")], close_delay="60s")
    server = configured(listener(), slow)
    with server.connect("/slow") as client:
        pid = int(client.receive_text())
        with mortal(pid):
            server.reload(listener(), bridge("/slow", "echo new"))
            assert client.receive_close() == RESTARTED
            wait_until(lambda: (tmp_path / "record").exists() and recorded(tmp_path / "record"), "the end of stdin")
            assert reply(server, "/slow") == "new"
            assert is_alive(pid)
            # A second signal also kills the programs that a reload left running.
            server.send_signal(signal.SIGTERM)
            wait_until(lambda: not listens(server.pid, server.port), "the beginning of the shutdown")
            server.send_signal(signal.SIGTERM)
            assert server.wait() == 0
            assert not is_alive(pid)


KINDS: dict[str, Callable[[Path], str]] = {
    "bridge": lambda folder: bridge("/x", "echo hello"),
    "scripts": lambda folder: endpoint("bridge", "/x", scripts=folder / "scripts"),
    "files": lambda folder: endpoint("files", "/x", files=folder / "public"),
    "cgi": lambda folder: endpoint("cgi", "/x", cgi=folder / "cgi"),
    "channel": lambda folder: channel("/x", "x"),
    "console": lambda folder: endpoint("console", "/x"),
}


def test_kinds(configured: Configure, tmp_path: Path) -> None:
    """An endpoint may become one of another kind."""
    for name in ("scripts", "public", "cgi"):
        (tmp_path / name).mkdir()
    write_script(tmp_path / "scripts/hello", "echo hello")
    write_script(tmp_path / "cgi/hello", f"{TEXT}echo hello")
    (tmp_path / "public/hello").write_text("hello\n")
    server = configured(listener(), KINDS["bridge"](tmp_path))

    def works(kind: str) -> bool:
        match kind:
            case "bridge":
                return reply(server, "/x") == "hello"
            case "scripts":
                return reply(server, "/x/hello") == "hello"
            case "files" | "cgi":
                return server.get("/x/hello").body == b"hello\n"
            case "channel":
                return server.get("/x/status").status == 200
            case _:
                return b"wsbridge console" in server.get("/x/").body

    with ExitStack() as stack:
        for kind in [*KINDS, *reversed(KINDS)]:
            server.reload(listener(), KINDS[kind](tmp_path))
            assert works(kind), kind
            if kind in ("bridge", "channel"):
                stack.enter_context(server.connect("/x"))
            if kind == "channel":
                stack.enter_context(listen(server, "/x/events"))


def test_requests_in_progress(configured: Configure, tmp_path: Path) -> None:
    """A download continues after its endpoint was removed. A CGI script ends by the ladder, and its client sees that the response is
    cut."""
    for name in ("public", "cgi"):
        (tmp_path / name).mkdir()
    (tmp_path / "public/big.bin").write_bytes(BIG)
    write_script(tmp_path / "cgi/slow", f"{TEXT}echo $$; exec sleep 1000")
    write_script(tmp_path / "cgi/patient", f"{TEXT}trap '' INT TERM; echo $$; read line; echo last")
    scripts, files = endpoint("cgi", "/cgi", cgi="cgi"), endpoint("files", "/files", files="public")
    other = endpoint("cgi", "/other", cgi="cgi")
    server = configured(listener(), CAT, scripts, files, other)
    with unchanged_session(server), ExitStack() as stack:
        download = stack.enter_context(open_stream(port=server.port, receive_buffer=1 << 14))
        download.send(request_bytes("GET", "/files/big.bin", [("Host", "localhost")]))
        download.read_until(b"\r\n\r\n")
        slow, untouched = (stack.enter_context(open_stream(port=server.port)) for _ in range(2))
        pids = []
        for stream, path in ((slow, "/cgi/slow"), (untouched, "/other/slow")):
            stream.send(request_bytes("GET", path, [("Host", "localhost")]))
            stream.read_until(b"\r\n\r\n")
            stream.read_until(b"\r\n")
            pids.append(int(stream.read_until(b"\n")))
            stream.read_until(b"\r\n")
        with mortal(*pids):
            server.reload(listener(), CAT, other)
            assert server.get("/cgi/slow").status == 404
            assert slow.read_to_end() == b""
            wait_for_exit(pids[0])
            assert download.read_exactly(len(BIG)) == BIG
            assert is_alive(pids[1])


def test_connection_in_progress(configured: Configure) -> None:
    """The next request on an open connection uses the current endpoints."""
    server = configured(listener(), CAT, channel("/a", "old"))
    with open_stream(port=server.port) as stream:
        assert b'"exchange": "old"' in get(stream, "/a/status")
        server.reload(listener(), CAT, channel("/a", "new"))
        assert b'"exchange": "new"' in get(stream, "/a/status")
        server.reload(listener(), CAT)
        assert get(stream, "/a/status") == b"404 page not found\n"


def test_order_and_comments(configured: Configure) -> None:
    """The order of tables and comments has no meaning, so a change of them changes nothing."""
    channels = [channel(f"/{name}", name) for name in ("a", "b")]
    server = configured(listener(), CAT, *channels)
    with unchanged_session(server), server.connect("/a") as client:
        assert server.reload("# A comment", *reversed(channels), CAT, listener()) == f"reloaded {server.file}: {NOTHING}"
        assert client.is_open()


def test_defaults_and_hosts(configured: Configure) -> None:
    """A changed default affects only the endpoints that use it. Hosts are part of an endpoint's place."""
    of_a, of_b = bridge("/", "echo a; exec cat", hosts=["a.example"]), bridge("/", "echo b; exec cat", hosts=["b.example"])
    own = bridge("/own", "exec cat", ping=30)
    server = configured(listener(), CAT, of_a, own)
    with server.connect("/", headers=[("Host", "a.example")]) as client, server.connect("/own") as other:
        assert client.receive_text() == "a"
        assert server.reload(table("[defaults.bridge]", ping=20), listener(), of_b, own) == (
            f"reloaded {server.file}: added b.example/; removed /unchanged, a.example/"
        )
        assert client.receive_close() == RESTARTED
        assert other.is_open()
        with server.connect("/", headers=[("Host", "b.example")]) as second:
            assert second.receive_text() == "b"
        assert server.refusal("/", headers=[("Host", "a.example")]).status == 403


# [server]


def test_settings_of_the_server(configured: Configure) -> None:
    """Hosts, trusted proxies, the limit of sessions and the log level change at once, and no session ends."""
    own = bridge("/who", 'echo "$REMOTE_ADDR"')
    server = configured(table("[server]", log_level="info"), listener(), CAT, own)
    foreign, through = [("Host", "foreign.example")], [("X-Forwarded-For", "192.0.2.7")]
    with unchanged_session(server):
        assert server.refusal("/who", headers=foreign).status == 403
        with server.connect("/who", headers=through) as client:
            assert client.receive_text() == "127.0.0.1"
        assert "| CONNECT" not in server.log
        settings = {"hosts": ["foreign.example"], "trust_proxy": ["127.0.0.1"], "max_sessions": 1, "log_level": "debug"}
        verdict = server.reload(table("[server]", **settings), listener(), CAT, own)
        assert verdict == f"reloaded {server.file}: changed server.hosts, server.trust_proxy, server.max_sessions, server.log_level"
        assert server.refusal("/who").status == 429
        server.reload(table("[server]", **(settings | {"max_sessions": 0})), listener(), CAT, own)
        for headers, address in ((foreign, "127.0.0.1"), (through, "192.0.2.7")):
            with server.connect("/who", headers=headers) as client:
                assert client.receive_text() == address
        server.wait_for_log(r"\| CONNECT")
        server.reload(table("[server]", log_level="info"), listener(), CAT, own)
        assert server.refusal("/who", headers=foreign).status == 403


def test_settings_that_need_a_restart(configured: Configure) -> None:
    """Some settings need a restart: each reload names those that differ from the running server's."""
    server = configured(listener(), CAT)
    needs = "restart the server to apply the changes to [server]: "
    changed = table("[server]", keepalive_timeout=5, log_format="json", guard=False, reverse_lookup=True)
    with unchanged_session(server):
        assert server.reload(changed, listener(), CAT) == f"reloaded {server.file}: {NOTHING}"
        server.wait_for_log(f"{re.escape(needs)}guard, keepalive_timeout, log_format, reverse_lookup$")
        server.reload(table("[server]", keepalive_timeout=5), listener(), CAT)
        server.wait_for_log(f"{re.escape(needs)}keepalive_timeout$")
        server.reload(listener(), CAT)
        server.reload(listener(), CAT)
        assert server.log.count(needs) == 2


# Failed reloads


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


FAULTS = {
    "empty": ("", r"nothing to serve: add a table \[\[endpoint\]\]"),
    "not TOML": ("[[endpoint]\n", "invalid TOML"),
    "not UTF-8": (b"# \xff\n", "not UTF-8"),
    "a wrong type": (bridge("/x", "exec cat", max_programs="ten"), r'endpoint\[1\]\.max_programs: expected an integer, got "ten"'),
    "an unknown key": (bridge("/x", "exec cat", max_program=1), r"endpoint\[1\]\.max_program: unknown key; did you mean max_programs\?"),
    "an unknown kind": (endpoint("brigde", "/x"), r'endpoint\[1\]\.kind: unknown kind "brigde"; did you mean "bridge"\?'),
    "one path twice": (bridge("/x", "exec cat") + "\n" + channel("/x", "x"), r'endpoint\[2\]\.path: .*has the path "/x" already'),
    "one address twice": (listener(":1") + "\n" + listener(":1") + "\n" + CAT, r"listen\[2\]\.address: :1 is already the address"),
    "a program that is gone": (endpoint("bridge", "/x", command=["./gone"]), r"endpoint\[1\]\.command: .*gone"),
    "a folder that is gone": (endpoint("files", "/x", files="gone"), r"endpoint\[1\]\.files: .*gone is not a directory"),
    "a secret that is not set": (
        channel("/x", "x", broker="main") + "\n" + table("[broker.main]", url={"env": "NOT_SET"}),
        "the environment variable NOT_SET is not set",
    ),
    "a broker that is not there": (channel("/x", "x", broker="main"), r"endpoint\[1\]\.broker: there is no \[broker\.main\]"),
    "an include of itself": ('include = "wsbridge.toml"\n' + CAT, "wsbridge.toml"),
    "a file that is missing": ('include = "gone.toml"\n' + CAT, "gone.toml"),
}


@pytest.mark.parametrize(("text", "complaint"), FAULTS.values(), ids=FAULTS.keys())
def test_invalid_file(configured: Configure, text: str | bytes, complaint: str) -> None:
    """An invalid file changes nothing, and the log names the fault and its place. The next valid file is loaded."""
    other = bridge("/other", "echo old; exec cat")
    server = configured(listener(), CAT, other)
    with unchanged_session(server), server.connect("/other") as client:
        client.receive_text()
        server.file.write_bytes(text if isinstance(text, bytes) else text.encode())
        assert server.hang_up() == (f"not reloaded: {server.file} is invalid; the server keeps its current configuration")
        assert re.search(rf"\| ERROR  \| server +\|  \| {re.escape(str(server.file))}[:0-9]*: .*{complaint}", server.log), server.log
        assert client.is_open()
        assert reply(server, "/other") == "old"
        assert server.reload(listener(), CAT, bridge("/other", "echo new")) == f"reloaded {server.file}: changed /other"
        assert reply(server, "/other") == "new"


def test_missing_file(configured: Configure) -> None:
    """A missing file changes nothing; when it exists again, it is loaded."""
    server = configured(listener(), CAT)
    with unchanged_session(server):
        server.file.unlink()
        assert "is invalid" in server.hang_up()
        assert server.reload(listener(), CAT, bridge("/x", "echo x")) == f"reloaded {server.file}: added /x"


def test_every_fault_is_logged(configured: Configure) -> None:
    """All faults of a file are logged, each in one line."""
    server = configured(listener(), CAT)
    server.reload(bridge("/a", "exec cat", ping="soon"), endpoint("files", "/b", files="gone"), listener("x"))
    places = re.findall(rf"\| {re.escape(str(server.file))}:(\d+): (\S+): ", server.log)
    assert places == [("5", "endpoint[1].ping"), ("10", "endpoint[2].files"), ("13", "listen[1].address")]


def test_port_in_use(configured: Configure, tmp_path: Path) -> None:
    """If a new listener cannot open, nothing changes: no endpoint, no other listener, no certificate, and no hidden file."""
    (tmp_path / "public").mkdir()
    (tmp_path / "public/page.txt").write_text("page\n")
    files = endpoint("files", "/files", files="public")
    server = configured(table("[server]", hosts=["a.example"]), listener(), CAT, files, channel("/c", "c"))
    free, socket_path = free_port(), tmp_path / "socket"
    with unchanged_session(server), server.connect("/c") as viewer, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        tables = (
            table("[server]", hosts=["b.example"]),
            listener(),
            listener(f"127.0.0.1:{free}"),
            listener(f"unix:{socket_path}"),
            listener(f"127.0.0.1:{port}"),
            CAT,
            files,
            channel("/c", "c", "exec cat", input="program"),
            endpoint("bridge", "/reads", command=["cat", str(tmp_path / "public/page.txt")]),
        )
        verdict = server.reload(*tables)
        line = server.file.read_text().splitlines().index(f'address = "127.0.0.1:{port}"') + 1
        assert re.fullmatch(
            rf"not reloaded: cannot listen on 127\.0\.0\.1:{port}: address already in use; another program listens on this port;"
            rf" in {re.escape(str(server.file))}:{line}, choose another port, such as listen\[4\]\.address=\"127\.0\.0\.1:\d+\","
            r' which is free now, or listen\[4\]\.address="127\.0\.0\.1:0" for any free port;'
            r" the server keeps its current configuration",
            verdict,
        )
        for closed in ({"port": free}, {"unix": socket_path}):
            with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
                server.connect("/unchanged", **closed)
        assert server.refusal("/reads", headers=[("Host", "a.example")]).status == 404
        assert server.refusal("/unchanged", headers=[("Host", "b.example")]).status == 403
        assert server.get("/files/page.txt").body == b"page\n"
        viewer.send_text("hello")
        assert viewer.receive_text() == "hello"
        taken.close()
        assert server.reload(*tables).startswith(f"reloaded {server.file}: added /reads, listener 127.0.0.1:{free}, listener unix:")
        assert server.get("/files/page.txt").status == 404
        assert reply(server, "/reads") == "page"


def test_unreachable_broker(configured: Configure) -> None:
    """If a new channel cannot reach its broker, nothing changes, and the error has no password."""
    new = bridge("/new", "echo new")
    url = f"amqp://user:hunter2@127.0.0.1:{free_port()}/"
    broken = (channel("/c", "c", broker="main"), table("[broker.main]", url={"env": "RABBIT_URL"}, timeout=2))
    server = configured(listener(), CAT, channel("/c", "c"), env={"RABBIT_URL": url})
    with unchanged_session(server), server.connect("/c") as viewer:
        verdict = server.reload(listener(), CAT, new, *broken)
        assert verdict.startswith("not reloaded: ")
        assert "127.0.0.1" in verdict
        assert "hunter2" not in server.log
        assert server.refusal("/new").status == 404
        viewer.send_text("hello")
        assert viewer.receive_text() == "hello"
        server.reload(listener(), CAT, new, channel("/c", "c"))
        assert reply(server, "/new") == "new"
        assert viewer.is_open()


# Signals


def waiting(port: int, timeout: str = "60s") -> tuple[str, str]:
    """Return the settings of a channel whose broker never answers: a reload waits for it."""
    url = f"amqp://user:hunter2@127.0.0.1:{port}/"
    return (channel("/waiting", "waiting", broker="main"), table("[broker.main]", url=url, timeout=timeout))


def test_second_reload(configured: Configure, silent: int) -> None:
    """A signal during a reload causes another reload after it."""
    server = configured(listener(), CAT)
    with unchanged_session(server) as session:
        server.write(listener(), CAT, *waiting(silent, "1s"), bridge("/x", "echo first"))
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: server.descriptors() and dialled(server, silent), "the connection to the broker")
        session.check()
        server.write(listener(), CAT, bridge("/x", "echo second"))
        server.send_signal(signal.SIGHUP)
        assert server.verdict(0).startswith("not reloaded: ")
        assert server.verdict(1) == f"reloaded {server.file}: added /x"
        assert reply(server, "/x") == "second"


def dialled(server: Configured, port: int) -> bool:
    """Return whether a process has a connection to a port of this machine."""
    rows = [row.split() for row in Path(f"/proc/{server.pid}/net/tcp").read_text().splitlines()[1:]]
    return any(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def test_shutdown_during_a_reload(configured: Configure, silent: int) -> None:
    """A shutdown ends a reload in progress: nothing of the new configuration begins."""
    server = configured(listener(), CAT)
    with server.connect("/unchanged") as client:
        client.receive_text()
        server.write(listener(), *waiting(silent), bridge("/x", "echo x"))
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: dialled(server, silent), "the connection to the broker")
        server.send_signal(signal.SIGTERM)
        assert client.receive_close().code == 1001
        assert server.wait() == 0
    assert server.verdicts == []


def test_reload_during_a_shutdown(configured: Configure, tmp_path: Path) -> None:
    """During a shutdown, a reload signal changes nothing and starts no program."""
    record, started = tmp_path / "record", tmp_path / "started"
    patient = endpoint("bridge", "/patient", command=[*command("witness", record, "USR1")], close_delay="60s")
    server = configured(listener(), patient)
    with server.connect("/patient") as client:
        pid = int(client.receive_text())
        with mortal(pid):
            server.send_signal(signal.SIGTERM)
            assert client.receive_close().code == 1001
            server.write(listener(), patient, channel("/new", "new", f"echo >{started}; exec sleep 1000"))
            server.send_signal(signal.SIGHUP)
            assert server.verdict(0).startswith("not reloaded: the server is shutting down")
            server.send_signal(signal.SIGTERM)
            assert server.wait() == 0
            assert not is_alive(pid)
    assert not started.exists()


def test_hang_up_at_the_start(tmp_path: Path) -> None:
    """A signal during the start does not end the server. It causes a reload once the server is ready."""
    # Reading 100 files takes a while.
    for number in range(98):
        (tmp_path / f"{number}.inc").write_text(bridge(f"/{number}", "exec cat"))
    server = Configured(tmp_path / "wsbridge.toml", 'include = "*.inc"', listener(), CAT)
    server._spawn()
    try:
        wait_until(lambda: catches(server.pid, signal.SIGHUP), "the handler of the signal")
        server.send_signal(signal.SIGHUP)
        server._wait_until_ready()
        assert server.verdict(0) == f"reloaded {server.file}: {NOTHING}"
    finally:
        assert server.stop() == 0


def catches(pid: int, number: signal.Signals) -> bool:
    """Return whether a process has a handler for a signal."""
    found = re.search(r"^SigCgt:\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return bool(int(found[1], 16) >> (number - 1) & 1)


def test_shutdown_while_a_start_waits(tmp_path: Path, silent: int) -> None:
    """SIGHUP does not end a server that waits for its broker at the start; SIGTERM does."""
    server = Configured(tmp_path / "wsbridge.toml", listener(), *waiting(silent))
    server._spawn()
    try:
        wait_until(lambda: dialled(server, silent), "the connection to the broker")
        server.send_signal(signal.SIGHUP)
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    finally:
        server.stop()
    assert server.verdicts == []


def test_many_signals(configured: Configure) -> None:
    """Any number of signals at any time causes one reload after another; the server ends up with the last content of the file."""
    server = configured(listener(), CAT, bridge("/x", "echo 0"))
    with unchanged_session(server):
        for number in range(1, 31):
            server.write(listener(), CAT, bridge("/x", f"echo {number}"))
            server.send_signal(signal.SIGHUP)
        wait_until(lambda: last_reply(server, "/x") == "30", "the last change")
        assert all(verdict.startswith("reloaded") for verdict in server.verdicts)


# --watch


WATCH = ("--watch",)


def test_watch(configured: Configure) -> None:
    """With --watch, the server reloads without a signal: after a replacement, a write in place, and a temporary absence of the file."""
    server = configured(listener(), CAT, bridge("/x", "echo 0"), flags=WATCH)
    with unchanged_session(server):
        server.write(listener(), CAT, bridge("/x", "echo 1"))
        assert server.verdict(0) == f"reloaded {server.file}: changed /x"
        text = server.file.read_text()
        server.file.write_text(text.replace("echo 1", "echo 2"))
        assert server.verdict(1) == f"reloaded {server.file}: changed /x"
        server.file.unlink()
        assert server.verdict(2).startswith("not reloaded")
        server.file.write_text(text.replace("echo 1", "echo 3"))
        assert server.verdict(3) == f"reloaded {server.file}: changed /x"
        assert reply(server, "/x") == "3"


def test_watched_files(configured: Configure, certificates: Certificates, tmp_path: Path) -> None:
    """--watch also covers included files, the folders of patterns, secrets and certificates, also those in an invalid file."""
    for name in ("server.pem", "server.key"):
        (tmp_path / name).write_bytes((certificates.folder / name).read_bytes())
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "url").write_text("amqp://127.0.0.1/")
    more, other = tmp_path / "conf.d/more.toml", tmp_path / "conf.d/other.toml"
    more.write_text(bridge("/more", "echo 0"))
    tables = (
        'include = "conf.d/*.toml"',
        listener(),
        listener("unix:socket", certificate="server.pem", key="server.key"),
        CAT,
        table("[broker.main]", url={"file": "url"}),
    )
    server = configured(*tables, flags=WATCH)
    with unchanged_session(server):
        more.write_text(bridge("/more", "echo 1"))
        assert server.verdict(0) == f"reloaded {server.file}: changed /more"
        other.write_text(bridge("/other", "echo 1"))
        assert server.verdict(1) == f"reloaded {server.file}: added /other"
        more.unlink()
        assert server.verdict(2) == f"reloaded {server.file}: removed /more"
        (tmp_path / "url").write_text("hunter2")
        assert server.verdict(3).startswith("not reloaded")
        (tmp_path / "url").write_text("amqp://localhost/")
        assert server.verdict(4) == f"reloaded {server.file}: changed broker main"
        (tmp_path / "server.key").write_bytes((certificates.folder / "client.key").read_bytes())
        assert server.verdict(5).startswith("not reloaded")
        (tmp_path / "server.key").write_bytes((certificates.folder / "server.key").read_bytes())
        assert server.verdict(6) == f"reloaded {server.file}: changed certificate of listener unix:{tmp_path}/socket"
        server.write(*tables, listener(f"127.0.0.1:{free_port()}", certificate="new.pem", key="new.key"))
        assert server.verdict(7).startswith("not reloaded")
        for name in ("pem", "key"):
            (tmp_path / f"new.{name}").write_bytes((certificates.folder / f"server.{name}").read_bytes())
        wait_until(lambda: server.verdicts[-1].startswith("reloaded"), "the reload with the new files")
    assert "hunter2" not in server.log
