"""`wsbridge serve FILE`: many endpoints of every kind in one process, each at a path of its own."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.server.conftest import V1, Viewer, listen
from tests.support.client import Close, open_stream, request_bytes
from tests.support.configured import Configure, Configured, bridge, channel, endpoint, listener, table
from tests.support.server import free_port, is_alive, mortal, run, wait_until
from tests.support.site import TEXT, Certificates, assert_sound, write_script
from tests.support.tool import command

NAMES = 'echo "$SCRIPT_NAME|$PATH_INFO|$REQUEST_URI"'
"""Prints the variables that describe the path of a request."""


@pytest.fixture(scope="module")
def town_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    """A server with endpoints of every kind."""
    folder = tmp_path_factory.mktemp("town")
    for name in ("scripts/sub", "cgi", "public/sub", "public/page"):
        (folder / name).mkdir(parents=True)
    write_script(folder / "scripts/hello", NAMES)
    write_script(folder / "scripts/sub/deep", NAMES)
    write_script(folder / "cgi/names", TEXT + NAMES)
    write_script(folder / "cgi/moved", 'echo "Location: $QUERY_STRING"; echo')
    for name in ("public/a.txt", "public/sub/b.txt", "public/page/index.html"):
        (folder / name).write_text(f"{name}\n")
    server = Configured(
        folder / "wsbridge.toml",
        listener(),
        bridge("/count", f"{NAMES}; exec cat", console=True),
        bridge("/count/more", "echo more"),
        bridge("/gr\u00f6\u00dfe 100%", NAMES),
        endpoint("bridge", "/scripts", scripts="scripts"),
        endpoint("cgi", "/cgi", cgi="cgi"),
        endpoint("files", "/files", files="public"),
        channel("/temps", "temps"),
        channel("/temps/inner", "inner"),
        endpoint("console", "/console", target="/count"),
        bridge("/", "echo root of a", hosts=["a.example"]),
        bridge("/x", "echo x of a", hosts=["A.example", "b.example"]),
        bridge("/", "echo root of any", hosts=["*.example"]),
    )
    with server:
        yield server
    assert_sound(server)


@pytest.fixture
def town(town_of_all: Configured) -> Iterator[Configured]:
    yield town_of_all
    assert_sound(town_of_all)


# Paths


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/count", "/count||/count"),
        ("/count/", "/count|/|/count/"),
        ("/count/x/y?q=1", "/count|/x/y|/count/x/y?q=1"),
        ("/count/moreover", "/count|/moreover|/count/moreover"),
        ("/scripts/hello", "/scripts/hello||/scripts/hello"),
        ("/scripts/hello/x?q", "/scripts/hello|/x|/scripts/hello/x?q"),
        ("/scripts/sub/deep/x", "/scripts/sub/deep|/x|/scripts/sub/deep/x"),
        ("/gr%C3%B6%C3%9Fe%20100%25/x", "/gr\u00f6\u00dfe 100%|/x|/gr%C3%B6%C3%9Fe%20100%25/x"),
    ],
)
def test_program_sees_its_mount(town: Configured, path: str, names: str) -> None:
    """SCRIPT_NAME is the path of the endpoint, and that of the script below it; PATH_INFO is the rest."""
    with town.connect(path) as client:
        assert client.receive_text() == names


def test_cgi_script_sees_its_mount(town: Configured) -> None:
    """A CGI script has the same values."""
    assert town.get("/cgi/names/x?q").body == b"/cgi/names|/x|/cgi/names/x?q\n"
    assert town.get("/cgi/none").status == 404


def test_longest_path_wins(town: Configured) -> None:
    """An endpoint serves whole components of a path, and the endpoint with the longest path serves a request."""
    with town.connect("/count/more/x") as client:
        assert client.receive_text() == "more"
    for path in ("/", "/counter", "/coun", "/scripts/none", "/temps2", "/status", "/wsbridge.js"):
        assert town.get(path).status == 404
        assert town.refusal(path).status == 404


MOUNTS = ("/count", "/scripts", "/cgi", "/files", "/temps", "/temps/inner", "/console", "/gr%C3%B6%C3%9Fe%20100%25")


@pytest.mark.parametrize("path", MOUNTS)
def test_redirect_to_the_directory(town: Configured, path: str) -> None:
    """Relative links count from the directory of the endpoint, so a plain request without the slash is redirected, with its query."""
    answer = town.get(f"{path}?q=1")
    assert (answer.status, answer.value("Location")) == (301, f"./{path.rpartition('/')[2]}/?q=1")


def test_hosts(town: Configured) -> None:
    """An endpoint with host names serves those hosts only; the more specific name wins, then the longer path."""
    said = {
        ("a.example", "/"): "root of a",
        ("A.EXAMPLE:1", "/y"): "root of a",
        ("a.example", "/x/y"): "x of a",
        ("b.example", "/x"): "x of a",
        ("b.example", "/"): "root of any",
        ("c.b.example", "/x"): "root of any",
        ("c.example", "/count/x"): "root of any",
    }
    for (host, path), text in said.items():
        with town.connect(path, headers=[("Host", host)]) as client:
            assert client.receive_text() == text
    assert town.refusal("/x").status == 404
    assert town.refusal("/x", headers=[("Host", "example")]).status == 403


# Files, pages and channels below a mount


def test_files(town: Configured) -> None:
    """Files and directory pages are below the path of their endpoint, and so is the link to the parent directory."""
    assert town.get("/files/a.txt").body == b"public/a.txt\n"
    assert town.get("/files/page/").body == b"public/page/index.html\n"
    assert town.get("/files/sub").value("Location") == "./sub/"
    assert town.get("/files/page/index.html").value("Location") == "./"
    root, below = town.get("/files/").body.decode(), town.get("/files/sub/").body.decode()
    assert 'href="./sub/"' in root
    assert 'href="../"' not in root
    assert 'href="./b.txt"' in below
    assert 'href="../"' in below
    assert "<title>Files in /files/</title>" in root
    assert "<title>Files in /files/sub/</title>" in below
    assert town.get("/files/../cgi/names/").value("Location") == "./"


def test_channel(town: Configured) -> None:
    """The page, the status, the event stream and the script of a channel are below its path."""
    assert json.loads(town.get("/temps/status").body)["exchange"] == "temps"
    assert json.loads(town.get("/temps/inner/status").body)["exchange"] == "inner"
    assert b'data-exchange="temps"' in town.get("/temps/").body
    assert town.get("/temps/wsbridge.js").value("Content-Type") == "text/javascript; charset=utf-8"
    assert town.get("/temps/nothing").status == 404
    accept = [("Accept", "text/event-stream")]
    with ExitStack() as stack:
        streams = [stack.enter_context(listen(town, path, headers=headers)) for path, headers in EVENTS(accept)]
        viewers = [stack.enter_context(Viewer(town.connect(path, subprotocols=(V1,)))) for path in ("/temps", "/temps/", "/temps/x")]
        other = stack.enter_context(Viewer(town.connect("/temps/inner", subprotocols=(V1,))))
        sender = stack.enter_context(town.connect("/temps"))
        wait_until(lambda: json.loads(town.get("/temps/status").body)["viewers"] == 7, "the viewers")
        sender.send_text("warm")
        assert [stream.data() for stream in streams] == [["warm"]] * 3
        assert [viewer.message() for viewer in viewers] == [b"warm"] * 3
        assert json.loads(town.get("/temps/inner/status").body)["messages"] == 0
        assert other.next().what == "at"


def EVENTS(accept: list[tuple[str, str]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the requests for the event stream of a channel."""
    return [("/temps/events", []), ("/temps", accept), ("/temps/", accept)]


def test_pages(town: Configured) -> None:
    """A console is at its own path, and refers to its target by a relative address. The console of an endpoint is below the endpoint."""
    assert b'data-target="../count"' in town.get("/console/").body
    assert b'data-program="sh"' in town.get("/count/").body
    assert town.get("/count/any/where").body == town.get("/count/").body


# Local redirects


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        ("/files/sub/b.txt", 200, b"public/sub/b.txt\n"),
        ("/cgi/names/x?q", 200, b"/cgi/names|/x|/cgi/names/x?q\n"),
        ("/cgi/moved?/files/a.txt", 200, b"public/a.txt\n"),
        ("/nowhere", 404, b"404 page not found\n"),
        ("/files", 301, b"301 Moved Permanently\n"),
    ],
)
def test_local_redirect(town: Configured, target: str, status: int, body: bytes) -> None:
    """The target of a CGI script's local redirect counts from the root of the site, and may belong to any endpoint."""
    answer = town.get(f"/cgi/moved?{target}")
    assert (answer.status, answer.body) == (status, body)


def test_local_redirects_end(town: Configured) -> None:
    """A chain of local redirects ends with an error, also one that leads from endpoint to endpoint."""
    assert json.loads(town.get("/cgi/moved?/temps/status").body)["exchange"] == "temps"
    assert town.get("/cgi/moved?" + "/cgi/moved?" * 4).status == 500


# Limits and access of each endpoint


def test_slots(configured: Configure, tmp_path: Path) -> None:
    """A session, a CGI script and a subscriber each need a slot of their endpoint and a slot of the server."""
    (tmp_path / "cgi").mkdir()
    write_script(tmp_path / "cgi/names", TEXT + NAMES)
    server = configured(
        table("[server]", max_sessions=3),
        listener(),
        bridge("/cat", "echo $$; exec cat", max_programs=2),
        channel("/temps", "temps", max_clients=2),
        endpoint("cgi", "/cgi", cgi="cgi"),
    )
    with ExitStack() as stack:
        cats = [stack.enter_context(server.connect("/cat")) for _ in range(2)]
        pids = [int(client.receive_text()) for client in cats]
        assert server.refusal("/cat").status == 429
        assert server.get("/cgi/names").status == 200
        stack.enter_context(server.connect("/temps"))
        for path in ("/cat", "/temps"):
            assert server.refusal(path).status == 429
        assert server.get("/cgi/names").status == 429
        assert server.get("/temps/events").status == 503
        cats[0].drop()
        wait_until(lambda: not is_alive(pids[0]), "the end of a program")
        wait_until(lambda: server.get("/cgi/names").status == 200, "a free slot")
        second = stack.enter_context(server.connect("/temps"))
        assert second.is_open()
        assert server.refusal("/temps").status == 429


def test_access(configured: Configure) -> None:
    """Each endpoint has its own origins, its own headers, and its own way to refuse a client that finds no free slot."""
    a, b = "http://a.example", "http://b.example"
    server = configured(
        listener(),
        bridge("/a", "exec cat", origins=["a.example"], headers=["X-Of: a"], headers_websocket=["X-Ws: 1"], busy="close", max_programs=1),
        bridge("/b", "exec cat", origins=["b.example"], headers_http=["X-Of: b"], max_programs=1),
        channel("/c", "c", origins=["b.example"]),
    )
    for path, origin in (("/a", b), ("/b", a), ("/c", a)):
        assert server.refusal(path, origin=origin).status == 403
    assert server.get("/c/status", headers=[("Origin", a)]).status == 403
    assert server.get("/c/status", headers=[("Origin", b)]).status == 200
    with server.connect("/a", origin=a) as first, server.connect("/b", origin=b) as second:
        assert (first.response.value("X-Of"), first.response.value("X-Ws"), second.response.value("X-Of")) == ("a", "1", None)
        with server.connect("/a", origin=a) as third:
            assert third.receive_close().code == 1013
        assert server.refusal("/b", origin=b).status == 429
    assert [server.get(path).values("X-Of") for path in ("/a/x", "/b/x", "/c/x", "/")] == [["a"], ["b"], [], []]


# Listeners


PASSED = """
import os, socket, sys
sock = socket.create_server(("127.0.0.1", int(sys.argv[1])))
os.set_inheritable(os.dup2(sock.fileno(), 3), True)
os.execve(sys.argv[2], sys.argv[2:], {**os.environ, "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"})
"""
"""Starts a program as systemd does, with a listening socket of the name `web` on a port. Its arguments: the port and the command line."""


def test_listeners(configured: Configure, certificates: Certificates, tmp_path: Path) -> None:
    """One server listens on any number of addresses of every kind, and each serves all endpoints."""
    secure, passed, redirecting = free_port(), free_port(), free_port()
    files = {"certificate": certificates.folder / "server.pem", "key": certificates.folder / "server.key"}
    server = configured(
        listener(),
        listener(f"127.0.0.1:{secure}", redirect_port=redirecting, **files),
        listener("unix:socket"),
        listener("systemd:web"),
        bridge("/who", 'echo "$REMOTE_ADDR $HTTPS"'),
        prefix=(sys.executable, "-S", "-E", "-c", PASSED, str(passed)),
    )
    listeners = (
        ({}, "127.0.0.1 "),
        ({"port": secure, "tls": certificates.context()}, "127.0.0.1 on"),
        ({"unix": tmp_path / "socket"}, "unix-socket "),
        ({"port": passed}, "127.0.0.1 "),
    )
    for where, said in listeners:
        with server.connect("/who", **where) as client:
            assert client.receive_text() == said
    answer = server.get("/who?x", port=redirecting, headers=[("Host", "127.0.0.1")])
    assert answer.value("Location") == f"https://127.0.0.1:{secure}/who?x"
    lines = re.findall(r"Starting (?:WebSocket|redirect) server +: (\S.*)", server.log)
    assert lines == [
        f"ws://127.0.0.1:{server.port}/",
        f"wss://127.0.0.1:{secure}/",
        f"http://127.0.0.1:{redirecting}/",
        f"unix socket at {tmp_path}/socket",
        f"ws://127.0.0.1:{passed}/",
    ]
    server.stop()
    assert not (tmp_path / "socket").exists()


def test_default_listener(configured: Configure) -> None:
    """Without a listener, a file describes a server on port 8080 of every address; other processes may use that port during the test."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with_luck = taken.connect_ex(("127.0.0.1", 8080)) != 0
    if not with_luck:
        pytest.skip("port 8080 is in use")
    server = configured(bridge("/", "echo hello"))
    assert server.port == 8080


# The file


def test_relative_names(configured: Configure, certificates: Certificates, tmp_path: Path) -> None:
    """A relative name is relative to the file that contains it, whatever the working directory is."""
    for name in ("etc/conf.d/site", "etc/scripts", "etc/cgi"):
        (tmp_path / name).mkdir(parents=True)
    write_script(tmp_path / "etc/hello", "echo hello")
    write_script(tmp_path / "etc/scripts/there", "echo there")
    write_script(tmp_path / "etc/cgi/names", TEXT + NAMES)
    (tmp_path / "etc/conf.d/site/page.txt").write_text("page\n")
    for name in ("server.pem", "server.key"):
        (tmp_path / "etc" / name).write_bytes((certificates.folder / name).read_bytes())
    (tmp_path / "etc/conf.d/more.toml").write_text(
        "\n\n".join([endpoint("files", "/files", files="site"), bridge("/more", "echo more"), listener("unix:socket")])
    )
    server = configured(
        'include = "conf.d/*.toml"',
        listener(certificate="server.pem", key="server.key"),
        endpoint("bridge", "/hello", command=["./hello"]),
        endpoint("bridge", "/scripts", scripts="scripts"),
        endpoint("cgi", "/cgi", cgi="./cgi"),
        name="etc/wsbridge.toml",
        cwd="/",
        tls=certificates.context(),
    )
    for path, said in (("/hello", "hello"), ("/scripts/there", "there"), ("/more", "more")):
        with server.connect(path) as client:
            assert client.receive_text() == said
    assert server.get("/files/page.txt").body == b"page\n"
    assert server.get("/cgi/names").body == b"/cgi/names||/cgi/names\n"
    with server.connect("/more", unix=tmp_path / "etc/conf.d/socket", tls=None) as client:
        assert client.receive_text() == "more"


def test_every_fault_is_printed(tmp_path: Path) -> None:
    """The server does not start with faults in its file: each fault is one line that names its place, and the exit status is 1."""
    file = tmp_path / "wsbridge.toml"
    file.write_text(
        "\n\n".join(
            [
                listener("127.0.0.1:port"),
                endpoint("bridge", "/a", command=["nosuchprogram"], max_programs="ten"),
                endpoint("bridg", "/b", command=["cat"]),
                endpoint("files", "/a", files="nowhere"),
                channel("/c", "c", broker="main", hosts=["a b"]),
            ]
        )
    )
    ran = run("serve", str(file))
    assert (ran.returncode, ran.stdout) == (1, "")
    lines = ran.stderr.splitlines()
    expected = (
        r":2: listen\[1\]\.address: .*127\.0\.0\.1:port",
        r":\d+: endpoint\[1\]\.command: .*nosuchprogram",
        r':\d+: endpoint\[1\]\.max_programs: expected an integer, got "ten"',
        r':\d+: endpoint\[2\]\.kind: .*did you mean "bridge"',
        r":\d+: endpoint\[3\]\.path: .*has the path \"/a\" already",
        r":\d+: endpoint\[3\]\.files: .*nowhere is not a directory",
        r":\d+: endpoint\[4\]\.broker: there is no \[broker\.main\]",
        r":\d+: endpoint\[4\]\.hosts\[1\]: a b is not a host name",
    )
    assert [want for want in expected if not any(re.search(want, line) for line in lines)] == [], ran.stderr
    assert all(line.startswith(f"{file}:") for line in lines)


@pytest.mark.parametrize("words", [(), ("a.toml", "b.toml")])
def test_one_file(words: tuple[str, ...]) -> None:
    """`serve` needs exactly one file."""
    ran = run("serve", *words)
    assert ran.returncode == 2
    assert "FILE" in ran.stderr


def test_port_in_use(tmp_path: Path) -> None:
    """If another process uses a port, the server reports it, exits with 3, and closes the listeners that were open."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        file = tmp_path / "wsbridge.toml"
        tables = (listener("unix:socket"), listener(f"127.0.0.1:{taken.getsockname()[1]}"), bridge("/", "exec cat"))
        file.write_text("\n\n".join(tables))
        ran = run("serve", str(file))
    assert ran.returncode == 3
    assert "address already in use" in ran.stdout
    assert "Starting WebSocket server" not in ran.stdout
    assert not (tmp_path / "socket").exists()


@pytest.mark.parametrize("kept_in", ["variable", "file"])
def test_secrets(tmp_path: Path, kept_in: str) -> None:
    """The address of a broker may be in a variable or in a file. Neither the log nor an error shows its password."""
    url = f"amqp://user:hunter2@127.0.0.1:{free_port()}/"
    (tmp_path / "secret").write_text(url + "\n")
    source = {"env": "RABBIT_URL"} if kept_in == "variable" else {"file": "secret"}
    file = tmp_path / "wsbridge.toml"
    tables = (
        table("[server]", log_level="debug"),
        listener(),
        channel("/temps", "temps", broker="main"),
        table("[broker.main]", url=source, timeout=2),
    )
    file.write_text("\n\n".join(tables))
    ran = run("serve", str(file), env={"RABBIT_URL": url})
    assert ran.returncode == 4
    assert "127.0.0.1" in ran.stdout
    assert "hunter2" not in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("source", "content", "complaint"),
    [
        ({"env": "RABBIT_URL"}, None, "the environment variable RABBIT_URL is not set"),
        ({"env": "RABBIT_URL"}, "http://user:hunter2@host/", "not a broker URL"),
        ({"file": "secret"}, "amqp://user:hunt/er2@host/", "has an @ after its host"),
        ({"file": "none"}, "hunter2", "none: no such file"),
        ({"env": "RABBIT_URL", "file": "secret"}, "hunter2", "got both"),
    ],
)
def test_invalid_secrets(tmp_path: Path, source: dict[str, str], content: str | None, complaint: str) -> None:
    """An error about a secret names its source and the fault, but not its value."""
    (tmp_path / "secret").write_text(content or "")
    file = tmp_path / "wsbridge.toml"
    file.write_text("\n\n".join([channel("/temps", "temps", broker="main"), table("[broker.main]", url=source)]))
    ran = run("serve", str(file), env={"RABBIT_URL": content})
    assert ran.returncode == 1
    assert complaint in ran.stderr
    assert "hunt" not in ran.stdout + ran.stderr


# Files that are never served


def test_private_files(configured: Configure, certificates: Certificates, tmp_path: Path) -> None:
    """No endpoint serves another endpoint's programs, keys and secrets, or the configuration, as files. Other files there are served."""
    for name in ("bin", "scripts", "cgi", "conf.d"):
        (tmp_path / name).mkdir()
    for name in ("bin/count", "bin/publish", "scripts/hello", "cgi/names"):
        write_script(tmp_path / name, "echo; echo hello; exec cat")
    for name in ("server.pem", "server.key"):
        (tmp_path / name).write_bytes((certificates.folder / name).read_bytes())
    (tmp_path / "library.sh").write_text("echo")
    (tmp_path / "scripts/page.html").write_text("beside the scripts")
    (tmp_path / "linked").symlink_to("bin/count")
    (tmp_path / "url").write_text(f"amqp://user:hunter2@127.0.0.1:{free_port()}/")
    (tmp_path / "conf.d/more.toml").write_text(bridge("/more", "echo more"))
    server = configured(
        'include = "conf.d/*.toml"',
        listener(),
        listener(f"127.0.0.1:{free_port()}", certificate="server.pem", key="server.key"),
        endpoint("files", "/files", files="."),
        endpoint("bridge", "/count", command=["./bin/count"]),
        endpoint("bridge", "/sourced", command=["sh", "-c", f". {tmp_path}/library.sh"]),
        endpoint("bridge", "/scripts", scripts="scripts"),
        endpoint("cgi", "/cgi", cgi="cgi"),
        endpoint("broadcast", "/temps", exchange="temps", command=["./bin/publish"]),
        table("[broker.main]", url={"file": "url"}),
    )
    private = ("bin/count", "bin/publish", "linked", "scripts/hello", "cgi/names", "server.key", "library.sh")
    secret = ("url", "wsbridge.toml", "conf.d/more.toml")
    assert {name: server.get(f"/files/{name}").status for name in (*private, *secret)} == dict.fromkeys((*private, *secret), 404)
    assert server.get("/files/scripts/page.html").status == 200
    assert server.get("/files/server.pem").status == 200
    listing = server.get("/files/").body.decode()
    assert [name for name in (*private, *secret) if f'"./{name}"' in listing] == []


# The log and the shutdown


def test_log_names_each_endpoint(configured: Configure, tmp_path: Path) -> None:
    """The log of the start has a line for each endpoint, with its path."""
    for name in ("scripts", "cgi", "public"):
        (tmp_path / name).mkdir()
    server = configured(
        listener(),
        bridge("/count", "exec cat"),
        endpoint("bridge", "/scripts", scripts="scripts"),
        endpoint("cgi", "/cgi", cgi="cgi"),
        endpoint("files", "/files", files="public"),
        channel("/temps", "temps", "exec sleep 1000"),
        endpoint("console", "/console", target="/count"),
        bridge("/", "exec cat", hosts=["a.example"]),
    )
    said = {
        "/count": "Serving using application   : ",
        "a.example/": "Serving using application   : ",
        "/scripts": f"Serving from directory      : {tmp_path}/scripts",
        "/cgi": f"Serving CGI scripts from    : {tmp_path}/cgi",
        "/files": f"Serving static content from : {tmp_path}/public",
        "/temps": "Broadcasting exchange       : temps",
    }
    for path, text in said.items():
        assert re.search(rf"endpoint:'{path}' \| {re.escape(text)}", server.log), server.log
    assert f"Developer console           : http://127.0.0.1:{server.port}/console/" in server.log


def test_shutdown(configured: Configure, tmp_path: Path) -> None:
    """At a shutdown, the sessions of all endpoints end with 1001 and their programs by the ladder; exit status 0."""
    (tmp_path / "cgi").mkdir()
    write_script(tmp_path / "cgi/slow", f"{TEXT}echo $$; exec sleep 1000")
    server = configured(
        listener(),
        endpoint("bridge", "/a", command=[*command("witness", tmp_path / "a", "INT")]),
        endpoint("bridge", "/b", command=[*command("witness", tmp_path / "b", "TERM")]),
        channel("/c", "c", "echo $$; exec sleep 1000", join="history"),
        endpoint("cgi", "/cgi", cgi="cgi"),
    )
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect(path)) for path in ("/a", "/b", "/c")]
        pids = [int(client.receive_text()) for client in clients]
        events = stack.enter_context(listen(server, "/c/events"))
        slow = stack.enter_context(open_stream(port=server.port))
        slow.send(request_bytes("GET", "/cgi/slow", [("Host", "localhost")]))
        slow.read_until(b"\r\n\r\n")
        slow.read_until(b"\r\n")
        pids.append(int(slow.read_until(b"\n")))
        with mortal(*pids):
            server.send_signal(signal.SIGTERM)
            assert [client.receive_close() for client in clients] == [Close(1001, "server is shutting down")] * 3
            events.stream.wait_for_end()
            slow.wait_for_end()
            assert server.wait() == 0
            assert [pid for pid in pids if is_alive(pid)] == []


def test_many_endpoints(configured: Configure) -> None:
    """One process serves 200 endpoints."""
    server = configured(listener(), *(bridge(f"/of/{number}", f"echo {number}; exec cat") for number in range(200)))
    assert len(re.findall(r"endpoint:'/of/\d+' \| Serving using application", server.log)) == 200
    for number in (0, 1, 99, 198, 199):
        with server.connect(f"/of/{number}/x") as client:
            assert client.receive_text() == str(number)
    assert server.refusal("/of/200").status == 404
    assert server.refusal("/of").status == 404
