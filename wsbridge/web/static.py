"""Files of a directory: `--staticdir`.

A path is walked by the rules, opened, and only then asked where it really is: what is served is the very file that was
proved to be inside, whatever happens to the names meanwhile. Ranges and conditions are aiohttp's; the bytes are sent here,
in pieces through its writer, so that it is seen what the client takes, and whether the file was long enough.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import heapq
import mimetypes
import os
import posixpath
import re
import stat
from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import IO, Any, TypeVar
from urllib.parse import quote

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from wsbridge.errors import Refused
from wsbridge.logs import Pairs, extra, logger
from wsbridge.rules.request import Request
from wsbridge.web import listing
from wsbridge.web.answers import protect
from wsbridge.web.patience import Patience
from wsbridge.web.withheld import Identity, Withheld, is_below

INDEX = "index.html"
PIECE = 128 * 1024
"""Bytes of a file that are read at once: as many as a slow client makes us keep, beside what its transport does."""

LISTED = 10_000
"""Entries of a directory that are listed, the first in order: a page of about a megabyte, made in some 50 ms."""

COMPRESSED = {
    ".gz": "application/gzip",
    ".tgz": "application/gzip",
    ".bz2": "application/x-bzip2",
    ".tbz2": "application/x-bzip2",
    ".xz": "application/x-xz",
    ".txz": "application/x-xz",
    ".zst": "application/zstd",
}
"""What `mimetypes` takes for an encoding of something else, or does not know: files are sent as they lie."""
BYTES = "application/octet-stream"

SNIFFED = 512
"""Bytes that show whether a file is text (as in the WHATWG's MIME Sniffing Standard, section 7)."""
NO_TEXT = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
"""The control bytes that no text holds: all but tab, line feed, form feed, carriage return and escape."""

RANGE = re.compile(r"bytes=(\d+-\d*|-\d+)\Z")
NO_BYTES = re.compile(r"bytes=-0+\Z")
DATED = ("If-Modified-Since", "If-Unmodified-Since")

log = logger("http")

T = TypeVar("T")


class StaticFiles:
    """Serves what lies below one directory; itself it may be a link, links out of it are not followed.

    The disk is asked in other threads, so that a slow one delays nothing but its own answers. Directories are listed one after the
    other: to make a long list keeps the interpreter busy.
    """

    def __init__(self, root: str, *, withheld: Withheld, patience: Patience) -> None:
        self._root = os.path.realpath(root)
        self._withheld = withheld
        self._patience = patience
        self._listing_turn = asyncio.Semaphore(1)

    async def find(self, request: Request) -> web.StreamResponse | None:
        """Return the answer to a request, or None when there is no such file. Raises Refused."""
        found = await in_a_thread(self._find, request)
        if not isinstance(found, Opened):
            return found
        async with self._listing_turn:
            return await in_a_thread(self._listing, request.path, found)

    async def has_index(self) -> bool:
        """Whether the root has a page of its own."""
        return await in_a_thread(self._open, "/" + INDEX) is not None

    def _find(self, request: Request) -> web.StreamResponse | Opened | None:
        """Return the answer, the directory that is to be listed, or None."""
        path = name = request.path
        if self._withheld.hides(path):
            return None
        if path.endswith("/" + INDEX):
            return _moved("./", request)
        opened = self._open(path)
        if opened is None:
            return None
        if opened.is_directory:
            if not path.endswith("/"):
                return _moved(f"./{_quoted(posixpath.basename(path))}/", request)
            index = self._open(path + INDEX)
            if index is None:
                return opened
            opened, name = index, INDEX
        elif path.endswith("/"):
            return _moved("../" + _quoted(posixpath.basename(path[:-1])), request)
        if self._withheld.holds(opened.real, opened.status, self._withheld.identities()):
            return None
        return OpenFile(opened, name, patience=self._patience, pairs={"url": request.url})

    def _listing(self, path: str, opened: Opened) -> web.Response:
        """List a directory: LISTED entries at most, and nothing that is withheld."""
        with os.scandir(opened.fd) as entries:
            found = [entry for entry in entries if not self._withheld.hides(path + entry.name)]
        identities = self._withheld.identities()
        listed: list[listing.Entry] = []
        for entry in heapq.nsmallest(LISTED, found, key=_sort_key):
            if not self._leads_to_withheld(entry, opened.real, identities):
                listed += _listed(entry)
        page = listing.render(path, listed, left_out=max(0, len(found) - LISTED))
        response = web.Response(text=page, content_type="text/html")
        protect(response, listing.POLICY)
        return response

    def _leads_to_withheld(self, entry: os.DirEntry[str], folder: str, identities: frozenset[Identity]) -> bool:
        path = os.path.join(folder, entry.name)
        try:
            if entry.is_dir(follow_symlinks=False):
                return False
            return self._withheld.holds(os.path.realpath(path) if entry.is_symlink() else path, entry.stat(), identities)
        except OSError:
            return False

    def _open(self, path: str) -> Opened | None:
        """Open a file or directory below the root, or None."""
        name = path.strip("/")
        try:
            opened = Opened(os.path.join(self._root, name))
        except PermissionError:
            raise Refused(403, "403 Forbidden") from None
        except (OSError, ValueError):
            return None
        is_served = is_below(opened.real, self._root) and (opened.is_directory or stat.S_ISREG(opened.status.st_mode))
        return opened if is_served else None


class Opened:
    """An open file or directory. Its descriptor is closed by `close`, and at the latest when nothing refers to it.

    An answer may fail before its first byte, in code that is not ours; its descriptor is closed all the same.
    """

    def __init__(self, path: str) -> None:
        """Raises OSError, and ValueError for a name that holds a NUL."""
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.real = os.readlink(f"/proc/self/fd/{self.fd}")
        """Where it is, with every link resolved."""
        self.status = os.fstat(self.fd)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def modified(self) -> int:
        """When it was changed, in whole seconds: a float of them, st_mtime, may be rounded up."""
        return self.status.st_mtime_ns // 10**9

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    __del__ = close


class OpenFile(web.FileResponse):
    """A file that is open already: named through its descriptor, so that no other can take its place."""

    def __init__(self, opened: Opened, name: str, *, patience: Patience, pairs: Pairs) -> None:
        self._opened = opened
        super().__init__(f"/proc/self/fd/{opened.fd}", headers={"Content-Type": _with_charset(_kind(name, opened.fd))})
        self._patience = patience
        self._pairs = pairs

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        with contextlib.closing(self._opened):
            return await super().prepare(self._as_meant(request))

    def _as_meant(self, request: web.BaseRequest) -> web.BaseRequest:
        """Return the request with the Range that is to be answered, if any."""
        wanted = request.headers.get("Range")
        if wanted is None and not any(name in request.headers for name in DATED):
            return request
        left_out, put_in = {"if-range"}, self._conditions(request)
        if wanted is not None and (not RANGE.match(wanted) or not self._is_meant(request)):
            # A unit that is unknown, or several ranges: to be ignored, or may be (RFC 9110, section 14.2); aiohttp answers 416.
            left_out.add("range")
        elif wanted is not None and NO_BYTES.match(wanted):
            # The last 0 bytes cannot be sent (section 14.1.2); aiohttp sends them all.
            put_in["Range"] = f"bytes={self._opened.status.st_size}-"
        left_out |= {name.lower() for name in put_in}
        # Bytes above 0x7F are opaque (RFC 9110, section 5.5): as Latin-1 they stay different from all that has a meaning.
        kept = [(name, _latin(value)) for name, value in request.headers.items() if name.lower() not in left_out]
        return request.clone(headers=[*kept, *put_in.items()])

    def _conditions(self, request: web.BaseRequest) -> dict[str, str]:
        """Return the conditions with a date, for aiohttp, which compares it with fractions of a second that Last-Modified lacks."""
        conditions = {}
        if self._opened.status.st_mtime_ns % 10**9:
            for name, date in zip(DATED, (request.if_modified_since, request.if_unmodified_since), strict=True):
                if date is not None:
                    conditions[name] = format_datetime(date + timedelta(seconds=1), usegmt=True)
        return conditions

    @property
    def last_modified(self) -> datetime | None:
        return super().last_modified

    @last_modified.setter
    def last_modified(self, value: float | datetime | str | None) -> None:
        """Set the date of the file, its fraction of a second dropped, in place of aiohttp's: rounded up, it may lie in the future."""
        parent: Any = web.FileResponse.last_modified
        parent.fset(self, self._opened.modified if isinstance(value, (int, float)) else value)

    def _is_meant(self, request: web.BaseRequest) -> bool:
        """Whether it is this version of the file of which a part is wanted (RFC 9110, section 13.1.5); aiohttp knows dates only."""
        condition = request.headers.get("If-Range")
        if condition is None:
            return True
        version = self._opened.status
        if (date := request.if_range) is not None:
            return date.timestamp() == self._opened.modified
        return condition == f'"{version.st_mtime_ns:x}-{version.st_size:x}"'

    async def _sendfile(self, request: web.BaseRequest, fobj: IO[Any], offset: int, count: int) -> AbstractStreamWriter:
        """Send the body, in place of aiohttp's own way, which shows neither what a client takes nor that a file is too short."""
        writer = await web.StreamResponse.prepare(self, request)
        assert writer is not None
        end = offset + count
        while offset < end:
            # In another thread: a disk that is slow holds up nobody else.
            read = asyncio.get_running_loop().run_in_executor(None, os.pread, fobj.fileno(), min(PIECE, end - offset), offset)
            piece = await read
            if not piece:
                log.error("file was cut off while it was sent: %d bytes are missing", end - offset, extra=extra(self._pairs))
                request.protocol.force_close()
                return writer
            offset += len(piece)
            with self._patience.watching(request, self._pairs):
                await self.write(piece)
        with self._patience.watching(request, self._pairs):
            await self.write_eof()
        return writer


async def in_a_thread(function: Callable[..., T], *arguments: object) -> T:
    """Call a function that asks the disk, and wait for its result without keeping the loop."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


def _sort_key(entry: os.DirEntry[str]) -> tuple[bool, str, str]:
    """Return what puts directories first, then names in order, as the page has them."""
    return not entry.is_dir(follow_symlinks=False), entry.name.casefold(), entry.name


def _kind(name: str, fd: int) -> str:
    """Return the type of a file, by the name that it was asked for; without a type of its own it is text or bytes."""
    _, suffix = posixpath.splitext(name)
    if compressed := COMPRESSED.get(suffix.lower()):
        return compressed
    kind, encoding = mimetypes.guess_type("/" + posixpath.basename(name))
    if encoding:
        return BYTES
    return kind or ("text/plain" if _is_text(os.pread(fd, SNIFFED, 0)) else BYTES)


def _is_text(head: bytes) -> bool:
    try:
        # The last character may be one that is cut in two.
        codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < SNIFFED)
    except UnicodeDecodeError:
        return False
    return NO_TEXT.search(head) is None


def _with_charset(kind: str) -> str:
    return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind == "application/javascript" else kind


def _latin(value: str) -> str:
    """Return a header's value with each byte above 0x7F as the character of that number."""
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("latin-1")


def _moved(location: str, request: Request) -> web.Response:
    response = web.Response(status=301, headers={"Location": location + ("?" + request.query if request.query else "")})
    protect(response)
    return response


def _quoted(name: str) -> str:
    return quote(name, errors="surrogateescape")


def _listed(entry: os.DirEntry[str]) -> list[listing.Entry]:
    """Return the entry of a listing; a link has the size and the date of its target. Empty if it is gone meanwhile."""
    for follow in (True, False):
        with contextlib.suppress(OSError):
            status = entry.stat(follow_symlinks=follow)
            return [listing.Entry(entry.name, stat.S_ISDIR(status.st_mode), status.st_size, status.st_mtime)]
    return []
