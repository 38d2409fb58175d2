"""Servers of a configuration file: `wsbridge serve FILE`. A test writes the file as tables, and changes it while the server runs."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Bridge, Server, wait_until
from tests.support.site import assert_sound

SERVE = Bridge("wsbridge", (sys.executable, "-m", "wsbridge", "serve"), takes_port_zero=True)
VERDICT = re.compile(r"\| ((?:not )?reloaded.*)$", re.MULTILINE)
"""The log's text at the end of each reload."""

Value = str | bool | int | float | Path | Sequence[Any] | Mapping[str, Any]


class Configured(Server):
    """A server of a configuration file, which it writes before the start. Options are those of Server.

    `flags` precede the name of the file, such as `--watch`.
    """

    def __init__(self, file: Path, *tables: str, flags: Sequence[str] = (), bridge: Bridge = SERVE, **options: Any) -> None:
        super().__init__(*flags, str(file), bridge=bridge, listen=(), **options)
        self.file = file
        self.write(*tables)

    def write(self, *tables: str) -> None:
        """Replace the file in one step, as most editors do."""
        new = self.file.with_suffix(".new")
        new.write_text("\n\n".join(tables) + "\n")
        os.replace(new, self.file)

    def reload(self, *tables: str) -> str:
        """Replace the file, send a reload signal, and return the log's text about the reload."""
        self.write(*tables)
        return self.hang_up()

    def hang_up(self) -> str:
        """Send a reload signal, and return the log's text about the reload."""
        before = len(self.verdicts)
        self.send_signal(signal.SIGHUP)
        return self.verdict(before)

    def verdict(self, number: int) -> str:
        """Wait for the reload of this number, counted from 0, and return the log's text about it."""
        wait_until(lambda: len(self.verdicts) > number, "the end of a reload")
        return self.verdicts[number]

    @property
    def verdicts(self) -> list[str]:
        """The log's text about each reload."""
        return VERDICT.findall(self.log)


Configure = Callable[..., Configured]


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[Configure]:
    """Starts a server of a configuration file for one test: `configured(listener(), bridge("/cat", "exec cat"))`."""
    servers: list[Configured] = []
    with ExitStack() as stack:

        def start(*tables: str, name: str = "wsbridge.toml", **options: Any) -> Configured:
            servers.append(Configured(tmp_path / name, *tables, **options))
            return stack.enter_context(servers[-1])

        yield start
    for server in servers:
        assert_sound(server)


def table(header: str, **keys: Value) -> str:
    """Return a table in TOML. The header has its brackets."""
    return "\n".join([header, *(f"{key} = {show(value)}" for key, value in keys.items())])


def listener(address: str = "127.0.0.1:0", **keys: Value) -> str:
    """Return the table of a listener."""
    return table("[[listen]]", address=address, **keys)


def endpoint(kind: str, path: str, **keys: Value) -> str:
    """Return the table of an endpoint."""
    return table("[[endpoint]]", kind=kind, path=path, **keys)


def shell(script: str) -> list[str]:
    """Return the command line of a shell program."""
    return ["sh", "-c", script]


def bridge(path: str, script: str, **keys: Value) -> str:
    """Return the table of an endpoint that runs a shell script for each client."""
    return endpoint("bridge", path, command=shell(script), **keys)


def channel(path: str, exchange: str, script: str | None = None, **keys: Value) -> str:
    """Return the table of a channel, whose program is a shell script. Without a program, its clients publish."""
    if script is None:
        return endpoint("broadcast", path, exchange=exchange, **{"input": "exchange", **keys})
    return endpoint("broadcast", path, exchange=exchange, command=shell(script), **keys)


def show(value: Value) -> str:
    """Return a value in TOML. JSON strings are TOML strings, if they are ASCII."""
    match value:
        case bool() | str():
            return json.dumps(value)
        case Path():
            return json.dumps(str(value))
        case int() | float():
            return str(value)
        case Mapping():
            return "{ " + ", ".join(f"{key} = {show(item)}" for key, item in value.items()) + " }"
    return "[" + ", ".join(map(show, value)) + "]"
