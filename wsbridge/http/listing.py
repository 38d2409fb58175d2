"""The HTML page of a directory, as a pure function of the directory's content.

The page has no script, and its policy allows only its own style.
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote

from wsbridge.http.page import asset, icon_url, sources

STYLE = asset("base.css") + asset("listing.css")
POLICY = f"default-src 'none'; style-src {sources([STYLE])}; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

HEAD = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
    f'<link rel="icon" href="{icon_url()}">\n<style>{STYLE}</style>\n'
)
BODY = (
    "<title>Files in {path}</title>\n</head>\n<body>\n<main>\n"
    "<h1><bdi>{path}</bdi></h1>\n<p>{count}</p>\n{table}</main>\n</body>\n</html>\n"
)
TABLE = (
    '<table>\n<thead><tr><th scope="col">Name</th><th scope="col">Size</th><th scope="col">Modified (UTC)</th></tr></thead>\n'
    "<tbody>\n{rows}</tbody>\n</table>\n"
)
UP = '<tr><td><a class="up" href="../">Parent directory</a></td><td></td><td></td></tr>\n'
ROW = '<tr><td><a{kind} href="{href}"><bdi>{name}</bdi></a></td><td>{size}</td><td>{date}</td></tr>\n'

UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that the page does not show in a name: line ends, and controls that reverse the text after them to fake a suffix."""


class Entry(NamedTuple):
    """An entry of a directory: a file, or a directory, whose size has no meaning."""

    name: str
    is_directory: bool
    size: int
    modified: float
    """Seconds since the epoch."""


def render(path: str, entries: Iterable[Entry], *, mount: str = "", omitted: int = 0) -> str:
    """Return the page of a directory: directories first, then files, both sorted by name.

    `path` ends with a slash, and counts from `mount`, above which no link leads. `omitted` is the number of further entries, which
    the page does not list. A name may contain any character, and surrogates in place of bytes that are not UTF-8.
    """
    ordered = sorted(entries, key=lambda entry: (not entry.is_directory, entry.name.casefold(), entry.name))
    rows = (UP if path != "/" else "") + "".join(map(_row, ordered))
    count = _count(ordered) + (f"; {omitted:,} more are not shown" if omitted else "")
    return HEAD + BODY.format(path=_shown(mount + path), count=count, table=TABLE.format(rows=rows) if rows else "")


def size_of(size: int) -> str:
    """Return a size as text with about two digits: `512 B`, `1.5 kB`, `20 MB`."""
    if size < 1000:
        return f"{size} B"
    amount = float(size)
    for unit in UNITS:
        amount /= 1000
        if amount < 999.5 or unit == UNITS[-1]:
            return f"{amount:.1f} {unit}" if amount < 9.95 else f"{amount:.0f} {unit}"
    raise AssertionError


def _row(entry: Entry) -> str:
    name = entry.name + ("/" if entry.is_directory else "")
    return ROW.format(
        kind=' class="folder"' if entry.is_directory else "",
        # The leading `./` keeps browsers from reading a name with a colon as a URL with a scheme.
        href=quote("./" + name, errors="surrogateescape"),
        name=_shown(name),
        size="" if entry.is_directory else size_of(entry.size),
        date=_date(entry.modified),
    )


def _date(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return ""


def _count(entries: list[Entry]) -> str:
    folders = sum(entry.is_directory for entry in entries)
    files = len(entries) - folders
    parts = [_plural(folders, "directory", "directories")] if folders else []
    return ", ".join([*parts, _plural(files, "file", "files")] if files or not folders else parts)


def _plural(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}" if number else f"no {many}"


def _shown(name: str) -> str:
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return html.escape(CONTROLS.sub("\ufffd", text))
