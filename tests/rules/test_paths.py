"""The place of a URL's path below a directory; no path reaches a file outside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsbridge.rules.environ import Script
from wsbridge.rules.paths import PathType, ScriptPath, clean, find_script, make_lookup


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        ("", "/"),
        ("/", "/"),
        ("//", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/a//b", "/a/b"),
        ("//a", "/a"),
        ("///a//", "/a/"),
        ("/./a", "/a"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/../a", "/a"),
        ("/../../..", "/"),
        ("/a/b/../../../c/", "/c/"),
        ("/...", "/..."),
        ("/a/..b", "/a/..b"),
        ("/.hidden", "/.hidden"),
        ("a", "/a"),
        ("/a b\\..\\c", "/a b\\..\\c"),
    ],
)
def test_clean(path: str, cleaned: str) -> None:
    """`//`, `.` and `..` are resolved as in Go's ServeMux. A trailing slash stays; `..` at the root is the root."""
    assert clean(path) == cleaned


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", ".", "..", "", "...", "é", " "])).map("/".join) | st.text(alphabet="/.a"))
def test_clean_path(path: str) -> None:
    """A clean path begins with one slash, has no `.`, no `..` and no empty part except at its end. Cleaning it again changes nothing."""
    cleaned = clean(path)
    beginning, *parts = cleaned.split("/")
    assert beginning == ""
    assert not {".", ".."} & set(parts)
    assert "" not in parts[:-1]
    assert clean(cleaned) == cleaned


TREE = {
    "script.sh": PathType.FILE,
    "sub": PathType.DIRECTORY,
    "sub/deep.sh": PathType.FILE,
    "sub/sub": PathType.DIRECTORY,
    ".hidden": PathType.FILE,
}


def look(walked: str) -> PathType:
    assert walked
    assert not {"", ".", ".."} & set(walked.split("/"))
    return TREE.get(walked, PathType.NOTHING)


@pytest.mark.parametrize(
    ("path", "file", "name", "info"),
    [
        ("/script.sh", "script.sh", "/script.sh", ""),
        ("/script.sh/", "script.sh", "/script.sh", "/"),
        ("/script.sh/extra/p", "script.sh", "/script.sh", "/extra/p"),
        ("/script.sh/extra/", "script.sh", "/script.sh", "/extra/"),
        ("/sub/deep.sh", "sub/deep.sh", "/sub/deep.sh", ""),
        ("/sub/deep.sh/sub", "sub/deep.sh", "/sub/deep.sh", "/sub"),
        ("/.hidden", ".hidden", "/.hidden", ""),
    ],
)
def test_script(path: str, file: str, name: str, info: str) -> None:
    """The first part of the path that is a file is the script; the rest is PATH_INFO."""
    assert find_script(path, look) == ScriptPath(file, Script(name, info))


@pytest.mark.parametrize(
    "path", ["/", "/sub", "/sub/", "/sub/sub", "/missing", "/missing/script.sh", "/sub/no.sh/x", "/script", "/SCRIPT.SH"]
)
def test_no_script(path: str) -> None:
    """A directory at the end, a missing part, and `/` alone lead to no script."""
    assert find_script(path, look) is None


@settings(deadline=None)
@given(st.lists(st.sampled_from(["script.sh", "sub", "deep.sh", "x", ".", "..", "", "a/b"]), max_size=5).map("/".join))
def test_lookup_never_leaves_the_directory(path: str) -> None:
    """For any clean path, the lookup only asks for names below the directory, and loses no part of the path."""
    cleaned = clean(path)
    if (target := find_script(cleaned, look)) is not None:
        assert target.script.name + target.script.info == cleaned
        assert TREE[target.file] is PathType.FILE


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with all kinds of entries, next to a directory whose name has the same prefix."""
    root, outside = tmp_path / "root", tmp_path / "root-outside"
    for directory in (root / "sub", outside / "dir"):
        directory.mkdir(parents=True)
    for file in (root / "a.sh", root / "sub" / "b.sh", outside / "secret", outside / "dir" / "secret"):
        file.write_text("")
    os.mkfifo(root / "fifo")
    links = {
        "in-file": "a.sh",
        "in-dir": "sub",
        "in-absolute": root / "sub" / "b.sh",
        "round": "sub/../a.sh",
        "out-file": outside / "secret",
        "out-dir": outside / "dir",
        "out-relative": "../root-outside/secret",
        "out-twice": "out-file",
        "sub/up": "../..",
        "dangling": "nowhere",
        "loop": "loop",
        "fifo-link": "fifo",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    (tmp_path / "link-to-root").symlink_to(root)
    return root


@pytest.mark.parametrize(
    ("walked", "found"),
    [
        ("a.sh", PathType.FILE),
        ("sub", PathType.DIRECTORY),
        ("sub/b.sh", PathType.FILE),
        ("in-file", PathType.FILE),
        ("in-dir", PathType.DIRECTORY),
        ("in-dir/b.sh", PathType.FILE),
        ("in-absolute", PathType.FILE),
        ("round", PathType.FILE),
        ("out-file", PathType.NOTHING),
        ("out-dir", PathType.NOTHING),
        ("out-dir/secret", PathType.NOTHING),
        ("out-relative", PathType.NOTHING),
        ("out-twice", PathType.NOTHING),
        ("sub/up", PathType.NOTHING),
        ("sub/up/root-outside/secret", PathType.NOTHING),
        ("dangling", PathType.NOTHING),
        ("loop", PathType.NOTHING),
        ("fifo", PathType.NOTHING),
        ("fifo-link", PathType.NOTHING),
        ("missing", PathType.NOTHING),
        ("a.sh/below", PathType.NOTHING),
        ("..", PathType.NOTHING),
        ("../root-outside/secret", PathType.NOTHING),
        ("sub/../../root-outside/secret", PathType.NOTHING),
        ("a\0.sh", PathType.NOTHING),
        ("x" * 300, PathType.NOTHING),
        ("x/" * 3000, PathType.NOTHING),
        ("\udcff", PathType.NOTHING),
    ],
    ids=lambda value: value[:30].replace("\0", "NUL") if isinstance(value, str) else value.name,
)
def test_looker(root: Path, walked: str, found: PathType) -> None:
    """The lookup follows links inside the directory, ignores all that is neither file nor directory, and raises nothing."""
    assert make_lookup(str(root))(walked) is found


def test_directory_may_be_a_link_itself(root: Path) -> None:
    """The served directory may be a symbolic link; a link that leads outside is still not found."""
    look = make_lookup(str(root.parent / "link-to-root"))
    assert [look("a.sh"), look("in-absolute"), look("out-file")] == [PathType.FILE, PathType.FILE, PathType.NOTHING]


def test_disk_is_read_for_each_request(root: Path) -> None:
    """The lookup reads the disk for each request, so scripts may be added or removed without a restart."""
    look = make_lookup(str(root))
    (root / "new.sh").write_text("")
    assert look("new.sh") is PathType.FILE
    (root / "new.sh").unlink()
    assert look("new.sh") is PathType.NOTHING


def test_dotfiles(root: Path) -> None:
    """Without `dotfiles`, a path with a dotfile is not found, except below /.well-known."""
    for name in (".git/hooks/update", "sub/.x.sh", ".well-known/a.sh"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    paths = ("/.git/hooks/update", "/sub/.x.sh", "/.well-known/a.sh")
    for dotfiles in (False, True):
        found = [find_script(path, make_lookup(str(root), dotfiles=dotfiles)) for path in paths]
        assert [target is not None for target in found] == [dotfiles, dotfiles, True]


def test_name_that_is_not_utf8(root: Path) -> None:
    """A file name may have any bytes; the lookup decodes them with surrogate escapes."""
    (root / os.fsdecode(b"\xff.sh")).write_text("")
    assert make_lookup(str(root))("\udcff.sh") is PathType.FILE
