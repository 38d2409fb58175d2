"""A configuration file with its includes: the merged tables, the place of each value, and every error in one line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.config.otheruser import unprivileged
from wsbridge.config.document import MAX_BYTES, MAX_FILES, Document, read_document
from wsbridge.config.faults import Place

pytestmark = pytest.mark.timeout(120)
"""Timeout in seconds for opening the other end of a FIFO."""

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write files in the working directory, by name."""
    monkeypatch.chdir(tmp_path)

    def write(**files: str | bytes) -> None:
        for name, content in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.toml"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def faults(document: Document) -> list[str]:
    found = [str(fault) for fault in document.faults]
    assert all(line.isprintable() for line in found)
    return found


def test_one_file(write: Write, tmp_path: Path) -> None:
    """A document contains the tables of its file, the place of each path, and the folder of the file."""
    write(main='server.port = 80\n[[endpoint]]\n[[endpoint]]\nmax_programs = "ten"\n')
    document = read_document("main.toml")
    assert document.tables == {"server": {"port": 80}, "endpoint": [{}, {"max_programs": "ten"}]}
    assert faults(document) == []
    assert document.files == (str(tmp_path / "main.toml"),)
    assert document.place(("endpoint", 1, "max_programs")) == Place("main.toml", 4)
    assert document.place(("endpoint", 1, "path")) == Place("main.toml", 3)
    assert document.place(()) == Place("main.toml", 0)
    assert document.folder(("endpoint", 1)) == str(tmp_path)
    fault = document.fault(("endpoint", 1, "max_programs"), 'expected an integer, got "ten"')
    assert str(fault) == 'main.toml:4: endpoint[2].max_programs: expected an integer, got "ten"'


@pytest.mark.parametrize("content", ["", "\ufeff", "\r\n# nothing\r\n"])
def test_empty_file(write: Write, content: str) -> None:
    """An empty file is an empty document."""
    write(main=content)
    document = read_document("main.toml")
    assert (document.tables, document.faults) == ({}, ())


MAIN = """\
include = ["conf.d/*.toml", "extra.toml"]
[server]
port = 80
[[endpoint]]
path = "/main"
"""


def test_includes(write: Write, tmp_path: Path) -> None:
    """A file precedes the sorted files of each pattern; the place and folder of a value are those of its own file."""
    write(
        main=MAIN,
        conf__b='[[endpoint]]\npath = "/b"\n',
        **{"conf.d__b": '\n[[endpoint]]\npath = "/b"\n', "conf.d__a": '[[endpoint]]\npath = "/a"\n[server]\nname = "a"\n'},
        extra="include = 'conf/*.toml'\nserver.guard = true",
    )
    document = read_document("main.toml")
    assert faults(document) == []
    assert document.tables == {
        "server": {"port": 80, "name": "a", "guard": True},
        "endpoint": [{"path": "/main"}, {"path": "/a"}, {"path": "/b"}, {"path": "/b"}],
    }
    assert [str(document.place(("endpoint", index, "path"))) for index in range(4)] == [
        "main.toml:5",
        "conf.d/a.toml:2",
        "conf.d/b.toml:3",
        "conf/b.toml:2",
    ]
    assert document.folder(("endpoint", 2)) == str(tmp_path / "conf.d")
    assert document.folder(("server", "name")) == str(tmp_path / "conf.d")
    assert document.folder(("server",)) == str(tmp_path)
    assert str(document.fault(("endpoint", 2, "path"), "wrong")) == "conf.d/b.toml:3: endpoint[1].path: wrong"
    names = ["main.toml", "conf.d", "conf.d/a.toml", "conf.d/b.toml", "extra.toml", "conf", "conf/b.toml"]
    assert document.files == tuple(str(tmp_path / name) for name in names)


def test_names_as_given(write: Write, tmp_path: Path) -> None:
    """Relative names stay relative and absolute names absolute, for included files too."""
    write(main="include = ['conf.d/*.toml', 'missing.toml']", **{"conf.d__a": "include = '../b.toml'\na"}, b="b")
    write(**{"conf.d__c": "include = '../b.toml'"})
    for name, prefix in (("main.toml", ""), ("./main.toml", "./"), (str(tmp_path / "main.toml"), f"{tmp_path}/")):
        found = [str(fault.place) for fault in read_document(name).faults]
        assert found == [f"{prefix}conf.d/a.toml:2", f"{prefix}conf.d/../b.toml:1", f"{prefix}main.toml:1"]


def test_pattern_without_a_match(write: Write, tmp_path: Path) -> None:
    """A pattern may match nothing, and its folder is watched even if it is missing; a plain name must exist."""
    write(main="include = ['conf.d/*.toml', '*.conf']")
    document = read_document("main.toml")
    assert (document.tables, document.faults) == ({}, ())
    assert document.files == (str(tmp_path / "main.toml"), str(tmp_path / "conf.d"), str(tmp_path))
    write(main="\ninclude = [\n'*.conf',\n'a.toml']")
    document = read_document("main.toml")
    assert faults(document) == ["main.toml:4: include[2]: a.toml: no such file; create the file, or correct the name"]
    assert str(tmp_path / "a.toml") in document.files


def test_file_of_several_patterns(write: Write) -> None:
    """A file that several includes name is read once, and keeps all its names."""
    write(main="include = ['conf.d/*.toml', 'conf.d/a.toml', './conf.d/b.toml']", **{"conf.d__a": "[[e]]\nx = 1"})
    os.symlink("a.toml", "conf.d/b.toml")
    document = read_document("main.toml")
    assert (document.tables, document.faults) == ({"e": [{"x": 1}]}, ())


def test_file_includes_itself(write: Write) -> None:
    """A pattern or a name that includes its own file is an error; the other matches are read."""
    write(main="include = '*.toml'\na = 1", other="b = 1")
    document = read_document("main.toml")
    assert document.tables == {"a": 1, "b": 1}
    assert faults(document) == [
        'main.toml:1: include: the pattern matches main.toml itself; keep the included files in a folder of their own: "conf.d/*.toml"'
    ]
    write(main="a = 1\ninclude = './main.toml'")
    assert faults(read_document("main.toml")) == ["main.toml:2: include: main.toml includes itself; remove this include"]


def test_circle(write: Write) -> None:
    """Files that include each other cause an error that shows the circle, without the files that lead to it."""
    write(main="include = 'a.toml'\n[[e]]\nx = 0", a="include = 'b/c.toml'\n[[e]]\nx = 1", b__c="[[e]]\nx = 2")
    assert faults(read_document("main.toml")) == []
    write(b__c="\ninclude = ['../a.toml']\n[[e]]\nx = 2")
    document = read_document("main.toml")
    circle = "the files include each other in a circle: a.toml -> b/c.toml -> a.toml; remove one of these includes"
    assert faults(document) == [f"b/c.toml:2: include[1]: {circle}"]
    assert document.tables == {"e": [{"x": 0}, {"x": 1}, {"x": 2}]}


def test_circle_through_a_link(write: Write) -> None:
    """A symbolic link does not hide a circle."""
    write(main="include = 'link.toml'")
    os.symlink("main.toml", "link.toml")
    assert faults(read_document("main.toml")) == ["main.toml:1: include: main.toml includes itself; remove this include"]


def test_shared_file_is_not_a_circle(write: Write) -> None:
    """Two files may include the same third file."""
    write(main="include = ['a.toml', 'b.toml']", a="include = 'c.toml'", b="include = 'c.toml'", c="x = 1")
    document = read_document("main.toml")
    assert (document.tables, document.faults) == ({"x": 1}, ())


def test_every_file_includes_all(write: Write) -> None:
    """If each file of a folder includes the whole folder, each file has one error, and loading ends."""
    write(main="include = 'd/*.toml'", **{f"d__{index}": f"include = '*.toml'\nx{index} = 1" for index in range(20)})
    document = read_document("main.toml")
    assert len(document.tables) == 20
    assert len(document.faults) == 20


def test_too_many_files(write: Write) -> None:
    """More files than the limit cause one error, at the include that exceeds it."""
    write(main="\ninclude = 'd/*.toml'", **{f"d__{index:03}": f"x{index} = 1" for index in range(MAX_FILES - 1)})
    assert faults(read_document("main.toml")) == []
    write(d__998="", d__999="")
    document = read_document("main.toml")
    assert faults(document) == ["main.toml:2: include: d/998.toml: the configuration has more than 100 files; include fewer files"]
    assert len(document.tables) == MAX_FILES - 1


def test_long_chain(write: Write) -> None:
    """A chain of includes may be as long as the limit of files."""
    write(main="include = 'x0.toml'", **{f"x{index}": f"include = 'x{index + 1}.toml'\nk{index} = 1" for index in range(MAX_FILES)})
    document = read_document("main.toml")
    assert len(document.tables) == MAX_FILES - 1
    assert faults(document) == ["x98.toml:1: include: x99.toml: the configuration has more than 100 files; include fewer files"]


@pytest.mark.parametrize(
    ("value", "where", "got"),
    [
        ("1", "include", "an integer"),
        ("{}", "include", "a table"),
        ("''", "include", "an empty string"),
        ("['*.x', 1]", "include[2]", "an integer"),
        ("[['a']]", "include[1]", "an array"),
    ],
)
def test_wrong_include(write: Write, value: str, where: str, got: str) -> None:
    """An include is a string or a list of strings."""
    write(main=f"include = {value}\nx = 1")
    document = read_document("main.toml")
    assert document.tables == {"x": 1}
    assert faults(document) == [f'main.toml:1: {where}: expected a file or a pattern, such as "conf.d/*.toml", got {got}']


def test_impossible_patterns(write: Write) -> None:
    """An include with a NUL byte, with `**` or with the name of a missing file is an error at its line."""
    write(main='include = ["a\\u0000", "**/*.toml", "a\\nb.toml"]')
    assert faults(read_document("main.toml")) == [
        "main.toml:1: include[1]: a file name cannot contain U+0000; remove this character",
        "main.toml:1: include[2]: ** is not supported; write one pattern for each level of folders: *.toml and */*.toml",
        "main.toml:1: include[3]: 'a\\nb.toml': no such file; create the file, or correct the name",
    ]


def test_closed_folder(write: Write, tmp_path: Path) -> None:
    """A folder that cannot be listed is an error, not a pattern without matches."""
    write(main="include = 'd/*.toml'", d__a="")
    (tmp_path / "d").chmod(0)
    try:
        with unprivileged(tmp_path):
            document = read_document("main.toml")
    finally:
        (tmp_path / "d").chmod(0o700)
    assert str(tmp_path / "d") in document.files
    assert faults(document) == [
        "main.toml:1: include: d: cannot list this folder: permission denied; let the user that runs wsbridge read it"
    ]


def test_same_key_in_two_files(write: Write) -> None:
    """A key in two files is an error that names both places."""
    write(main="include = 'a.toml'\n\n[server]\nport = 80", a="server.port = 81\nserver.name = 'x'")
    document = read_document("main.toml")
    assert document.tables == {"server": {"port": 80, "name": "x"}}
    assert faults(document) == ["a.toml:1: server.port: main.toml:4 already sets this key; remove one of the two"]


def test_every_error_is_collected(write: Write) -> None:
    """The errors of all files are reported; none hides those of another file."""
    write(
        main="include = ['a.toml', 'b.toml', 'c.toml', 'missing.toml', 'd.toml']\nx = 1",
        a="x = 2",
        b="\ny: 1",
        c=b"z = '\xe9'",
        d="y = 1\ninclude = 1",
    )
    document = read_document("main.toml")
    assert document.tables == {"x": 1, "y": 1}
    assert faults(document) == [
        "b.toml:2: invalid TOML at column 2: write = instead of : between the key and its value",
        "c.toml:1: not UTF-8 at column 6 (byte 0xE9); save the file as UTF-8",
        "main.toml:1: include[4]: missing.toml: no such file; create the file, or correct the name",
        'd.toml:2: include: expected a file or a pattern, such as "conf.d/*.toml", got an integer',
        "a.toml:1: x: main.toml:2 already sets this key; remove one of the two",
    ]


def test_unusable_file(write: Write, tmp_path: Path) -> None:
    """An unreadable first file is one error, and is watched; its paths still have their place."""
    write(long="#" * (MAX_BYTES + 1), limit="#" * MAX_BYTES, invalid="x")
    os.mkfifo("fifo")
    expected = {
        "missing.toml": "missing.toml: no such file; create the file, or correct the name",
        ".": ".: a directory, not a regular file; name a regular file",
        "fifo": "fifo: a FIFO, not a regular file; name a regular file",
        "/dev/null": "/dev/null: a device, not a regular file; name a regular file",
        "long.toml": "long.toml: longer than 1 MiB, the limit for such a file; shorten it, or name another file",
        "invalid.toml": "invalid.toml:1: invalid TOML at column 2: the key has no value; write = and a value after the key",
        "a\0": "'a\\x00': no file can have this name; correct the name",
    }
    for name, sentence in expected.items():
        document = read_document(name)
        assert faults(document) == [sentence]
        assert document.tables == {}
        assert document.files == (os.path.abspath(name),)
        assert document.place(("server", "port")) == Place(name, 0)
        assert document.folder(()) == os.path.dirname(os.path.abspath(name))
    assert faults(read_document("limit.toml")) == []


def test_unreadable_file(write: Write, tmp_path: Path) -> None:
    """A configuration file without read permission is an error that names the file."""
    write(main="x = 1")
    (tmp_path / "main.toml").chmod(0)
    with unprivileged(tmp_path):
        document = read_document("main.toml")
    assert faults(document) == ["main.toml: permission denied; let the user that runs wsbridge read the file"]


def test_odd_name(write: Write) -> None:
    """A file name that is not UTF-8 appears with escapes."""
    write(main="include = '*.conf'")
    with open(b"\xff.conf", "wb") as file:
        file.write(b"x")
    assert faults(read_document("main.toml"))[0].startswith("'\\udcff.conf':1: invalid TOML")


def test_removed_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative name in a deleted working directory is a missing file."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert faults(read_document("main.toml")) == ["main.toml: no such file; create the file, or correct the name"]
    monkeypatch.chdir(tmp_path)


def test_many_tables(write: Write) -> None:
    """100,000 tables take at most seconds of CPU time, and each has its place."""
    write(main="include = 'a.toml'\n" + "[[e]]\n" * 50_000, a="[[e]]\n" * 50_000)
    began = time.process_time()
    document = read_document("main.toml")
    assert document.place(("e", 49_999)) == Place("main.toml", 50_001)
    assert document.place(("e", 99_999)) == Place("a.toml", 50_000)
    assert time.process_time() - began < 15
