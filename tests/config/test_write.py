"""Settings as a configuration file: reading a written file restores the settings."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.config.files import Folder
from tests.config.samples import endpoint_of, samples, servers
from wsbridge.config.write import absolute, secrets_of, write
from wsbridge.errors import ConfigurationError
from wsbridge.settings import (
    BridgeSettings,
    BroadcastSettings,
    BrokerSettings,
    ChannelSettings,
    FilesSettings,
    HttpSettings,
    ListenSettings,
    ProcessSettings,
    ProgramSettings,
    ServerSettings,
)
from wsbridge.settings.declare import fields_of
from wsbridge.settings.endpoint import KINDS, settings_of


def values(folder: Folder) -> dict[str, Any]:
    return samples(folder.path / "public", folder.path / "count.sh")


def read_back(folder: Folder, made: ServerSettings) -> ServerSettings:
    return folder.settings(write(made), {"PATH": "/bin", **secrets_of(made)})


def everything(given: dict[str, Any]) -> ServerSettings:
    """Return a server with every kind of endpoint and every setting, except conflicting ones."""
    lines = {**given, "framing": "lines", "page": True, "durable": False, "through": False}
    other = {**given, "pass_stderr": False, "console": False, "passive": False, "scripts": "", "broker": "other"}
    scripts = {**lines, "command": ()}
    kinds = [endpoint_of(kind, {**one, "path": f"/{kind}{number}"}) for number, one in enumerate((lines, other)) for kind in KINDS]
    brokers = {
        name: BrokerSettings(url=url, **{key: given[key] for key in ("timeout", "confirm_timeout")})
        for name, url in {"main": given["url"], "other": ("amqp://h/",)}.items()
    }
    unix = {name: given[name] for name in ("mode", "owner", "group")}
    return ServerSettings(
        server=ProcessSettings(**{field.name: given[field.name] for field in fields_of(ProcessSettings)}),
        listeners=(
            ListenSettings(address=given["address"], redirect_port=given["redirect_port"]),
            ListenSettings(address="unix:/run/s", **unix),
        ),
        endpoints=tuple(
            endpoint_of("bridge", {**scripts, "path": "/bridge0"}) if endpoint.path == "/bridge0" else endpoint for endpoint in kinds
        ),
        brokers=brokers,
    )


def test_samples(folder: Folder) -> None:
    """Every setting has a sample that differs from the default."""
    given = values(folder)
    fields = [entry.field for kind in KINDS.values() for entry in settings_of(kind)]
    fields += [field for part in (ProcessSettings, ListenSettings, BrokerSettings) for field in fields_of(part)]
    certificates = {"certificate", "key", "client_ca"}
    assert {field.name for field in fields} - certificates == given.keys()
    assert [field.name for field in fields if field.name in given and given[field.name] == field.default] == []


def test_everything(folder: Folder) -> None:
    """Reading a file with every kind of endpoint and every setting restores the settings."""
    made = everything({**values(folder), "target": "/files0"})
    text = write(made)
    assert read_back(folder, made) == made
    missing = {name for name in values(folder) if f"\n{name} = " not in f"\n{text}"}
    assert missing == set()
    assert ":secret@" not in text


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_server(folder: Folder, data: st.DataObject) -> None:
    """Reading a written file restores any settings."""
    made = data.draw(servers(values(folder)))
    assert read_back(folder, made) == made


def test_defaults_are_not_written(folder: Folder) -> None:
    """The file contains only settings that differ from their defaults."""
    made = ServerSettings(
        endpoints=(FilesSettings(http=HttpSettings(files=f"{folder.path}/public")),), listeners=(ListenSettings(address=":8080"),)
    )
    assert write(made) == f'[[endpoint]]\npath = "/"\nkind = "files"\nfiles = "{folder.path}/public"\n'
    assert read_back(folder, made) == made


def test_text() -> None:
    """Sizes and times have units, and a long array has one item on each line."""
    channel = ChannelSettings(exchange="x", queue=65536, history_size=1000, broker="main", spool=3 * 1024**2)
    program = ProgramSettings(command=("/bin/" + "a" * 60, "b" * 60), drain=1.5, close_delay=90.0)
    text = write(ServerSettings(endpoints=(BroadcastSettings(channel=channel, program=program),)))
    tables = tomllib.loads(text)["endpoint"][0]
    assert tables == {
        "path": "/",
        "kind": "broadcast",
        "exchange": "x",
        "history_size": 1000,
        "queue": "64KiB",
        "broker": "main",
        "spool": "3MiB",
        "command": list(program.command),
        "close_delay": "90s",
        "drain": "1500ms",
    }
    assert f'command = [\n    "{program.command[0]}",\n    "{program.command[1]}",\n]' in text


def test_no_effect() -> None:
    """A setting without effect is not written: the file would be invalid."""
    channel = ChannelSettings(exchange="x", spool=5, replay_size=5)
    program = ProgramSettings(pty_size="80x24", framing="nul")
    (table,) = tomllib.loads(write(ServerSettings(endpoints=(BroadcastSettings(channel=channel, program=program),))))["endpoint"]
    assert table == {"path": "/", "kind": "broadcast", "exchange": "x"}


@pytest.mark.parametrize(
    ("urls", "variables"),
    [
        (("amqp://h/",), {}),
        (("amqp://user@h/", "amqp://h/"), {}),
        (("amqp://h/", "amqp://u:secret@h/"), {"WSBRIDGE_BROKER_A_B": "amqp://h/,amqp://u:secret@h/"}),
    ],
)
def test_secrets(folder: Folder, urls: tuple[str, ...], variables: dict[str, str]) -> None:
    """The file names a variable in place of an address with a password."""
    made = ServerSettings(
        brokers={"a.b": BrokerSettings(url=urls)},
        endpoints=(FilesSettings(http=HttpSettings(files=f"{folder.path}/public")),),
        listeners=(ListenSettings(address=":8080"),),
    )
    text = write(made)
    assert secrets_of(made) == variables
    assert ":secret@" not in text
    assert [name for name in variables if f"set the variable {name} to the address" not in text] == []
    assert read_back(folder, made) == made


def test_absolute(folder: Folder) -> None:
    """File names become absolute, so that the file works in any folder; the other values stay."""
    made = ServerSettings(
        endpoints=(BridgeSettings(program=ProgramSettings(command=("./count.sh", "./x")), http=HttpSettings(files="public")),),
        listeners=(ListenSettings(address="unix:s"), ListenSettings(address=":1", certificate="c.pem", key="/k.pem")),
    )
    found = absolute(made, "/srv")
    assert found.endpoints == (
        BridgeSettings(program=ProgramSettings(command=("/srv/count.sh", "./x")), http=HttpSettings(files="/srv/public")),
    )
    assert [(listen.address, listen.certificate, listen.key) for listen in found.listeners] == [
        ("unix:/srv/s", "", ""),
        (":1", "/srv/c.pem", "/k.pem"),
    ]
    assert absolute(found, "/other") == found


def test_name_that_toml_cannot_hold(tmp_path: Path) -> None:
    """The writer rejects a name that is not UTF-8."""
    program = ProgramSettings(command=("/bin/\udcff",))
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        write(msgspec.structs.replace(ServerSettings(), endpoints=(BridgeSettings(program=program),)))
