"""Patterns of includes: their matches, the order, and the folders to watch for later matches."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.otheruser import unprivileged
from wsbridge.config.includes import expand, is_pattern

FILES = (
    "10.toml",
    "9.toml",
    ".hidden.toml",
    "a.toml~",
    "[x].toml",
    "sites/a/site.toml",
    "sites/b/site.toml",
    "sites/c/other",
    "sites/file",
)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return str(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "names", "folders"),
    [
        ("*.toml", ["10.toml", "9.toml", "[x].toml"], [""]),
        ("?.toml", ["9.toml"], [""]),
        ("[0-9]*.toml", ["10.toml", "9.toml"], [""]),
        ("[!9].toml", [], [""]),
        ("[[]x].toml", ["[x].toml"], [""]),
        (".*.toml", [".hidden.toml"], [""]),
        ("./*.toml", ["./10.toml", "./9.toml", "./[x].toml"], ["."]),
        ("sites/*/site.toml", ["sites/a/site.toml", "sites/b/site.toml"], ["sites"]),
        (
            "sites/*/*",
            ["sites/a/site.toml", "sites/b/site.toml", "sites/c/other"],
            ["sites", "sites/a", "sites/b", "sites/c"],
        ),
        ("missing/*.toml", [], ["missing"]),
        ("9.toml/*", [], []),
        ("plain.toml", ["plain.toml"], []),
        ("sites/../9.toml", ["sites/../9.toml"], []),
        ("sites//a/", ["sites/a"], []),
    ],
)
def test_patterns(folder: str, pattern: str, names: list[str], folders: list[str]) -> None:
    """Matches are sorted; a pattern may match nothing; it must spell out the dot of a hidden file; a plain name matches itself."""
    expansion = expand(pattern, folder)
    assert list(expansion.names) == [f"{folder}/{name}" for name in names]
    assert sorted(expansion.folders) == [f"{folder}/{name}" if name else folder for name in folders]
    absolute = expand(f"{folder}/{pattern}", "elsewhere")
    assert [Path(name) for name in absolute.names] == [Path(name) for name in expansion.names]


def test_names_stay_relative(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matches are as relative as the folder of the including file; an empty folder is the working directory."""
    monkeypatch.chdir(folder)
    assert expand("[0-9]*.toml", "").names == ("10.toml", "9.toml")
    assert expand("[0-9]*.toml", "").folders == ("",)
    assert expand("a/*.toml", "sites").names == ("sites/a/site.toml",)


def test_dangling_link(folder: str) -> None:
    """A dangling link is a match: reading it reports the error."""
    (Path(folder) / "dangling.toml").symlink_to("nowhere")
    assert f"{folder}/dangling.toml" in expand("*.toml", folder).names


def test_closed_folder(folder: str) -> None:
    """A folder that exists but cannot be listed is an error, not an empty match."""
    closed = Path(folder) / "sites"
    closed.chmod(0)
    try:
        with unprivileged(Path(folder)), pytest.raises(PermissionError) as caught:
            expand("sites/*", folder)
    finally:
        closed.chmod(0o700)
    assert caught.value.filename == str(closed)


@pytest.mark.parametrize(
    ("pattern", "sentence"), [("a\0*", "U\\+0000"), ("conf.d/**/*.toml", "write one pattern for each level"), ("**", "not supported")]
)
def test_refused_patterns(folder: str, pattern: str, sentence: str) -> None:
    """A pattern with another meaning than in a shell is an error."""
    with pytest.raises(ValueError, match=sentence):
        expand(pattern, folder)


def test_plain_names() -> None:
    """A name with `*`, `?` or `[` is a pattern, and any other name is the name of a file."""
    assert [is_pattern(name) for name in ("a.toml", "*.toml", "a?", "[a]", "a]")] == [False, True, True, True, False]
