"""The documentation has everything that a user can set or see, and its links are valid."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from wsbridge import closecodes
from wsbridge.cli.commands import BRIDGE, BROADCAST, COMMANDS, OPTIONS, PUBLISH, SUBSCRIBE, Command
from wsbridge.cli.option import Option
from wsbridge.framing import FRAMINGS
from wsbridge.logs import LEVELS
from wsbridge.metrics import Metrics
from wsbridge.process.termination import make_ladder
from wsbridge.rules.environ import EMPTY
from wsbridge.rules.units import show_size
from wsbridge.settings import BrokerSettings, ListenSettings, ProcessSettings
from wsbridge.settings.declare import Kind, fields_of
from wsbridge.settings.endpoint import KINDS, settings_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
README_LINES = 300
"""README is a front page; the reference is in docs/."""


def page(name: str) -> str:
    """Return the text of a page of docs/."""
    return (ROOT / "docs" / f"{name}.md").read_text()


def section(name: str, title: str) -> str:
    """Return the text of a section of a page, up to the next heading of its level or a higher level."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,3}} |\Z)", page(name), re.MULTILINE | re.DOTALL)
    assert found, title
    return found[2]


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub makes them."""
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def test_readme_is_a_front_page() -> None:
    """README is short, and links every page of the documentation."""
    assert len(README.splitlines()) <= README_LINES
    assert [path.name for path in (ROOT / "docs").glob("*.md") if f"(docs/{path.name})" not in README] == []


@pytest.mark.parametrize("option", [option.name for option in OPTIONS])
def test_every_flag_is_documented(option: str) -> None:
    """The reference of flags has each flag."""
    assert re.search(rf"`--{option}[=`]", page("flags"))


OF_BROADCAST = [option for option in BROADCAST.options if option.name not in {other.name for other in OPTIONS}]
"""The flags that the bridge lacks."""


@pytest.mark.parametrize("option", [option.name for option in OF_BROADCAST])
def test_every_flag_of_broadcast_is_documented(option: str) -> None:
    """The reference of broadcast has each flag of broadcast that the bridge lacks."""
    assert re.search(rf"`--{option}[=`]", page("broadcast"))


@pytest.mark.parametrize("option", sorted({option.name for option in OPTIONS} - {option.name for option in BROADCAST.options}))
def test_every_flag_that_broadcast_lacks_is_documented(option: str) -> None:
    """The reference of broadcast names each flag of the bridge that broadcast lacks."""
    assert f"`--{option}`" in page("broadcast").partition("| flag |")[0]


@pytest.mark.parametrize("option", sorted({option.shown for command in (PUBLISH, SUBSCRIBE) for option in command.options}))
def test_every_flag_of_the_ends_is_documented(option: str) -> None:
    """Each flag of publish and subscribe has an entry, unless it is a flag of broadcast or of the bridge."""
    text = page("publish-and-subscribe") + page("broadcast") + page("flags")
    assert re.search(rf"`{re.escape(option.partition('=')[0])}[=` ]", text)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    """The documentation has each command."""
    assert f"wsbridge {name}" in README or name == "bridge"


FLAGS = [("flags", option) for option in OPTIONS] + [("broadcast", option) for option in OF_BROADCAST]
NUMBERS = [(name, option) for name, option in FLAGS if option.default and option.kind in (Kind.INTEGER, Kind.SIZE, Kind.SECONDS)]


@pytest.mark.parametrize(("name", "option"), NUMBERS, ids=[option.name for _, option in NUMBERS])
def test_defaults_of_flags_are_documented(name: str, option: Option) -> None:
    """The documented default of a number is the actual default."""
    row = next(line for line in page(name).splitlines() if f"`--{option.name}=" in line)
    assert row.split("|")[-2].strip() == (show_size(option.default) if option.kind is Kind.SIZE else f"{option.default:g}")


def test_generated_parts_are_fresh() -> None:
    """The tables of flags and the man pages equal the output of scripts/docs."""
    run = subprocess.run([sys.executable, ROOT / "scripts/docs.py", "--check"], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_man_page(command: Command) -> None:
    """The man page of a command has each of its flags, and no Markdown."""
    name = "wsbridge" if command is BRIDGE else f"wsbridge-{command.name}"
    text = (ROOT / f"docs/man/{name}.1").read_text()
    flags = {flag.replace("\\-", "-") for flag in re.findall(r"^\\fB(\\-\\-[\w\\-]+)\\fR", text, re.MULTILINE)}
    assert flags == {f"--{option.name}" for option in command.options}
    assert "`" not in text
    assert "](" not in text


KEYS = sorted(
    {
        *(entry.field.name for kind in KINDS.values() for entry in settings_of(kind)),
        *(field.name for part in (ProcessSettings, ListenSettings, BrokerSettings) for field in fields_of(part)),
    }
)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_documented(key: str) -> None:
    """The page of the configuration file has each key."""
    assert f"| `{key}` |" in page("configuration")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_documented(kind: str) -> None:
    """The page of the configuration file has each kind of endpoint."""
    assert f"| `{kind}` |" in page("configuration")


def test_variables_are_documented() -> None:
    """The page of flags describes the variable of a flag, with an example of each part of the rule."""
    assert "`WSBRIDGE_PORT`" in page("flags")
    assert "`WSBRIDGE_SEND_TIMEOUT`" in page("flags")
    assert {option.variable for option in OPTIONS} >= {"WSBRIDGE_PORT", "WSBRIDGE_SEND_TIMEOUT"}


@pytest.mark.parametrize("framing", FRAMINGS)
def test_every_framing_is_documented(framing: str) -> None:
    """Each framing has a row."""
    assert f"| `{framing}` |" in page("framings")


def test_every_close_code_is_documented() -> None:
    """Each close code that the server sends, or that stands for a missing code, has a row."""
    codes = {value for name, value in vars(closecodes).items() if name.isupper() and value >= 1000}
    documented = {int(code) for code in re.findall(r"^\| (\d{4}) \|", page("sessions"), re.MULTILINE)}
    assert codes - {closecodes.NO_CODE} == documented


@pytest.mark.parametrize("status", [0, 1, 2, 3, 4, 70, "N"])
def test_every_exit_status_is_documented(status: object) -> None:
    """Each exit status has a row."""
    assert f"| {status} |" in page("flags")


@pytest.mark.parametrize("level", LEVELS)
def test_every_log_level_is_documented(level: str) -> None:
    """The documentation has each log level."""
    assert f"`{level}`" in page("flags")


@pytest.mark.parametrize("name", [item.name for item in fields(Metrics)])
def test_every_count_is_documented(name: str) -> None:
    """The documentation explains each metric that is logged at exit."""
    assert f"`{name}" in page("log")


@pytest.mark.parametrize("variable", EMPTY)
def test_empty_variables_are_documented(variable: str) -> None:
    """The documentation has the variables that are present but empty."""
    assert f"`{variable}`" in page("environment")


def test_the_ladder_is_documented() -> None:
    """The page has the steps of the ladder with their times."""
    for step in make_ladder(0):
        assert f"{round(step.grace * 1000)} ms" in section("sessions", "The ladder")
        assert step.signal.name.removeprefix("SIG") in section("sessions", "The ladder")


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "scripts").iterdir() if path.is_file() and "." not in path.name))
def test_every_script_is_documented(script: str) -> None:
    """The documentation has each script."""
    assert f"scripts/{script}" in README + (ROOT / "CONTRIBUTING.md").read_text() + page("service")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_are_valid(path: Path) -> None:
    """A link to a file of the repository, or to a heading of a page, is valid."""
    text = path.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = path.parent / name if name else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.read_text()), target
