"""The configuration files: each is valid without changes, and serves what its header describes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.examples.machine import Machine
from tests.support.chromium import Chromium
from tests.support.client import connect, request
from tests.support.server import ROOT, Bridge, Server, environment, free_port, listens, wait_until

SERVE = Bridge("wsbridge", (sys.executable, "-m", "wsbridge", "serve"), takes_port_zero=True)
FILES = sorted(
    path.name if path.parent.name == "serve" else f"{path.parent.name}/{path.name}" for path in (ROOT / "examples/serve").rglob("*.toml")
)


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A copy of the examples, with other ports and certificates."""
    return Path(shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("*.pem")))


def edited(file: Path, **changes: object) -> Path:
    """Replace the values of keys in a file; return the file."""
    text = file.read_text()
    for key, value in changes.items():
        text, count = re.subn(rf"^{key} = (\"[^\"]*\"|\d+)", f"{key} = {value!r}", text, flags=re.MULTILINE)
        assert count == 1, key
    file.write_text(text)
    return file


@contextmanager
def serving(file: Path, *flags: str, **options: object) -> Iterator[Server]:
    """Serve a configuration file at a free port."""
    with Server(*flags, str(edited(file, address="127.0.0.1:0")), bridge=SERVE, listen=(), **options) as server:  # type: ignore[arg-type]
        yield server


def head(file: Path) -> list[str]:
    """Return the commands in the comment at the start of a file."""
    text = re.sub(r" \\\n# +", " ", file.read_text())
    lines = [line.removeprefix("#     ") for line in text.splitlines() if line.startswith("#     ")]
    return [line.partition("   ")[0] for line in lines if not line.startswith("(")]


@pytest.mark.parametrize("name", [name for name in FILES if "conf.d" not in name])
def test_command(name: str) -> None:
    """The comment at the start of a file has the command that serves it from the repository."""
    command = next(command for command in head(ROOT / "examples/serve" / name) if command.startswith("wsbridge"))
    assert shlex.split(command)[-1] == f"examples/serve/{name}"


@pytest.mark.parametrize("name", ["panel.toml", "channels.toml", "site/wsbridge.toml", "nginx/wsbridge.toml"])
def test_valid(name: str) -> None:
    """The file is valid without changes."""
    words = [sys.executable, "-m", "wsbridge", "check", f"examples/serve/{name}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


async def test_panel(examples: Path, machine: Machine, browser: Chromium) -> None:
    """panel.toml serves the pages of the plugins, and each page reaches its script."""
    machine.systemd(cron="active running Regular jobs")
    with serving(examples / "serve/panel.toml") as server:
        page = await browser.open(f"http://127.0.0.1:{server.port}/cpu/")
        await page.wait_for("document.body.dataset.state === 'open' && busyPlot.points.length")
        for name in ("cpu", "logs", "services"):
            with server.connect(f"/{name}/{name}.sh", origin=f"http://127.0.0.1:{server.port}") as client:
                assert client.receive_text().startswith('{"type":')
            assert b"#!" not in server.get(f"/{name}/{name}.sh").body
            assert server.refusal(f"/{name}/{name}.sh", origin="http://evil.example").status == 403
        assert page.errors == []


def test_channels(examples: Path) -> None:
    """channels.toml serves two channels with a page each, and a console for the chat."""
    with serving(examples / "serve/channels.toml") as server:
        assert b"wsbridge.js" in server.get("/temps/plot.html").body
        assert server.get("/temps/wsbridge.js").status == 200
        assert server.get("/temps/sensor.py").status == 404
        assert server.get("/talk/chat.html").status == 200
        assert b'data-target="../talk"' in server.get("/console/").body
        with server.connect("/temps") as client:
            assert client.receive_text().startswith('{"time":')
        with server.connect("/talk") as client, server.connect("/talk") as other:
            client.send_text("The kettle is on.")
            assert other.receive_text() == "The kettle is on."
        with server.connect("/talk") as late:
            assert late.receive_text() == "The kettle is on."


def test_tls(examples: Path) -> None:
    """tls.toml serves TLS with the certificate from the command in its header, redirects plain HTTP, and reloads it on SIGHUP."""
    file, redirects = examples / "serve/tls.toml", free_port()
    make_certificate = shlex.split(head(file)[0].replace("examples/", f"{examples}/"))
    subprocess.run(make_certificate, check=True, capture_output=True)
    first = (examples / "serve/cert.pem").read_text()
    trust = ssl.create_default_context(cadata=first)
    with serving(edited(file, redirect_port=redirects), tls=trust) as server:
        answer = request("GET", "/some/path", port=redirects)
        assert (answer.status, answer.value("Location")) == (301, f"https://127.0.0.1:{server.port}/some/path")
        with server.connect() as client:
            client.send_text("Ada")
            assert "Ada" in client.receive_text()
            subprocess.run(make_certificate, check=True, capture_output=True)
            server.send_signal(signal.SIGHUP)
            server.wait_for_log(r"reloaded .*: changed certificate of listener")
            client.send_text("Grace")
            assert "Grace" in client.receive_text()
        with pytest.raises(ssl.SSLCertVerificationError):
            server.get()


def test_site(examples: Path) -> None:
    """site/ serves an endpoint for each file in conf.d; with --watch, a new file adds an endpoint."""
    folder = examples / "serve/site"
    with serving(folder / "wsbridge.toml", "--watch") as server, server.connect("/greeter") as client:
        for file in ("count.toml", "greeter.toml"):
            assert server.get(f"/{file.removesuffix('.toml')}/").status == 200
        assert server.get("/chat/").status == 404
        (folder / "conf.d/chat.toml").write_text('[[endpoint]]\npath = "/chat"\nkind = "bridge"\ncommand = "../../../chat.sh"\n')
        server.wait_for_log(r"reloaded .*wsbridge.toml: added /chat$")
        assert server.get("/chat/").status == 200
        client.send_text("Ada")
        assert "Ada" in client.receive_text()


@contextmanager
def nginx(folder: Path, port: int) -> Iterator[None]:
    """Run nginx with the nginx.conf of a folder."""
    words = ["nginx", "-e", "stderr", "-p", str(folder), "-c", "nginx.conf"]
    if os.geteuid() == 0:
        # The processes of nginx would run as another user, which may not open the socket.
        words += ["-g", "user root;"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            wait_until(lambda: process.poll() is not None or listens(process.pid, port), "nginx")
            yield
        finally:
            process.terminate()


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx(examples: Path, tmp_path: Path) -> None:
    """nginx/ serves the endpoints behind nginx, below the paths of the public site, and only to pages of that site."""
    folder, port = examples / "serve/nginx", free_port()
    for name in ("wsbridge.toml", "nginx.conf"):
        text = (folder / name).read_text().replace("/tmp/", f"{tmp_path}/").replace("127.0.0.1:8080", f"127.0.0.1:{port}")
        (folder / name).write_text(text)
    assert shlex.split(head(folder / "wsbridge.toml")[1])[:3] == ["nginx", "-e", "stderr"]
    socket = tmp_path / "wsbridge-example.sock"
    with Server(str(folder / "wsbridge.toml"), bridge=SERVE, listen=(), unix=socket) as server, nginx(folder, port):
        assert request("GET", "/count/", port=port).status == 200
        moved = request("GET", "/temps", port=port, headers=[("Host", f"site.example:{port}")])
        assert (moved.status, moved.value("Location")) == (301, "/temps/")
        with connect("/temps", port=port, origin=f"http://127.0.0.1:{port}") as client:
            assert client.receive_text().startswith('{"time":')
        with connect("/count", port=port, origin="http://site.example", headers=[("Host", "site.example")]) as client:
            assert client.receive_text() == "1"
        server.wait_for_log("url:'http://site.example/count' .*remote:'127.0.0.1'.* CONNECT")
        assert request("GET", "/elsewhere", port=port).status == 404


PAGE = ROOT / "docs/configuration.md"
BLOCKS = [
    block
    for page in (PAGE, ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for block in re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    if "[[rule]]" not in block
]
"""The examples of configuration files in the documentation, without the file for Taplo."""
OF_THE_MACHINE = r"no such file|is not a directory|cannot read|is not set|there is no group|nothing to serve"
"""Parts of the faults that remain in an example because its files, secrets or other tables do not exist."""


def test_page(tmp_path: Path) -> None:
    """The first file in docs/configuration.md works as the page says, and a change of it causes the documented log line."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    file = tmp_path / "wsbridge.toml"
    file.write_text(BLOCKS[0])
    done = subprocess.run([*SERVE.command[:-1], "check", file.name], cwd=tmp_path, env=environment({}), capture_output=True, text=True)
    assert f"prints `{done.stdout.strip()}`" in PAGE.read_text()
    edited(file, address="127.0.0.1:0")
    with Server("--watch", file.name, bridge=SERVE, listen=(), cwd=tmp_path) as server:
        assert b'data-target="../count"' in server.get("/console/").body
        with server.connect("/temps") as client:
            assert client.receive_text().startswith('{"time":')
        file.write_text(file.read_text().replace('"10"', '"100"'))
        line = server.wait_for_log(r"\| INFO   \| server     \|  \| reloaded .*$")[0]
        assert line in PAGE.read_text()


@pytest.mark.parametrize("block", dict.fromkeys(BLOCKS))
def test_examples_of_pages(block: str, tmp_path: Path) -> None:
    """wsbridge accepts each key and value of the examples in the documentation."""
    file = tmp_path / "wsbridge.toml"
    file.write_text(block)
    done = subprocess.run([*SERVE.command[:-1], "check", str(file)], env=environment({}), capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if not re.search(OF_THE_MACHINE, line)] == []
