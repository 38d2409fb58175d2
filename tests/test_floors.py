"""Imports go down: a module imports lower floors or its own package, and each external library has a fixed place.

The test parses the sources instead of running them, so that it sees imports inside functions.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent / "wsbridge"

FLOORS = (
    {"closecodes", "errors", "flow", "logs", "mentions", "metrics"},
    {"channel", "framing", "rules", "wire"},
    {"quickstart", "settings"},
    {"bus", "files", "logwriter", "process", "stdio"},
    {"net"},
    {"peers", "resolve"},
    {"sessions"},
    {"config"},
    {"http", "pipes"},
    {"endpoints"},
    {"server"},
    {"cli"},
    {"__main__"},
)
"""From the lowest floor up. `settings` is between two floors, because it has values of the rules; `__main__` is the entry point.
`quickstart` is below all modules that use aiohttp."""

WORDS, CORES = FLOORS[0], FLOORS[1]
LEVEL = {part: level for level, parts in enumerate(FLOORS) for part in parts}

FENCES = {
    "aio_pika": {"bus.rabbitmq"},
    "pamqp": {"bus.rabbitmq"},
    "aiohttp": {"endpoints", "http", "peers.wsclient", "quickstart"},
    "aiofastnet": {"net"},
    "click": {"cli"},
    "msgspec": {"cli", "config", "framing", "resolve", "settings"},
}
"""The parts and modules that may import each external library."""

IMPURE = {"asyncio", "socket", "subprocess", "time", "random"}
"""Modules that the two lowest floors may not import: the time, ids and random numbers are arguments."""
ALLOWED = {("logs", "time")}
"""The log formats a time that it gets as an argument."""


class Import(NamedTuple):
    """An import statement in a module of the package: `name` is dotted and absolute."""

    module: str
    line: int
    name: str

    @property
    def part(self) -> str:
        """The part of the package that imports; empty for the package itself."""
        return part_of(self.module)

    def __str__(self) -> str:
        path = PACKAGE.parent / Path(*self.module.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        return f"{file.relative_to(PACKAGE.parent)}:{self.line}: imports {self.name}"


def part_of(name: str) -> str:
    """Return the second component of a dotted name: `framing` of `wsbridge.framing.chunks`."""
    return [*name.split("."), ""][1]


def imports_in(source: str, module: str, *, is_package: bool = False) -> Iterator[Import]:
    """Yield the imports of a source, also inside functions and conditions, by statement or by `import_module("…")`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names):
                yield from (Import(module, node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(base, names, level):
                above = module.split(".")[: None if is_package and level == 1 else -level + is_package] if level else []
                whole = ".".join([*above, *([base] if base else [])])
                for alias in names:
                    # `from wsbridge import framing` imports a module, `from wsbridge import __version__` does not.
                    is_module = whole == "wsbridge" and alias.name in LEVEL
                    yield Import(module, node.lineno, f"{whole}.{alias.name}" if is_module else whole)
            case ast.Call(ast.Name("__import__" | "import_module") | ast.Attribute(attr="import_module"), [ast.Constant(name), *_]):
                yield Import(module, node.lineno, name)


def all_imports() -> list[Import]:
    """Return every import of the package."""
    found: list[Import] = []
    for file in sorted(PACKAGE.rglob("*.py")):
        words = file.relative_to(PACKAGE.parent).with_suffix("").parts
        is_package = words[-1] == "__init__"
        found += imports_in(file.read_text(), ".".join(words[: -1 if is_package else None]), is_package=is_package)
    return found


IMPORTS = all_imports()
INNER = [entry for entry in IMPORTS if entry.name.split(".")[0] == "wsbridge"]
OUTER = [entry for entry in IMPORTS if entry.name.split(".")[0] != "wsbridge"]


def shown(imports: list[Import]) -> str:
    return "\n".join(map(str, imports))


def test_every_module_has_its_floor() -> None:
    """Every part of the package has a floor, and every floor has existing parts."""
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__"} == set(LEVEL)


def test_imports_go_down() -> None:
    """A module imports lower floors or its own package. Parts on one floor do not import each other, except on the lowest floor."""

    def is_allowed(entry: Import) -> bool:
        to = part_of(entry.name)
        return to in ("", entry.part) or LEVEL[to] < LEVEL[entry.part] or {to, entry.part} <= WORDS

    wrong = [entry for entry in INNER if entry.part and not is_allowed(entry)]
    assert not wrong, f"imports that do not go down:\n{shown(wrong)}"


def test_package_itself_imports_nothing() -> None:
    """An import of one part of the package does not load the other parts."""
    wrong = [entry for entry in IMPORTS if not entry.part and entry.name != "__future__"]
    assert not wrong, f"the package itself imports:\n{shown(wrong)}"


def test_external_libraries() -> None:
    """Each external library is imported only in its place, and no other library is imported."""

    def is_allowed(entry: Import) -> bool:
        library = entry.name.split(".")[0]
        inside = (f"wsbridge.{place}" for place in FENCES.get(library, ()))
        return library in sys.stdlib_module_names or any(f"{entry.module}.".startswith(f"{place}.") for place in inside)

    wrong = [entry for entry in OUTER if not is_allowed(entry)]
    assert not wrong, f"libraries outside their place:\n{shown(wrong)}"
    assert {entry.name.split(".")[0] for entry in OUTER} >= FENCES.keys(), "a place without an import"


def test_cores_are_pure() -> None:
    """The two lowest floors use no loop, socket, process, clock or random numbers of their own."""
    wrong = [
        entry
        for entry in OUTER
        if entry.part in WORDS | CORES and entry.name.split(".")[0] in IMPURE and (entry.part, entry.name) not in ALLOWED
    ]
    assert not wrong, f"impure imports on the two lowest floors:\n{shown(wrong)}"


@pytest.mark.parametrize(
    ("source", "module", "is_package", "names"),
    [
        ("import os, a.b as c", "wsbridge.flow", False, ["os", "a.b"]),
        ("from wsbridge.rules.paths import clean", "wsbridge.flow", False, ["wsbridge.rules.paths"]),
        ("from wsbridge import server, __version__", "wsbridge.flow", False, ["wsbridge.server", "wsbridge"]),
        ("def f():\n if True:\n  import click", "wsbridge.flow", False, ["click"]),
        ("from .separated import Decoder", "wsbridge.framing.records", False, ["wsbridge.framing.separated"]),
        ("from . import separated", "wsbridge.framing.records", False, ["wsbridge.framing"]),
        ("from ..http import app", "wsbridge.framing.records", False, ["wsbridge.http"]),
        ("from .. import http", "wsbridge.framing.records", False, ["wsbridge.http"]),
        ("from .chunks import Decoder", "wsbridge.framing", True, ["wsbridge.framing.chunks"]),
        ("from ..http import app", "wsbridge.framing", True, ["wsbridge.http"]),
        ("import importlib\nimportlib.import_module('aiohttp')", "wsbridge.flow", False, ["importlib", "aiohttp"]),
        ("__import__('socket')", "wsbridge.flow", False, ["socket"]),
    ],
)
def test_every_form_of_import_is_seen(source: str, module: str, is_package: bool, names: list[str]) -> None:
    """The test sees every form of import."""
    assert [entry.name for entry in imports_in(source, module, is_package=is_package)] == names


def test_message_names_file_and_line() -> None:
    """The message names the file and the line of a violation."""
    assert str(Import("wsbridge.rules.paths", 7, "socket")) == "wsbridge/rules/paths.py:7: imports socket"
    assert str(Import("wsbridge.framing", 7, "socket")) == "wsbridge/framing/__init__.py:7: imports socket"
