"""broadcast/bro.md: its commands work, and its statements about old and new programs on one exchange hold, with a real RabbitMQ."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.deadline import scaled
from tests.examples.conftest import BROADCAST
from tests.support.client import DEADLINE, Close
from tests.support.rabbit import Broker, bro_consume, bro_publish
from tests.support.server import ROOT, Server
from tests.support.site import NEW_CERTIFICATE

PAGE = (ROOT / "examples/broadcast/bro.md").read_text()
SERVERS = re.findall(r"^wsbridge broadcast (.*)$", PAGE, re.MULTILINE)
PUBLISHERS = re.findall(r"^(?:.*\| )?wsbridge publish .*$", PAGE, re.MULTILINE)
BROKER = "amqp://localhost/"
FIRST_LINES = ("procs", " r  b")
"""The beginnings of the first two lines of vmstat."""

exchanges = (f"mplayer-{number}" for number in itertools.count())


@pytest.fixture
def certificate(tmp_path: Path) -> list[str]:
    """A certificate of localhost and its key, as files."""
    files = [str(tmp_path / name) for name in ("server.crt", "server.key")]
    words = f"-subj /CN=localhost -addext subjectAltName=DNS:localhost -out {files[0]} -keyout {files[1]}"
    subprocess.run([*NEW_CERTIFICATE, *words.split()], check=True, capture_output=True)
    return files


def server_of(command: str, exchange: str, broker: Broker, certificate: list[str]) -> Server:
    """Return the server that a command of the page starts, with the port, names and files of the test."""
    words = shlex.split(command)
    assert words[words.index("--port") + 1] == "7777"
    words[words.index("--port") + 1] = "0"
    words[words.index("--exchange") + 1] = exchange
    words = [broker.url if word == BROKER else word for word in words]
    for flag, file in zip(("--sslcert", "--sslkey"), certificate, strict=True):
        if flag in words:
            words[words.index(flag) + 1] = file
    where = {"tls": ssl.create_default_context(cafile=certificate[0])} if "--ssl" in words else {}
    return Server(*words, bridge=BROADCAST, **where)


def shell_of(line: str, exchange: str, broker: Broker) -> subprocess.Popen[str]:
    """Run a shell command of the page in its own process group, with `wsbridge` in PATH."""
    return subprocess.Popen(
        ["bash", "-c", line.replace("mplayer", exchange).replace(BROKER, broker.url)],
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def publish(line: str, exchange: str, broker: Broker, text: str) -> None:
    """Run a shell command of the page with this text as its input."""
    with shell_of(line, exchange, broker) as shell:
        _, errors = shell.communicate(text, scaled(DEADLINE))
    assert (shell.returncode, errors) == (0, "")


@pytest.mark.parametrize("command", SERVERS)
def test_servers(command: str, broker: Broker, certificate: list[str]) -> None:
    """Each command for a server works: the server serves a WebSocket and a page, and sends the output of its program."""
    with server_of(command, next(exchanges), broker, certificate) as server:
        assert server.get("/").status == 200
        with server.connect() as client:
            if "vmstat" in command:
                assert client.receive_text().strip()
            else:
                client.send_text("What is the volume?")
                assert client.receive_close() == Close(1003, "this channel accepts no messages (--input)")


@pytest.mark.parametrize("line", PUBLISHERS)
async def test_publishers(line: str, broker: Broker) -> None:
    """Each shell command for publishing works, and an old consumer prints the messages."""
    exchange, bound = next(exchanges), asyncio.Event()
    consumer = asyncio.create_task(bro_consume(broker.url, exchange, 1, bound=bound))
    await bound.wait()
    if "vmstat" in line:
        # The command prints a line every second, without end.
        with shell_of(line, exchange, broker) as shell:
            try:
                assert (await consumer)[0].decode().startswith(FIRST_LINES)
            finally:
                os.killpg(shell.pid, signal.SIGINT)
    else:
        await asyncio.to_thread(publish, line, exchange, broker, "volume=50\n")
        assert await consumer == [b"volume=50"]


async def test_old_and_new_share_an_exchange(broker: Broker) -> None:
    """On one exchange, old publishers reach new browsers, and new publishers reach old consumers and new browsers; lines stay unchanged."""
    exchange, bound = next(exchanges), asyncio.Event()
    consumer = asyncio.create_task(bro_consume(broker.url, exchange, 3, bound=bound))
    await bound.wait()
    with Server(f"--exchange={exchange}", f"--broker={broker.url}", bridge=BROADCAST) as server, server.connect() as client:
        await bro_publish(broker.url, exchange, "Title: *  \n")
        assert await asyncio.to_thread(client.receive_text) == "Title: *"
        await bro_publish(broker.url, exchange, "one\ntwo\n")
        assert [await asyncio.to_thread(client.receive_text) for _ in range(2)] == ["one", "two"]
        await asyncio.to_thread(publish, PUBLISHERS[-1], exchange, broker, "a  b *\n")
        assert await asyncio.to_thread(client.receive_text) == "a  b *"
        with server.connect() as other:
            await bro_publish(broker.url, exchange, "to all")
            assert await asyncio.to_thread(other.receive_text) == await asyncio.to_thread(client.receive_text) == "to all"
    assert await consumer == [b"Title: *", b"one\ntwo", b"a  b *"]


async def test_replay_keeps_the_exchange(broker: Broker) -> None:
    """With --replay, the exchange stays the same: an old publisher and an old consumer continue to use it."""
    exchange, bound = next(exchanges), asyncio.Event()
    consumer = asyncio.create_task(bro_consume(broker.url, exchange, 1, bound=bound))
    await bound.wait()
    flags = (f"--exchange={exchange}", f"--broker={broker.url}", "--replay", "--join=history")
    with Server(*flags, bridge=BROADCAST) as server:
        await bro_publish(broker.url, exchange, "volume=50")
        with server.connect() as client:
            assert await asyncio.to_thread(client.receive_text) == "volume=50"
    assert await consumer == [b"volume=50"]


def test_durable_is_refused(broker: Broker) -> None:
    """On an exchange that bro has declared, --durable fails at the start with the error of RabbitMQ."""
    exchange = next(exchanges)
    asyncio.run(bro_publish(broker.url, exchange, "first"))
    with pytest.raises(AssertionError, match="PRECONDITION_FAILED"):
        Server(f"--exchange={exchange}", f"--broker={broker.url}", "--durable", bridge=BROADCAST).start()
