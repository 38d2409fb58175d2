"""The conversion of a configuration file to settings, with every fault."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from tests.config.files import Folder
from wsbridge.settings import (
    BridgeSettings,
    BroadcastSettings,
    BrokerSettings,
    ChannelSettings,
    ListenSettings,
    ProcessSettings,
    ProgramSettings,
    ServerSettings,
)
from wsbridge.settings.declare import Field, Kind, Part, fields_of
from wsbridge.settings.endpoint import KINDS, settings_of

EXAMPLE = """
[server]
log_level = "info"

[[listen]]
address = "0.0.0.0:8080"

[[endpoint]]
path = "/count"
kind = "bridge"
command = ["./count.sh", "5"]

[[endpoint]]
path = "/temps"
kind = "broadcast"
exchange = "temps"
command = ["sh"]
broker = "main"

[broker.main]
url = { env = "RABBIT_URL" }
"""


def test_example(folder: Folder) -> None:
    """A file has listeners, endpoints and brokers; the name of a program is relative to the file, or found in PATH."""
    environ = {"PATH": "/bin", "RABBIT_URL": "amqp://u:secret@a/,amqp://b/"}
    assert folder.settings(EXAMPLE, environ) == ServerSettings(
        server=ProcessSettings(log_level="info"),
        listeners=(ListenSettings(address="0.0.0.0:8080"),),
        endpoints=(
            BridgeSettings(path="/count", program=ProgramSettings(command=(f"{folder.path}/count.sh", "5"))),
            BroadcastSettings(
                path="/temps",
                channel=ChannelSettings(exchange="temps", broker="main"),
                program=ProgramSettings(command=("/bin/sh",)),
            ),
        ),
        brokers={"main": BrokerSettings(url=("amqp://u:secret@a/", "amqp://b/"))},
    )


def test_default_listener(folder: Folder) -> None:
    """Without a listener, the server listens on port 8080 of every address."""
    assert folder.settings('[[endpoint]]\nkind = "files"\nfiles = "public"').listeners == (ListenSettings(address=":8080"),)


def test_folder_of_each_file(folder: Folder) -> None:
    """A name in an included file is relative to that file."""
    (folder.path / "conf.d").mkdir()
    (folder.path / "conf.d/a.toml").write_text('[[endpoint]]\nkind = "bridge"\ncommand = "../count.sh"\nfiles = "../public"\n')
    (endpoint,) = folder.settings('include = "conf.d/*.toml"').endpoints
    assert isinstance(endpoint, BridgeSettings)
    assert endpoint.program.command == (f"{folder.path}/conf.d/../count.sh",)
    assert endpoint.http.files == f"{folder.path}/public"
    (folder.path / "conf.d/a.toml").write_text('[[endpoint]]\nkind = "bridge"\ncommand = "./count.sh"\n')
    (fault,) = folder.faults('include = "conf.d/*.toml"')
    assert "conf.d/a.toml:3: endpoint[1].command: unable to locate specified command" in fault


EVERYTHING_WRONG = """
[server]
hots = ["a"]
guard = "yes"
max_sessions = -1
[[listen]]
address = "8080"
[[endpoint]]
kind = "bridge"
command = "./count.sh"
max_programs = "ten"
[[endpoint]]
kind = "broadcats"
[broker.main]
url = { env = "RABBIT_URL" }
timeout = 0
[brokers]
"""


def test_every_fault(folder: Folder) -> None:
    """Each fault has its line, its path and a remedy, in the order of the lines."""
    assert folder.faults(EVERYTHING_WRONG) == [
        "3: server.hots: unknown key; did you mean hosts?",
        '4: server.guard: expected true or false, got "yes"',
        "5: server.max_sessions: -1 must not be negative",
        "7: listen[1].address: 8080 is not an address; write HOST:PORT, :PORT, [IPV6]:PORT, unix:PATH or systemd:NAME",
        '11: endpoint[1].max_programs: expected an integer, got "ten"',
        '13: endpoint[2].kind: unknown kind "broadcats"; did you mean "broadcast"?',
        "15: broker.main.url: the environment variable RABBIT_URL is not set; set it",
        "16: broker.main.timeout: 0 must be more than 0",
        "17: brokers: unknown key; did you mean broker?",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", " nothing to serve: add a table [[endpoint]]"),
        ("server = 1", "1: server: expected a table, got an integer; write [server]"),
        ("[[server]]", "1: server: expected a table, got an array; write [server]"),
        ("[listen]", "1: listen: expected an array of tables, got a table; write [[listen]]"),
        ("listen = [1]", "1: listen[1]: expected a table, got an integer; write [[listen]]"),
        ("[listen]\naddress = 5", "2: listen.address: expected a string, got 5"),
        ("[endpoint]\nkind = 'bridge'\nping = 'x'", '3: endpoint.ping: "x": write a number of seconds'),
        ("[endpoint]", "1: endpoint: expected an array of tables, got a table; write [[endpoint]]"),
        ("broker = 'x'", "1: broker: expected a table, got a string; write [broker.NAME]"),
        ("broker.main = 'x'", "1: broker.main: expected a table, got a string; write [broker.NAME]"),
        ("defaults = 1", "1: defaults: expected a table, got an integer; write [defaults]"),
        ("[broker.main]", "1: broker.main.url: missing: add url"),
        ("[broker]\nurl = 'amqp://h/'\ntimeout = 5", "1: broker: a broker has a name; write [broker.main]"),
        ("[broker]\nurl = { env = 'U' }", "1: broker: a broker has a name; write [broker.main]"),
        ("[broker.url]\nurl = 5", '2: broker.url.url: expected "'),
        ("[[listen]]", "1: listen[1].address: missing: add address"),
        ("x = [", "1: "),
    ],
)
def test_wrong_tables(folder: Folder, text: str, fault: str) -> None:
    """The fault of a table with the wrong type, or without a required key, shows the right header."""
    assert [line for line in folder.faults(text) if line.startswith(fault)] != []


NO_VALUE = {
    Kind.BOOLEAN: ("0", '"true"', "1.5", "2020-01-01", "[]", "{}"),
    Kind.INTEGER: ("true", '"1"', "1.5", "nan", "12:00:00", "[]", "{}", "-1", "9223372036854775808", f"0x{'f' * 5000}"),
    Kind.SIZE: ("true", '"1.5x"', '"-1"', "1.5", "inf", "2020-01-01", "[]", "{}", "-1", "9223372036854775808", '"8388608TiB"'),
    Kind.SECONDS: ("true", '"1.5x"', '"-1"', '" 5"', "nan", "inf", "1e999", "2020-01-01", "[]", "{}", "-1", f"1{'0' * 400}"),
    Kind.TEXT: ("true", "1", "1.5", "2020-01-01", "[]", "{}", '"\\u0000"'),
    Kind.TEXTS: ("true", "1", "1.5", "2020-01-01", "{}", "[true]", "[[]]", '["\\u0000"]', '[""]'),
    Kind.CHOICE: ("true", "1", "1.5", "2020-01-01", "[]", "{}", '"\\u0000"', '"other"'),
}
"""TOML values that are not valid for any setting of a type."""
NEEDED = {
    "bridge": {"command": '"./count.sh"'},
    "broadcast": {"exchange": '"x"', "command": '"./count.sh"'},
    "files": {"files": '"public"'},
    "cgi": {"cgi": '"public"'},
}


def assert_wrong(folder: Folder, header: str, place: str, needed: Mapping[str, str], fields: Iterable[Field]) -> None:
    """Check that each wrong value of each key is one fault, with its line and its path."""
    for field in fields:
        others = "".join(f"{key} = {value}\n" for key, value in needed.items() if key != field.name)
        for value in NO_VALUE[field.kind]:
            head = f"{header}\n{others}"
            (fault,) = folder.faults(f"{head}{field.name} = {value}\n")
            is_item = value.startswith("[") and value != "[]" and field.kind is Kind.TEXTS and value != '[""]'
            path = f"{place}.{field.name}{'[1]' if is_item else ''}"
            assert fault.startswith(f"{head.count(chr(10)) + 1}: {path}"), (value, fault)
            assert len(fault) < 200


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_types_of_an_endpoint(folder: Folder, kind: str) -> None:
    """Each key of each kind of endpoint rejects values of other types."""
    fields = [entry.field for entry in settings_of(KINDS[kind])]
    assert_wrong(folder, f"[[endpoint]]\nkind = '{kind}'", "endpoint[1]", NEEDED.get(kind, {}), fields)


@pytest.mark.parametrize(
    ("table", "part", "needed"),
    [
        ("[server]", ProcessSettings, {}),
        ("[[listen]]", ListenSettings, {"address": '":80"'}),
        ("[broker.main]", BrokerSettings, {"url": '"amqp://h/"'}),
    ],
)
def test_wrong_types(folder: Folder, table: str, part: type[Part], needed: dict[str, str]) -> None:
    """Each key of each other table also rejects values of other types."""
    place = table.strip("[]") + ("[1]" if table == "[[listen]]" else "")
    assert_wrong(folder, f"endpoint = [{{ kind = 'files', files = 'public' }}]\n{table}", place, needed, fields_of(part))


def test_no_secret_is_shown(folder: Folder) -> None:
    """A fault of an address does not show its password."""
    text = '[broker.a]\nurl = ["amqp://h/", "http://me:secret@h/"]\n[broker.b]\nurl = { env = "U" }\n[broker.c]\nurl = 5'
    faults = folder.faults(text, {"U": "amqp://me:sec/secret@h/"})
    assert [fault.split(": ")[1] for fault in faults if "broker" in fault] == ["broker.a.url[2]", "broker.b.url", "broker.c.url"]
    assert "secret" not in "".join(faults)
    assert faults[1] == "2: broker.a.url[2]: not a broker URL; write amqp://user:password@host:port/vhost, or amqps://"


PASSWORD = "s/e@c ret" + "x" * 50


@pytest.mark.parametrize(
    "text",
    [
        "[[endpoint]]\nkind = 'URL'",
        "[[endpoint]]\nkind = 'broadcast'\nexchange = 'x'\nbroker = 'URL'",
        "[[endpoint]]\nkind = 'broadcast'\nexchange = 'x'\npath = 'URL'",
        "[[endpoint]]\nkind = 'bridge'\ncommand = 'URL'\nfiles = 'URL'",
        "[[endpoint]]\nkind = 'bridge'\ncommand = ['./URL']\nheaders = ['URL']\norigins = ['URL']",
        "[[endpoint]]\nkind = 'console'\ntarget = 'URL'",
        "[[listen]]\naddress = 'URL'",
        "[[listen]]\naddress = ':1'\ncertificate = 'URL'\nkey = 'URL'",
        "[[listen]]\naddress = 'unix:x'\nowner = 'URL'",
        "[server]\nlog_level = 'URL'\nhosts = ['URL']\nmax_sessions = 'URL'\nkeepalive_timeout = 'URL'",
        "[defaults]\nbroker = 'URL'\nping = 'URL'",
        "[broker.main]\nurl = { file = 'URL' }",
        "[broker.main]\nurl = { env = 'URL' }",
        "[broker.main]\nurl = { 'URL' = 1 }",
        "[broker.main]\n'URL' = 1",
        "include = 'URL'",
        "include = 'URL/*/x'",
        "'URL' = 1",
    ],
)
def test_no_password_is_shown(folder: Folder, text: str) -> None:
    """A fault of any other value does not show a password either, if a user wrote an address there by mistake."""
    faults = folder.faults(text.replace("URL", f"amqp://me:{PASSWORD}@host/"))
    assert faults != []
    assert [fault for fault in faults if PASSWORD[-9:] in fault or PASSWORD[:9] in fault] == []


def test_many_passwords(folder: Folder) -> None:
    """A file with very many misplaced addresses shows none of their passwords."""
    bridges = "".join(f"[[endpoint]]\npath = '/{n}'\nkind = 'bridge'\ncommand = 'amqp://me:secret{n}@h/'\n" for n in range(300))
    faults = folder.faults(bridges)
    assert len(faults) == 300
    assert [fault for fault in faults if "secret" in fault] == []


def test_missing_file(folder: Folder) -> None:
    """An unreadable file is one fault."""
    (fault,) = folder.faults(f'include = "{folder.path}/none.toml"\n[[endpoint]]\nkind = "files"\nfiles = "public"\n')
    assert "none.toml" in fault


def test_many_faults(folder: Folder) -> None:
    """All of thousands of faults are reported."""
    assert len(folder.faults("[server]\n" + "".join(f"key{number} = 1\n" for number in range(2000)))) == 2001
