"""A reload changes what differs, while the rest serves on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.client import Close
from tests.support.server import WSBRIDGE, Server

FILE = """
[[listen]]
address = "127.0.0.1:0"

[[endpoint]]
path = "/kept"
kind = "bridge"
command = ["cat"]
"""
OTHER = '[[endpoint]]\npath = "/other"\nkind = "bridge"\ncommand = ["sh", "-c", "echo {word}; exec cat"]\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "wsbridge.toml"
    file.write_text(FILE + OTHER.format(word="old"))
    return file


def serving(file: Path, *flags: str) -> Server:
    return Server("serve", *flags, str(file), bridge=WSBRIDGE, listen=())


def test_reload(file: Path) -> None:
    """A changed endpoint has its new program for new clients, its old clients get 1012, and other clients notice nothing."""
    with serving(file) as server, server.connect("/kept") as kept, server.connect("/other") as other:
        assert other.receive_text() == "old"
        file.write_text(FILE + OTHER.format(word="new"))
        os.kill(server.pid, signal.SIGHUP)
        server.wait_for_log(f"reloaded {file}: changed /other")
        assert other.receive_close() == Close(1012, "the configuration has changed; reconnect")
        with server.connect("/other") as new:
            assert new.receive_text() == "new"
        kept.send_text("still here")
        assert kept.receive_text() == "still here"
        file.write_text(FILE)
        os.kill(server.pid, signal.SIGHUP)
        server.wait_for_log(f"reloaded {file}: removed /other")
        assert server.request("GET", "/other").status == 404


def test_invalid_file(file: Path) -> None:
    """An invalid file changes nothing; the next valid one is taken without a signal."""
    with serving(file, "--watch") as server, server.connect("/other") as other:
        file.write_text(FILE + OTHER.format(word="new") + "kind = 3\nmax_programs = 'ten'\n")
        server.wait_for_log("the server continues with its present configuration")
        file.write_text(FILE + OTHER.format(word="new") + "max_programs = 'ten'\nnothing = 1\n")
        server.wait_for_log(r"endpoint\[2\]\.max_programs: expected an integer")
        assert other.receive_text() == "old"
        file.write_text(FILE + OTHER.format(word="old"))
        server.wait_for_log("no endpoint and no listener has changed")
        other.send_text("x")
        assert other.receive_text() == "x"
