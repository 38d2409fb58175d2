"""Every kind of endpoint with every setting, served; and command lines with every flag, whose files are served as well.

tests/config/samples.py has a value of each setting, none of which is the default.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.config.samples import samples
from tests.config.test_write import everything
from tests.support.configured import SERVE, Configured
from tests.support.rabbit import Broker
from tests.support.server import Server, free_port, run
from tests.support.site import TEXT, Certificates, assert_sound, write_script
from wsbridge.cli.option import Option
from wsbridge.cli.options import BRIDGE_GROUPS, BROADCAST_GROUPS, Groups
from wsbridge.config.convert import convert
from wsbridge.config.document import read_document
from wsbridge.config.write import secrets_of, write
from wsbridge.settings import ServerSettings
from wsbridge.settings.declare import fields_of
from wsbridge.settings.endpoint import KINDS, parts_of

HOST = ("Host", "a.example")
CERTIFICATES = {"certificate": "server.pem", "key": "server.key", "client_ca": "ca.pem"}
"""The settings of a listener that are files, each with the name of its file."""
OTHERS = {"dir", "through", "passive"}
"""Flags that exclude other flags of the same command line."""


@pytest.fixture
def values(tmp_path: Path, broker: Broker, certificates: Certificates) -> dict[str, Any]:
    """A value of each setting, with which a server can start on this machine."""
    folders = {name: tmp_path / name for name in ("files", "cgi", "scripts")}
    for folder in folders.values():
        folder.mkdir()
    (folders["files"] / "a.txt").write_text("a file\n")
    write_script(folders["cgi"] / "hello", TEXT + "echo hello")
    write_script(folders["scripts"] / "echo", "exec cat")
    return {
        **samples(tmp_path, folders["scripts"] / "echo"),
        **{name: str(folder) for name, folder in folders.items()},
        **{name: str(certificates.folder / file) for name, file in CERTIFICATES.items()},
        "exchange": tmp_path.name,
        "origins": ("a.example", "https://b.com:81"),
        "url": (broker.url,),
        "address": "127.0.0.1:0",
        "redirect_port": free_port(),
        "owner": str(os.getuid()),
        "group": str(os.getgid()),
        "target": "/bridge0",
        # At most 5 sessions and 3 viewers are open at a time; a program may run for each of them.
        "max_programs": 7,
        # A client of a test has one chance to send its request.
        "keepalive_timeout": 30.0,
        # Room for one message.
        "spool": 500,
        "queue": 200,
        "max_body": 5,
        "body_timeout": 30.0,
    }


@pytest.fixture
def made(values: dict[str, Any], tmp_path: Path) -> ServerSettings:
    """The settings of a server with every kind and every setting."""
    made = everything(values)
    first, second = made.listeners
    unix = msgspec.structs.replace(second, address=f"unix:{tmp_path}/socket")
    other = msgspec.structs.replace(made.brokers["other"], url=values["url"])
    return msgspec.structs.replace(made, listeners=(first, unix), brokers={**made.brokers, "other": other})


@pytest.fixture
def server(made: ServerSettings, tmp_path: Path) -> Iterator[Configured]:
    with Configured(tmp_path / "wsbridge.toml", write(made), env=secrets_of(made)) as server:
        yield server
    assert_sound(server)


def test_file_with_every_setting_is_served(server: Configured, made: ServerSettings) -> None:
    """A server serves every kind of endpoint with every setting."""
    assert {endpoint.kind for endpoint in made.endpoints} == KINDS.keys()
    for path in ("/bridge0/echo", "/bridge1"):
        with server.connect(path, headers=[HOST], origin="http://a.example", subprotocols=["b"]) as client:
            client.send_text("hello")
            assert "hello" in client.receive_text()
    for path in ("/broadcast0", "/broadcast1"):
        with server.connect(path, headers=[HOST], origin="http://a.example", subprotocols=["b"]):
            pass
        answer = server.get(f"{path}/status", headers=[HOST, ("Origin", "http://a.example")])
        assert "json" not in (answer.value("Content-Type") or "")
    for path in ("/files0", "/files1"):
        assert server.get(f"{path}/a.txt", headers=[HOST]).body == b"a file\n"
    assert server.get("/cgi0/hello", headers=[HOST]).body == b"hello\n"
    for path in ("/bridge0/", "/console0/", "/console1/"):
        answer = server.get(path, headers=[HOST])
        assert (answer.status, answer.value("A")) == (200, "b")
    assert server.get("/files0/a.txt", headers=[("Host", "c.example")]).status == 403


@pytest.mark.parametrize(("shape", "groups"), [("bridge", BRIDGE_GROUPS), ("broadcast", BROADCAST_GROUPS)])
def test_command_line_with_every_flag_is_a_file(
    shape: str, groups: Groups, values: dict[str, Any], certificates: Certificates, tmp_path: Path
) -> None:
    """`wsbridge config` prints a file with the value of each flag, and a server serves that file."""
    given = {**values, "framing": "lines" if shape == "bridge" else "nul", "through": False, "console": False}
    options = [option for group in groups.values() for option in group if option.field is not None and option.name not in OTHERS]
    words = [word for option in options for word in flag(option, given[option.field.name])]
    port = free_port()
    done = run(
        "config", shape, f"--port={port}", "--address=127.0.0.1", "--unixsocket=socket", "--ssl", *words, *given["command"], cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr

    secrets = {"WSBRIDGE_BROKER": ",".join(given["url"])}
    made = convert(read_document(str(write_file(tmp_path, done.stdout))), environ=secrets)
    assert isinstance(made, ServerSettings)
    found = found_in(made)
    assert {option.name: found[option.field.name] for option in options} == {option.name: given[option.field.name] for option in options}

    with Server("wsbridge.toml", bridge=SERVE, listen=(), cwd=tmp_path, env=secrets, tls=certificates.context("client")) as server:
        server.port = port
        with server.connect("/", headers=[HOST], origin="https://a.example", subprotocols=["b"]) as client:
            client.send_text("hello")
            assert "hello" in client.receive_text()
    assert_sound(server)


def flag(option: Option, value: Any) -> Iterator[str]:
    """Yield a setting as words of the command line."""
    match value:
        case tuple():
            texts = value if option.is_repeatable else (",".join(value),)
        case bool():
            texts = (str(value is not option.name.startswith("no-")).lower(),)
        case float():
            texts = (f"{value!r}s",)
        case _:
            texts = (str(value),)
    for text in texts:
        yield f"--{option.name}={text}"


def found_in(made: ServerSettings) -> dict[str, Any]:
    """Return the settings of a server with one endpoint, by their names."""
    (endpoint,) = made.endpoints
    parts = [endpoint, *(getattr(endpoint, name) for name, _, _ in parts_of(type(endpoint)))]
    parts += [made.server, *made.brokers.values(), *made.listeners]
    found: dict[str, Any] = {}
    for part in parts:
        for field in fields_of(type(part)):
            value = getattr(part, field.name)
            if value != field.default or field.name not in found:
                found[field.name] = value
    return found


def write_file(folder: Path, text: str) -> Path:
    file = folder / "wsbridge.toml"
    file.write_text(text)
    return file
