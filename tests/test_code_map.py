"""The documents for developers name only existing files and classes."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ("CONTRIBUTING.md", "docs/architecture.md", "docs/glossary.md")
NAMED_FILE = re.compile(r"`([\w./-]+\.(?:py|js|mjs|html|css|svg|sh))`")
OF_USERS = {"script.sh", "sensor.py"}
"""Files of examples, which are not in the repository."""


def tracked() -> list[str]:
    """Return the files of the repository or, outside a checkout, the existing files."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        return listed.stdout.split()
    return [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]


FILES = tracked()


def is_there(name: str) -> bool:
    """Return whether a file has this path, or ends with it."""
    return any(file == name or file.endswith(f"/{name}") for file in FILES)


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str) -> None:
    """Every file that a page names exists."""
    named = set(NAMED_FILE.findall((ROOT / page).read_text())) - OF_USERS
    assert named
    assert sorted(name for name in named if "NAME" not in name and not is_there(name)) == []


def test_classes_of_the_glossary_exist() -> None:
    """A row of the glossary that names a file names classes and functions of that file."""
    missing = []
    elsewhere = {word for file in FILES if file.startswith("wsbridge/") and file.endswith(".py") for word in names_in(ROOT / file)}
    for line in (ROOT / "docs/glossary.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 3 or not (files := [name for name in NAMED_FILE.findall(cells[2]) if name.endswith(".py")]):
            continue
        paths = [ROOT / file for name in files for file in FILES if file == name or file.endswith(f"/{name}")]
        defined = {word for path in paths for word in names_in(path)}
        for word in re.findall(r"`([A-Z]\w+)`", cells[2]):
            if word not in defined and word not in elsewhere:
                missing.append(f"{cells[0]}: {word}")
        if ";" not in cells[2] and " and " not in cells[2]:
            missing += [f"{cells[0]}: {word} is in another file" for word in re.findall(r"`([A-Z]\w+)`", cells[2]) if word not in defined]
    assert missing == []


def names_in(path: Path) -> set[str]:
    """Return the classes that a module defines."""
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)}


def test_comments_name_existing_files() -> None:
    """Every file that a comment or docstring of the package names exists."""
    wrong = []
    for file in FILES:
        if not file.startswith("wsbridge/") or not file.endswith(".py"):
            continue
        for number, line in enumerate((ROOT / file).read_text().splitlines(), 1):
            wrong += [f"{file}:{number}: {name}" for name in re.findall(r"(?<![\w/.-])((?:\w+/)*\w+\.py)\b", line) if not is_there(name)]
    assert wrong == []


def test_every_module_is_in_the_layers() -> None:
    """The diagram of the layers names every module of the package."""
    _, _, below = (ROOT / "docs/architecture.md").read_text().partition("## Layers")
    named = set(re.findall(r"\w+", below.split("```")[1]))
    modules = [Path(file) for file in FILES if file.startswith("wsbridge/") and file.endswith(".py") and "/__" not in file]
    assert [str(module) for module in modules if module.stem not in named] == []
