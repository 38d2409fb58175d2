"""README names everything that a user can set or see."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from wsbridge import closecodes
from wsbridge.cli.options import BROADCAST, COMMANDS, OPTIONS, PUBLISH, SUBSCRIBE, Option
from wsbridge.cli.units import Size, show_size
from wsbridge.framing import FRAMINGS
from wsbridge.logs import LEVELS
from wsbridge.metrics import Metrics
from wsbridge.process.ladder import make_ladder
from wsbridge.rules.environ import EMPTY

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md"]


def section(title: str) -> str:
    """Return the text of a section, up to the next heading of its level or a higher one."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,3}} |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[2]


@pytest.mark.parametrize("option", [option.name for option in OPTIONS])
def test_every_flag_is_documented(option: str) -> None:
    """Each flag stands in README's reference of flags."""
    assert re.search(rf"`--{option}[=`]", section("Flags"))


OF_BROADCAST = [option for option in BROADCAST.options if option.name not in {other.name for other in OPTIONS}]
"""What the bridge has not."""


@pytest.mark.parametrize("option", [option.name for option in OF_BROADCAST])
def test_every_flag_of_broadcast_is_documented(option: str) -> None:
    """Each flag of broadcast that is not the bridge's stands in the reference of its own."""
    assert re.search(rf"`--{option}[=`]", section("Flags of broadcast"))


@pytest.mark.parametrize("option", sorted({option.name for option in OPTIONS} - {option.name for option in BROADCAST.options}))
def test_every_flag_that_broadcast_lacks_is_documented(option: str) -> None:
    """Each flag of the bridge that broadcast has not is named there."""
    assert f"`--{option}`" in section("Flags of broadcast").partition("| flag |")[0]


@pytest.mark.parametrize("option", sorted({option.shown for command in (PUBLISH, SUBSCRIBE) for option in command.options}))
def test_every_flag_of_the_ends_is_documented(option: str) -> None:
    """Each flag of publish and subscribe is named there, or is one of broadcast's or the bridge's."""
    text = section("publish and subscribe") + section("Flags of broadcast") + section("Flags")
    assert re.search(rf"`{re.escape(option.partition('=')[0])}[=` ]", text)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    """Each command is named."""
    assert f"wsbridge {name}" in README or name == "bridge"


FLAGS = [("Flags", option) for option in OPTIONS] + [("Flags of broadcast", option) for option in OF_BROADCAST]
NUMBERS = [(title, option) for title, option in FLAGS if option.default and issubclass(option.kind, int) and option.kind is not bool]


@pytest.mark.parametrize(("title", "option"), NUMBERS, ids=[option.name for _, option in NUMBERS])
def test_defaults_of_flags_are_documented(title: str, option: Option) -> None:
    """The default of a number is the one that README gives."""
    row = next(line for line in section(title).splitlines() if f"`--{option.name}=" in line)
    assert isinstance(option.default, int)
    assert row.split("|")[-2].strip() == (show_size(option.default) if option.kind is Size else str(option.default))


def test_variables_are_documented() -> None:
    """README says how a flag becomes a variable, with an example of each part of the rule."""
    assert "`WSBRIDGE_PORT`" in README
    assert "`WSBRIDGE_SEND_TIMEOUT`" in README
    assert {option.variable for option in OPTIONS} >= {"WSBRIDGE_PORT", "WSBRIDGE_SEND_TIMEOUT"}


@pytest.mark.parametrize("framing", FRAMINGS)
def test_every_framing_is_documented(framing: str) -> None:
    """Each framing has its row."""
    assert f"| `{framing}` |" in section("Framings")


def test_every_close_code_is_documented() -> None:
    """Each close code that is sent, or stands for none, has its row."""
    codes = {value for name, value in vars(closecodes).items() if name.isupper() and value >= 1000}
    documented = {int(code) for code in re.findall(r"^\| (\d{4}) \|", section("How a session ends"), re.MULTILINE)}
    assert codes - {closecodes.NO_CODE} == documented


@pytest.mark.parametrize("status", [0, 1, 2, 3, 4, 70, "N"])
def test_every_exit_status_is_documented(status: object) -> None:
    """Each exit status has its row."""
    assert f"| {status} |" in section("Flags")


@pytest.mark.parametrize("level", LEVELS)
def test_every_log_level_is_documented(level: str) -> None:
    """Each log level is named."""
    assert f"`{level}`" in section("Flags")


@pytest.mark.parametrize("name", [item.name for item in fields(Metrics)])
def test_every_count_is_documented(name: str) -> None:
    """Each count that is logged at exit is explained."""
    assert f"`{name}" in section("The log")


@pytest.mark.parametrize("variable", EMPTY)
def test_empty_variables_are_documented(variable: str) -> None:
    """The variables that are present and empty are named."""
    assert f"`{variable}`" in section("The environment of a program")


def test_the_ladder_is_documented() -> None:
    """README gives the steps of the ladder with their times."""
    for step in make_ladder(0):
        assert f"{round(step.grace * 1000)} ms" in section("The ladder")
        assert step.signal.name.removeprefix("SIG") in section("The ladder")


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "scripts").iterdir() if path.is_file() and "." not in path.name))
def test_every_script_is_documented(script: str) -> None:
    """Each script is named."""
    assert f"scripts/{script}" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file of the repository, or to a heading, leads there."""
    text = page.read_text()
    headings = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            assert (page.parent / target.partition("#")[0]).exists(), target
