"""Files of a directory: `--staticdir`.

The server checks a path against the rules, opens it, and only then asks the kernel where the open file is. So it serves exactly the
file that it has proved to be inside the directory, even if the names change meanwhile. aiohttp evaluates ranges and
conditions. This module sends the bytes in pieces through aiohttp's writer. So it measures how much the client accepts, and whether the
file was long enough.
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

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from wsbridge.errors import Refused
from wsbridge.http import listing
from wsbridge.http.answers import protect
from wsbridge.http.hiddenfiles import HiddenFiles, Identity, is_below
from wsbridge.http.responsetimeout import ResponseTimeout
from wsbridge.logs import LogFields, extra, logger
from wsbridge.rules.request import Request

INDEX = "index.html"
PIECE = 128 * 1024
"""Bytes of one read from a file. A slow client makes the server hold this much in addition to the buffer of its transport."""

LISTED = 10_000
"""The most entries that a listing shows, the first in order: a page of about a megabyte, built in about 50 ms."""

COMPRESSED = {
    ".gz": "application/gzip",
    ".tgz": "application/gzip",
    ".bz2": "application/x-bzip2",
    ".tbz2": "application/x-bzip2",
    ".xz": "application/x-xz",
    ".txz": "application/x-xz",
    ".zst": "application/zstd",
}
"""Suffixes that `mimetypes` treats as an encoding of another type, or does not know: the server sends files unchanged."""
BYTES = "application/octet-stream"

SNIFFED = 512
"""Bytes that show whether a file is text (as in the WHATWG's MIME Sniffing Standard, section 7)."""
NO_TEXT = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
"""The control bytes that no text contains: all but tab, line feed, form feed, carriage return and escape."""

RANGE = re.compile(r"bytes=(\d+-\d*|-\d+)\Z")
NO_BYTES = re.compile(r"bytes=-0+\Z")
DATED = ("If-Modified-Since", "If-Unmodified-Since")

log = logger("http")

T = TypeVar("T")


class StaticFiles:
    """Serves the files below one directory.

    The directory itself may be a link; the server does not follow links that lead out of it. Other threads read the disk, so that a
    slow disk delays only its own responses. The server lists one directory at a time: building a long list keeps the interpreter
    busy.
    """

    def __init__(self, root: str, *, hidden: HiddenFiles, timeout: ResponseTimeout) -> None:
        self._root = os.path.realpath(root)
        self._hidden = hidden
        self._timeout = timeout
        self._listing_turn = asyncio.Semaphore(1)

    async def find(self, request: Request) -> web.StreamResponse | None:
        """Return the response to a request, or None if there is no such file. Raises Refused."""
        found = await in_a_thread(self._find, request)
        if not isinstance(found, Opened):
            return found
        async with self._listing_turn:
            return await in_a_thread(self._listing, request, found)

    async def has_index(self) -> bool:
        """Whether the root directory has an index page."""
        return await in_a_thread(self._open, "/" + INDEX) is not None

    def _find(self, request: Request) -> web.StreamResponse | Opened | None:
        """Return the response, the directory to list, or None."""
        path = name = request.path
        if self._hidden.hides(path):
            return None
        if path.endswith("/" + INDEX):
            return _moved(path.removesuffix(INDEX), request)
        opened = self._open(path)
        if opened is None:
            return None
        if opened.is_directory:
            if not path.endswith("/"):
                return _moved(path + "/", request)
            index = self._open(path + INDEX)
            if index is None:
                return opened
            opened, name = index, INDEX
        elif path.endswith("/"):
            return _moved(path[:-1], request)
        if self._hidden.holds(opened.real, opened.status, self._hidden.identities(has_hard_links=opened.status.st_nlink > 1)):
            return None
        return OpenFile(opened, name, timeout=self._timeout, fields={"url": request.url})

    def _listing(self, request: Request, opened: Opened) -> web.Response:
        """List a directory: at most LISTED entries, and no hidden file."""
        with os.scandir(opened.fd) as entries:
            found = [entry for entry in entries if not self._hidden.hides(request.path + entry.name)]
        identities = self._hidden.identities()
        listed: list[listing.Entry] = []
        for entry in heapq.nsmallest(LISTED, found, key=_sort_key):
            if not self._leads_to_hidden(entry, opened.real, identities):
                listed += _listed(entry)
        page = listing.render(request.path, listed, mount=request.mount, omitted=max(0, len(found) - LISTED))
        response = web.Response(text=page, content_type="text/html")
        protect(response, listing.POLICY)
        return response

    def _leads_to_hidden(self, entry: os.DirEntry[str], folder: str, identities: frozenset[Identity]) -> bool:
        path = os.path.join(folder, entry.name)
        try:
            if entry.is_dir(follow_symlinks=False):
                return False
            return self._hidden.holds(os.path.realpath(path) if entry.is_symlink() else path, entry.stat(), identities)
        except OSError:
            return False

    def _open(self, path: str) -> Opened | None:
        """Open a file or directory below the root; return None if there is none to serve. Raises Refused (403)."""
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
    """An open file or directory; `close` closes its descriptor, and so does garbage collection.

    A response may fail before its first byte, in code outside wsbridge; garbage collection then closes the descriptor.
    """

    def __init__(self, path: str) -> None:
        """Open a path. Raises OSError, and ValueError for a name that contains a NUL."""
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.real = os.readlink(f"/proc/self/fd/{self.fd}")
        """The path of the file, with every link resolved."""
        self.status = os.fstat(self.fd)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def modified(self) -> int:
        """The modification time in whole seconds; st_mtime, a float of seconds, may be rounded up."""
        return self.status.st_mtime_ns // 10**9

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    __del__ = close


class OpenFile(web.FileResponse):
    """The response for a file that is already open: its path refers to the descriptor, so that no other file can replace it."""

    def __init__(self, opened: Opened, name: str, *, timeout: ResponseTimeout, fields: LogFields) -> None:
        self._opened = opened
        super().__init__(f"/proc/self/fd/{opened.fd}", headers={"Content-Type": _with_charset(_kind(name, opened.fd))})
        self._timeout = timeout
        self._fields = fields

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        with contextlib.closing(self._opened):
            return await super().prepare(self._as_meant(request))

    def _as_meant(self, request: web.BaseRequest) -> web.BaseRequest:
        """Return the request with the range and the conditions that aiohttp is to evaluate."""
        wanted = request.headers.get("Range")
        if wanted is None and not any(name in request.headers for name in DATED):
            return request
        omitted, added = {"if-range"}, self._conditions(request)
        if wanted is not None and (not RANGE.match(wanted) or not self._is_meant(request)):
            # RFC 9110 (section 14.2) requires the server to ignore an unknown unit, and allows it to ignore several ranges; aiohttp
            # answers 416.
            omitted.add("range")
        elif wanted is not None and NO_BYTES.match(wanted):
            # The last 0 bytes cannot be sent (section 14.1.2); aiohttp sends the whole file.
            added["Range"] = f"bytes={self._opened.status.st_size}-"
        omitted |= {name.lower() for name in added}
        # Bytes above 0x7F are opaque (RFC 9110, section 5.5): as Latin-1 they stay distinct from every character that has a
        # meaning.
        kept = [(name, _latin(value)) for name, value in request.headers.items() if name.lower() not in omitted]
        return request.clone(headers=[*kept, *added.items()])

    def _conditions(self, request: web.BaseRequest) -> dict[str, str]:
        """Return the conditions with a date for aiohttp, which compares it with fractions of a second that Last-Modified lacks."""
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
        """Set the file's date without the fraction of a second; aiohttp rounds it up, so that it may lie in the future."""
        parent: Any = web.FileResponse.last_modified
        parent.fset(self, self._opened.modified if isinstance(value, (int, float)) else value)

    def _is_meant(self, request: web.BaseRequest) -> bool:
        """Whether the client wants a part of this version of the file (RFC 9110, section 13.1.5); aiohttp compares dates only."""
        condition = request.headers.get("If-Range")
        if condition is None:
            return True
        version = self._opened.status
        if (date := request.if_range) is not None:
            return date.timestamp() == self._opened.modified
        return condition == f'"{version.st_mtime_ns:x}-{version.st_size:x}"'

    async def _sendfile(self, request: web.BaseRequest, fobj: IO[Any], offset: int, count: int) -> AbstractStreamWriter:
        """Send the body in place of aiohttp's method, which shows neither what a client accepts nor that a file is too short."""
        writer = await web.StreamResponse.prepare(self, request)
        assert writer is not None
        end = offset + count
        while offset < end:
            # Another thread reads the file, so that a slow disk delays no other client.
            read = asyncio.get_running_loop().run_in_executor(None, os.pread, fobj.fileno(), min(PIECE, end - offset), offset)
            piece = await read
            if not piece:
                text = "response truncated: the file became shorter during the transfer, and %d bytes are missing"
                log.error(text, end - offset, extra=extra(self._fields))
                request.protocol.force_close()
                return writer
            offset += len(piece)
            with self._timeout.watching(request, self._fields):
                await self.write(piece)
        with self._timeout.watching(request, self._fields):
            await self.write_eof()
        return writer


async def in_a_thread(function: Callable[..., T], *arguments: object) -> T:
    """Call a function that reads the disk in another thread, and return its result."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


def _sort_key(entry: os.DirEntry[str]) -> tuple[bool, str, str]:
    """Return the sort key of a listing: directories first, then names in order, as on the page."""
    return not entry.is_dir(follow_symlinks=False), entry.name.casefold(), entry.name


def _kind(name: str, fd: int) -> str:
    """Return the content type for the name in the request; without a type for that name, the file is text or bytes."""
    _, suffix = posixpath.splitext(name)
    if compressed := COMPRESSED.get(suffix.lower()):
        return compressed
    kind, encoding = mimetypes.guess_type("/" + posixpath.basename(name))
    if encoding:
        return BYTES
    return kind or ("text/plain" if _is_text(os.pread(fd, SNIFFED, 0)) else BYTES)


def _is_text(head: bytes) -> bool:
    try:
        # The last character may be incomplete.
        codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < SNIFFED)
    except UnicodeDecodeError:
        return False
    return NO_TEXT.search(head) is None


def _with_charset(kind: str) -> str:
    return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind == "application/javascript" else kind


def _latin(value: str) -> str:
    """Return a header's value with its bytes decoded as Latin-1."""
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("latin-1")


def _moved(path: str, request: Request) -> web.Response:
    response = web.Response(status=301, headers={"Location": request.location(request.mount + path)})
    protect(response)
    return response


def _listed(entry: os.DirEntry[str]) -> list[listing.Entry]:
    """Return the entry of a listing, or an empty list if the file no longer exists.

    A link has the size and the date of its target.
    """
    for follow in (True, False):
        with contextlib.suppress(OSError):
            status = entry.stat(follow_symlinks=follow)
            return [listing.Entry(entry.name, stat.S_ISDIR(status.st_mode), status.st_size, status.st_mtime)]
    return []
