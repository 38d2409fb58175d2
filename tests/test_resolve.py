"""The settings in relation to this machine: programs, folders, users and the files of a broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsbridge.resolve import resolve
from wsbridge.settings import (
    BridgeSettings,
    BrokerSettings,
    FilesSettings,
    HttpSettings,
    ListenSettings,
    ProgramSettings,
    ServerSettings,
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a program in a folder."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/prog").write_text("#!/bin/sh\n")
    (tmp_path / "bin/prog").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_resolved(here: Path) -> None:
    """A program is searched in PATH, and the path of a folder becomes absolute."""
    endpoints = (BridgeSettings(program=ProgramSettings(command=("prog", "x"))), FilesSettings(http=HttpSettings(files="bin")))
    resolved, faults = resolve(ServerSettings(endpoints=endpoints), path=f"{here}/bin")
    assert faults == []
    assert resolved.endpoints == (
        BridgeSettings(program=ProgramSettings(command=(f"{here}/bin/prog", "x"))),
        FilesSettings(http=HttpSettings(files=f"{here}/bin")),
    )


def test_faults(here: Path) -> None:
    """The check reports every fault with its path."""
    settings = ServerSettings(
        endpoints=(
            BridgeSettings(program=ProgramSettings(command=("none",)), http=HttpSettings(files="nowhere", cgi="bin/prog")),
            BridgeSettings(program=ProgramSettings(scripts="bin")),
        ),
        listeners=(ListenSettings(address="unix:x", owner="nosuchuser", group="nosuchgroup"), ListenSettings(address="unix:y", owner="0")),
        brokers={"b": BrokerSettings(url=("amqp://a/", "amqps://b/?cafile=none.pem&keyfile=bin/prog&heartbeat=5"))},
    )
    _, faults = resolve(settings, path=f"{here}/bin")
    assert [(fault.path, fault.sentence) for fault in faults] == [
        (("endpoint", 0, "command"), "unable to locate specified <command> 'none' in OS path"),
        (("endpoint", 0, "files"), "<files>=nowhere is not a directory; create it, or correct the name"),
        (("endpoint", 0, "cgi"), "<cgi>=bin/prog is not a directory; name the directory instead of a file in it"),
        (("listen", 0, "owner"), "<owner>=nosuchuser: this machine has no such user; create it, or correct the name"),
        (("listen", 0, "group"), "<group>=nosuchgroup: this machine has no such group; create it, or correct the name"),
        (("broker", "b", "url"), "<url> (address 2 of 2): the cafile in its URL is not a file: none.pem"),
        (
            ("broker", "b", "url"),
            "<url> (address 2 of 2): the keyfile in its URL, bin/prog, cannot be used:"
            " it is not PEM: no line begins with -----BEGIN PRIVATE KEY-----",
        ),
    ]
