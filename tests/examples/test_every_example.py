"""Properties of every file in examples/: README describes it, a test runs it, its commands work, and the linters accept it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.examples.conftest import BROADCAST
from tests.support.rabbit import Broker
from tests.support.server import ROOT, WSBRIDGE, Server

EXAMPLES = ROOT / "examples"
README = EXAMPLES / "README.md"
FILES = sorted(path for path in EXAMPLES.rglob("*") if path.is_file() and path != README and path.suffix != ".pem")
"""All files, except those of a trial with TLS, which belong to the user."""
PROGRAMS = [path for path in FILES if path.suffix in {".sh", ".py", ".pl"} or (path.suffix == ".js" and path.name != "plugin.js")]
SHELL = [path for path in FILES if path.suffix == ".sh"]
PAGES = [path for path in FILES if path.suffix in {".html", ".css"} or path.name == "plugin.js"]
SERVED = re.findall(r"^wsbridge serve (?:--watch )?(\S+)$", README.read_text(), re.MULTILINE)
COMMANDS = re.findall(r"^wsbridge (?:broadcast )?--port 808[01] .*$", README.read_text(), re.MULTILINE)
TOUR = re.findall(
    r"(?:^|\$ |`)(wsbridge (?:broadcast )?--port 808[01] [^`\n]*)",
    (ROOT / "README.md").read_text().partition("## A tour")[2].partition("\n## ")[0],
    re.MULTILINE,
)
"""The commands of the tour in README.md, in order."""
BROKERS = ("amqp://localhost/", "amqp://user:password@rabbit/")
"""The placeholders in the commands for an existing broker."""


def name(path: Path) -> str:
    return str(path.relative_to(EXAMPLES))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_readme_names_it(path: Path) -> None:
    """examples/README.md names every example."""
    assert f"`{name(path)}`" in README.read_text()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_test_runs_it(path: Path) -> None:
    """A test in this folder runs every example."""
    tests = "".join(test.read_text() for test in Path(__file__).parent.glob("test_*.py") if test != Path(__file__))
    assert (f"/{path.parent.name}/" if path.name == "index.html" and path.parent.name != "plugins" else path.name) in tests


@pytest.mark.parametrize("path", PROGRAMS, ids=name)
def test_program_can_run(path: Path) -> None:
    """A program is executable, names its interpreter, and says how to serve it."""
    assert os.access(path, os.X_OK)
    text = path.read_text()
    assert text.startswith(("#!/bin/bash\n", "#!/bin/sh\n", "#!/usr/bin/env "))
    assert re.search("wsbridge (broadcast )?--port 8080 ", text)


@pytest.mark.parametrize("path", SHELL, ids=name)
def test_its_shell_is_clean(path: Path) -> None:
    """The shell that a script names finds no error in it."""
    shell = path.read_text().partition("\n")[0].removeprefix("#!")
    checked = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    """shellcheck finds no fault in any script."""
    checked = subprocess.run(["shellcheck", *map(str, SHELL)], capture_output=True, text=True, check=False)
    assert checked.stdout == ""


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_page_loads_nothing_from_elsewhere(path: Path) -> None:
    """A page loads nothing from another server."""
    assert not re.search(r"""(src|href)="?\s*(https?:)?//|url\((?!#)|@import|\bimport\b.*from""", path.read_text())


def test_tour() -> None:
    """The tour has a command for each feature that it shows."""
    assert len(TOUR) >= 7
    assert {"count.sh", "greeter.sh", "sensor.py"} <= {word.rpartition("/")[2] for command in TOUR for word in command.split()}


@pytest.mark.parametrize("command", [*COMMANDS, *TOUR])
def test_the_command_serves(command: str, request: pytest.FixtureRequest) -> None:
    """Every command in examples/README.md and in the tour of README.md starts a server."""
    words = shlex.split(re.sub(r"^.*?--port 808. ", "", command))
    if not {*BROKERS}.isdisjoint(words):
        broker: Broker = request.getfixturevalue("broker")
        words = [broker.url if word in BROKERS else word for word in words]
    bridge = BROADCAST if command.startswith("wsbridge broadcast") else WSBRIDGE
    with Server(*words, bridge=bridge, cwd=ROOT) as server:
        assert server.get("/").status in {200, 404}


def test_every_configuration_is_served() -> None:
    """examples/README.md has the command that serves each configuration file; test_serve.py runs them."""
    assert sorted(SERVED) == sorted(f"examples/{name(path)}" for path in FILES if path.suffix == ".toml" and path.parent.name != "conf.d")


def test_every_file_is_of_a_known_kind() -> None:
    """examples/ contains no file that the tests ignore."""
    assert {path.suffix for path in FILES} <= {".sh", ".py", ".pl", ".js", ".c", ".html", ".css", ".md", ".toml", ".conf"}
