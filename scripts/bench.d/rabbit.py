"""A RabbitMQ node for measurements: Debian's rabbitmq-server with its own ports, folder and epmd, as the current user.

It shares nothing with a service on the same machine. It ends with this process in any case, because the kernel then kills it.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Self

from serving import free_port

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""RabbitMQ's own script. Debian's script in /usr/sbin switches to the user rabbitmq, or fails."""

MISSING = "" if SERVER.exists() else "RabbitMQ is not installed (Debian: apt-get install rabbitmq-server)."

START_DEADLINE = 60.0
"""Seconds. On two idle cores, a start takes four."""

MORTAL = ("setpriv", "--pdeathsig", "KILL")


class Broker:
    """The node of a run, a context manager; it starts when its URL is first needed."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    @cached_property
    def url(self) -> str:
        return self._stack.enter_context(node())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()


@contextmanager
def node() -> Iterator[str]:
    """Run a node; yield its URL when it answers."""
    with tempfile.TemporaryDirectory(prefix="wsbridge-bench-rabbit-", ignore_cleanup_errors=True) as folder:
        port, epmd_port = free_port(), free_port()
        environment = settings(Path(folder), port, epmd_port)
        with (
            running(["epmd", "-port", str(epmd_port), "-address", "127.0.0.1"], environment),
            running([str(SERVER)], environment) as server,
        ):
            deadline = time.monotonic() + START_DEADLINE
            while not answers(port):
                if server.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"RabbitMQ did not start: {(Path(folder) / 'output').read_text(errors='replace')[-2000:]}")
                time.sleep(0.05)
            yield f"amqp://guest:guest@127.0.0.1:{port}/"


def settings(folder: Path, port: int, epmd_port: int) -> dict[str, str]:
    """Return the environment of a node in a folder; for all other settings, RabbitMQ's defaults apply."""
    cookie = folder / ".erlang.cookie"
    cookie.write_text(os.urandom(10).hex())
    cookie.chmod(0o400)
    (folder / "plugins").write_text("[].")
    return {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd_port),
        "RABBITMQ_ALLOW_INPUT": "1",  # the script then becomes the node
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_CONFIG_FILE": str(folder / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_NODENAME": "bench@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -kernel inet_dist_use_interface {127,0,0,1}",
    }


@contextmanager
def running(words: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program whose output goes to its folder, and kill it at the end, since none of its data is needed later."""
    with (Path(environment["HOME"]) / "output").open("ab") as output:
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        with subprocess.Popen([*MORTAL, *words], env=environment, cwd=environment["HOME"], **streams) as process:
            try:
                yield process
            finally:
                process.kill()


def answers(port: int) -> bool:
    """Return whether a server answers the AMQP protocol header: its first frame is a method's."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(b"AMQP\0\0\x09\x01")
        return client.recv(1) == b"\1"
    return False
