"""The page of a directory, as a pure function."""

from __future__ import annotations

import re

import pytest

from wsbridge.http.listing import Entry, render, size_of

MODIFIED = 1_795_227_069.0


def file(name: str, size: int = 1, modified: float = MODIFIED) -> Entry:
    return Entry(name, is_directory=False, size=size, modified=modified)


def folder(name: str) -> Entry:
    return Entry(name, is_directory=True, size=4096, modified=MODIFIED)


def links(page: str) -> list[tuple[str, str]]:
    return re.findall(r'<a(?: class="folder")? href="([^"]*)"><bdi>(.*?)</bdi></a>', page)


def test_directories_come_first() -> None:
    """Directories precede files, both sorted by name without regard to case."""
    page = render("/", [file("b"), file("C"), folder("z"), file("a"), folder("Y")])
    assert [text for _, text in links(page)] == ["Y/", "z/", "a", "b", "C"]
    assert "<p>2 directories, 3 files</p>" in page


def test_sizes_and_dates() -> None:
    """A file has its size and its modification time in UTC, a directory only the time."""
    page = render("/", [file("a", 20_000_000), folder("d")])
    assert re.findall(r"<td>([^<]*)</td><td>([^<]*)</td></tr>", page) == [("", "2026-11-21 02:11"), ("20 MB", "2026-11-21 02:11")]


@pytest.mark.parametrize(("path", "has_parent"), [("/", False), ("/a/", True), ("/a/b/", True)])
def test_parent(path: str, has_parent: bool) -> None:
    """Every directory except the root has a relative link to its parent, which works below a prefix."""
    assert ('href="../"' in render(path, [])) is has_parent


def test_mount() -> None:
    """Below a mount, the page shows the whole path, and no link leads out of the endpoint."""
    root, below = render("/", [], mount="/files"), render("/a/", [], mount="/files")
    assert "<title>Files in /files/</title>" in root
    assert "<title>Files in /files/a/</title>" in below
    assert ['href="../"' in page for page in (root, below)] == [False, True]


@pytest.mark.parametrize(
    ("name", "href", "shown"),
    [
        ("javascript:alert(1)", "./javascript%3Aalert%281%29", "javascript:alert(1)"),
        ("a?b#c", "./a%3Fb%23c", "a?b#c"),
        ("%41", "./%2541", "%41"),
        ('"><script>', "./%22%3E%3Cscript%3E", "&quot;&gt;&lt;script&gt;"),
        ("\udcff.txt", "./%FF.txt", "\ufffd.txt"),
        ("two\nlines", "./two%0Alines", "two\ufffdlines"),
        ("cod\u202etxt.exe", "./cod%E2%80%AEtxt.exe", "cod\ufffdtxt.exe"),
        ("{braces}", "./%7Bbraces%7D", "{braces}"),
        ("\u05e9\u05dc\u05d5\u05dd", "./%D7%A9%D7%9C%D7%95%D7%9D", "\u05e9\u05dc\u05d5\u05dd"),
    ],
)
def test_unusual_names(name: str, href: str, shown: str) -> None:
    """A name appears as plain text, and its link is correct; control characters that would hide its end appear as U+FFFD."""
    assert links(render("/", [file(name)])) == [(href, shown)]


@pytest.mark.parametrize("path", ["/<b>/", "/\udcff/", "/{0}/", "/%/"])
def test_unusual_paths(path: str) -> None:
    """The path in the title and in the heading is plain text too."""
    page = render(path, [])
    assert "<b>" not in page
    page.encode()


@pytest.mark.parametrize("modified", [1e30, -1e30, float("inf"), float("nan")])
def test_time_out_of_range(modified: float) -> None:
    """A file with a time outside the calendar's range is listed without a date."""
    assert "<td>1 B</td><td></td>" in render("/", [file("a", modified=modified)])


def test_empty() -> None:
    """The listing of an empty directory says that it is empty."""
    assert "<p>no files</p>" in render("/", [])


def test_truncated_listing() -> None:
    """A truncated listing shows the number of missing entries."""
    assert "<p>1 file; 99,999 more are not shown</p>" in render("/", [file("a")], omitted=99_999)


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1536, "1.5 kB"), (999_499, "999 kB"), (999_500, "1.0 MB"), (10**18, "1.0 EB")],
)
def test_sizes_in_words(size: int, shown: str) -> None:
    """A size has two digits and a decimal unit."""
    assert size_of(size) == shown
