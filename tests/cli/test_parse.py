"""The command line and its variables: the value of each flag, and the words of COMMAND."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from wsbridge.cli.commands import BROADCAST, OPTIONS
from wsbridge.cli.main import run
from wsbridge.cli.option import Option
from wsbridge.cli.parse import parse, unknown_variables, without_passwords
from wsbridge.errors import UsageError
from wsbridge.settings.declare import Kind, Unit

WEBSOCKETD_TAKES_A_VALUE = (
    *("port", "address", "unixsocket", "sslcert", "sslkey", "sslca", "redirport"),
    *("maxforks", "maxframesize", "closems", "pingms", "dir", "staticdir", "cgidir"),
    *("passenv", "origin", "header", "header-ws", "header-http", "loglevel"),
)
WEBSOCKETD_BOOLEANS = ("ssl", "binary", "passstderr", "devconsole", "sameorigin", "reverselookup", "version", "license")
REPEATABLE = {"address", "host", "header", "header-ws", "header-http", "subprotocol"}
SAMPLES = {Kind.BOOLEAN: ("true", True), Kind.INTEGER: ("0x10", 16), Kind.SIZE: ("16k", 16384)}
SAMPLES_OF_TIMES = {Unit.MILLISECONDS: ("2s", 2000), Unit.UNSIGNED_MILLISECONDS: ("010", 8), Unit.SECONDS: ("2.5", 2.5)}
TEXT = ("some value", "some value")


def sample(option: Option) -> tuple[str, object]:
    """Return a value of an option's kind, as text and parsed."""
    text, value = SAMPLES_OF_TIMES[option.unit] if option.kind is Kind.SECONDS else SAMPLES.get(option.kind, TEXT)
    return text, (value,) if option.is_repeatable else value


def changed(flags: SimpleNamespace) -> dict[str, object]:
    """Return the values that differ from those of the empty command line."""
    empty = vars(parse([], {}))
    return {name: value for name, value in vars(flags).items() if value != empty[name] and name != "given"}


@pytest.mark.parametrize("name", WEBSOCKETD_TAKES_A_VALUE)
def test_flags_of_websocketd_with_a_value(name: str) -> None:
    """Every flag of websocketd, in both versions, takes its value after `=` or as the next word."""
    flags = [vars(parse(words, {})) for words in ([f"-{name}=0"], [f"--{name}", "0"])]
    assert flags[0] == flags[1]
    assert flags[0][name.replace("-", "_")] in (0, "0", ("0",))


@pytest.mark.parametrize("name", WEBSOCKETD_BOOLEANS)
def test_booleans_of_websocketd(name: str) -> None:
    """Every boolean flag of websocketd is false by default, and takes a value only after `=`."""
    values = [parse(words, {}) for words in ([], [f"-{name}"], [f"--{name}=0"], [f"--{name}", "false"])]
    assert [getattr(flags, name) for flags in values] == [False, True, False, True]
    assert values[-1].command == ("false",)


def test_repeatable_flags() -> None:
    """A repeatable flag keeps all its values."""
    assert {option.name for option in OPTIONS if option.is_repeatable} == REPEATABLE
    flags = parse(["--header=A: 1", "--header", "B: 2", "--address=[::1]", "--address=localhost", "cat"], {})
    assert changed(flags) == {"header": ("A: 1", "B: 2"), "address": ("[::1]", "localhost"), "command": ("cat",)}


def test_last_wins() -> None:
    """The last value of any other repeated flag counts."""
    words = ["--port=1", "--binary", "--port=2", "--binary=false", "--origin=a", "--origin=b"]
    assert changed(parse(words, {})) == {"port": 2, "origin": "b"}


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ([], ()),
        (["cat"], ("cat",)),
        (["cat", "--port=80", "-h", "--version"], ("cat", "--port=80", "-h", "--version")),
        (["cat", "--", "x"], ("cat", "--", "x")),
        (["--", "cat"], ("cat",)),
        (["--", "--port=80"], ("--port=80",)),
        (["--", "--"], ("--",)),
        (["-", "x"], ("-", "x")),
        ([""], ("",)),
        (["sh", "-c", "echo 'a b'; exit 3", ""], ("sh", "-c", "echo 'a b'; exit 3", "")),
        (["cat", "@file", "$HOME", "*", "\udcff"], ("cat", "@file", "$HOME", "*", "\udcff")),
    ],
)
def test_command(words: list[str], command: tuple[str, ...]) -> None:
    """Parsing stops at COMMAND; its arguments stay unchanged."""
    assert changed(parse(["--devconsole", *words], {})) == {"devconsole": True} | ({"command": command} if command else {})


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_flag_is_a_variable(option: Option) -> None:
    """Each flag has a variable with the same effect: WSBRIDGE_ and its name in capitals, with underscores for hyphens."""
    text, value = sample(option)
    variable = "WSBRIDGE_" + option.name.upper().replace("-", "_")
    by_variable, by_flag = parse([], {variable: text}), parse([f"--{option.name}={text}"], {})
    assert (by_variable.given, by_flag.given) == (frozenset(), {option.attribute})
    assert changed(by_variable) == changed(by_flag)
    assert vars(by_flag)[option.name.replace("-", "_")] == value


def test_one_value_on_each_line() -> None:
    """The variable of a repeatable flag has one value on each line."""
    assert changed(parse([], {"WSBRIDGE_HEADER": "A: 1, 2\nB: 3\n", "WSBRIDGE_ADDRESS": "127.0.0.1"})) == {
        "header": ("A: 1, 2", "B: 3"),
        "address": ("127.0.0.1",),
    }


@pytest.mark.parametrize(
    ("words", "environ", "values"),
    [
        (["--port=2"], {"WSBRIDGE_PORT": "1"}, {"port": 2}),
        (["--binary=false"], {"WSBRIDGE_BINARY": "true"}, {}),
        (["--header=C: 3"], {"WSBRIDGE_HEADER": "A: 1\nB: 2"}, {"header": ("C: 3",)}),
        (["--passenv="], {"WSBRIDGE_PASSENV": "HOME"}, {"passenv": ""}),
        ([], {"WSBRIDGE_PORT": "1"}, {"port": 1}),
        ([], {"WSBRIDGE_SEND_TIMEOUT": "0.5", "WSBRIDGE_HEADER_WS": "A: 1"}, {"send_timeout": 0.5, "header_ws": ("A: 1",)}),
        ([], {"WSBRIDGE_PORT": "", "WSBRIDGE_BINARY": "", "WSBRIDGE_HEADER": ""}, {}),
        ([], {"PORT": "1", "wsbridge_port": "2", "WSBRIDGE_": "3", "WSBRIDGE_COMMAND": "cat", "COMMAND": "cat"}, {}),
    ],
)
def test_command_line_wins(words: list[str], environ: dict[str, str], values: dict[str, object]) -> None:
    """The command line overrides a variable; an empty variable is ignored, and so is any other variable."""
    assert changed(parse(words, environ)) == values


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        (["--port=08080"], ["-port", "08080"]),
        (["--port=x", "cat"], ["-port", '"x"']),
        (["--port="], ["-port"]),
        (["--port", "1.5"], ["-port", "1.5"]),
        (["--maxforks=1__0"], ["-maxforks", "1__0"]),
        (["--binary=yes"], ["-binary", "yes"]),
        (["--binary="], ["-binary"]),
        (["--closems=-1"], ["-closems", "-1"]),
        (["--send-timeout=soon"], ["-send-timeout", "soon"]),
        (["--header-ws"], ["-header-ws"]),
        (["--nope"], ["-nope"]),
        (["--port", "--binary"], ["-port", "--binary"]),
    ],
)
def test_invalid_values_of_flags(words: list[str], needles: list[str]) -> None:
    """The message names the flag and its value; the exit status is 2."""
    with pytest.raises(UsageError) as caught:
        parse(words, {})
    assert [needle for needle in needles if needle not in str(caught.value)] == []
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("variable", "value"),
    [("WSBRIDGE_PORT", "08080"), ("WSBRIDGE_BINARY", "yes"), ("WSBRIDGE_SEND_TIMEOUT", "soon"), ("WSBRIDGE_CLOSEMS", "-1")],
)
def test_invalid_values_of_variables(variable: str, value: str) -> None:
    """The message names the variable, not a flag that the user did not write."""
    with pytest.raises(UsageError) as caught:
        parse(["cat"], {variable: value})
    assert variable in str(caught.value)
    assert value in str(caught.value)
    assert "flag" not in str(caught.value)


def test_help_beside_an_invalid_variable() -> None:
    """The help is available even if a variable is invalid."""
    assert parse(["--help"], {"WSBRIDGE_PORT": "x"}).help is True


def test_unknown_variables() -> None:
    """An unknown variable with the prefix WSBRIDGE_ is reported, since it is probably a typing error."""
    environ = dict.fromkeys(["WSBRIDGE_PORTS", "WSBRIDGE_PORT", "PORT", "WSBRIDGE_BINRY"], "1")
    assert unknown_variables(environ) == ["WSBRIDGE_BINRY", "WSBRIDGE_PORTS"]


def test_flag_of_another_command() -> None:
    """A flag of another command is an error that names that command."""
    with pytest.raises(UsageError, match="-dir; it is a flag of bridge"):
        parse(["--dir=x"], {}, BROADCAST)
    with pytest.raises(UsageError, match="-exchange; it is a flag of broadcast"):
        parse(["--exchange=x"], {})


@pytest.mark.parametrize(
    ("sentence", "words", "shown"),
    [
        ("no COMMAND: 'amqp://u:p@h/'", ["-x", "amqp://u:p@h/"], "no COMMAND: 'amqp://…@h/'"),
        ("--url is 'ws://u:p@ss w@h/'", ["--url=ws://u:p@ss w@h/"], "--url is 'ws://…@h/'"),
        (r"found 'ws://u:\\\x1b@h/'", ["ws://u:\\\x1b@h/"], "found 'ws://…@h/'"),
        ("'http://a/' and 'amqp://u:p@h/'", ["http://a/,amqp://u:p@h/"], "'http://a/' and 'amqp://…@h/'"),
        ("'amqp://u:p@h/', 'ws://p:u@h/'", ["amqp://u:p@h/", "ws://p:u@h/"], "'amqp://…@h/', 'ws://…@h/'"),
        ("write amqp://user:password@host/, not x://h/", ["x://h/", "user@host"], "write amqp://user:password@host/, not x://h/"),
        ("'amqp://u:p@h/' is none", ["--broker=amqp://u:p@h/,amqp://v:q@i/"], "'amqp://…@h/' is none"),
        ("'amqp://v:q@i/' is none", ["--broker=amqp://u:p@h/,amqp://v:q@i/"], "'amqp://…@i/' is none"),
        ("", [], ""),
    ],
)
def test_passwords_are_not_shown(sentence: str, words: list[str], shown: str) -> None:
    """Errors hide the user and the password in a word, and show a URL without them in full."""
    assert without_passwords(sentence, words) == shown


@pytest.mark.parametrize(
    ("words", "variables", "shown"),
    [
        (["--port", "amqp://u:secret@h"], {}, 'invalid value "amqp://…@h" for flag -port'),
        (["cat"], {"WSBRIDGE_PORT": "amqp://u:secret@h"}, 'invalid value "amqp://…@h" for variable WSBRIDGE_PORT'),
        (["amqp://u:secret@h/"], {}, "unable to locate specified COMMAND 'amqp://…@h/'"),
        (["--staticdir=amqp://u:secret@h/"], {}, "--staticdir=amqp://…@h/"),
        (["--framing", "amqp://u:secret@h/", "cat"], {}, "--framing=amqp://…@h/"),
        (["--subprotocol", "amqp://u:secret@h/", "cat"], {}, "amqp://…@h/"),
        (["---amqp://u:secret@h/"], {}, "bad flag syntax: ---amqp://…@h/"),
        (["-amqp://u:secret@h/"], {}, "not defined: -amqp://…"),
    ],
)
def test_misplaced_url(words: list[str], variables: dict[str, str], shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The error for a misplaced URL does not show its password."""
    assert run("wsbridge", words, {"PATH": "/bin", **variables}) in (1, 2)
    said = capsys.readouterr().err
    assert shown in said
    assert "secret" not in said
