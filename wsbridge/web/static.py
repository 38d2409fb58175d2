"""Files of a directory: `--staticdir`.

A path is walked by the rules, opened, and only then asked where it really is: what is served is the very file that was
proved to be inside, whatever happens to the names meanwhile. Ranges and conditions are aiohttp's; the bytes are sent here,
in pieces through its writer, so that it is seen what the client takes, and whether the file was long enough.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import math
import mimetypes
import os
import posixpath
import re
import stat
from typing import IO, Any
from urllib.parse import quote

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from wsbridge.errors import Refused
from wsbridge.logs import Pairs, extra, logger
from wsbridge.rules.request import Request
from wsbridge.web import listing
from wsbridge.web.answers import protect
from wsbridge.web.patience import Patience

INDEX = "index.html"
PIECE = 128 * 1024
"""Bytes of a file that are read at once: as many as a slow client makes us keep, beside what its transport does."""

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

log = logger("http")


class StaticFiles:
    """Serves what lies below one directory; itself it may be a link, links out of it are not followed.

    The source of a program is never served, however the directories lie: not what is in `cgi_directory`, not what is
    executable in `script_directory`, where pages may lie beside the scripts that they connect to, and no file among
    `programs`, the words of COMMAND.
    """

    def __init__(
        self,
        root: str,
        *,
        patience: Patience,
        cgi_directory: str | None = None,
        script_directory: str | None = None,
        programs: tuple[str, ...] = (),
    ) -> None:
        self._patience = patience
        self._programs = frozenset(map(os.path.realpath, programs))
        self._root = os.path.realpath(root)
        self._cgi = os.path.realpath(cgi_directory) if cgi_directory else None
        self._scripts = os.path.realpath(script_directory) if script_directory else None

    def find(self, request: Request) -> web.StreamResponse | None:
        """Return the answer to a request, or None when there is no such file."""
        path = name = request.path
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
                return self._listing(path, opened)
            opened, name = index, INDEX
        elif path.endswith("/"):
            return _moved("../" + _quoted(posixpath.basename(path[:-1])), request)
        if self._is_program(opened.real, opened.status.st_mode):
            return None
        return OpenFile(opened, name, patience=self._patience, pairs={"url": request.url})

    def has_index(self) -> bool:
        """Whether the root has a page of its own."""
        return self._open("/" + INDEX) is not None

    def _is_program(self, real: str, mode: int) -> bool:
        if real in self._programs or (self._cgi is not None and _is_below(real, self._cgi)):
            return True
        executable = mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        return bool(executable) and self._scripts is not None and _is_below(real, self._scripts)

    def _listing(self, path: str, opened: Opened) -> web.Response:
        """List a directory: sorted, hidden files too, as Go's file server does; no programs, of which the source is never served."""
        found = []
        with os.scandir(opened.fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) or not self._leads_to_a_program(os.path.join(opened.real, entry.name)):
                    found += _listed(entry)
        response = web.Response(text=listing.render(path, found), content_type="text/html")
        protect(response, listing.POLICY)
        return response

    def _leads_to_a_program(self, path: str) -> bool:
        try:
            return self._is_program(os.path.realpath(path), os.stat(path).st_mode)
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
        is_served = _is_below(opened.real, self._root) and (opened.is_directory or stat.S_ISREG(opened.status.st_mode))
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

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    __del__ = close


class OpenFile(web.FileResponse):
    """A file that is open already: named through its descriptor, so that no other can take its place."""

    def __init__(self, opened: Opened, name: str, *, patience: Patience, pairs: Pairs) -> None:
        super().__init__(f"/proc/self/fd/{opened.fd}", headers={"Content-Type": _with_charset(_kind(name, opened.fd))})
        self._opened = opened
        self._patience = patience
        self._pairs = pairs

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        with contextlib.closing(self._opened):
            return await super().prepare(self._as_meant(request))

    def _as_meant(self, request: web.BaseRequest) -> web.BaseRequest:
        """Return the request with the Range that is to be answered, if any."""
        wanted = request.headers.get("Range")
        if wanted is None:
            return request
        left_out = {"if-range"}
        if not RANGE.match(wanted) or not self._is_meant(request):
            # A unit that is unknown, or several ranges: to be ignored, or may be (RFC 9110, section 14.2); aiohttp answers 416.
            left_out.add("range")
        # Bytes above 0x7F are opaque (RFC 9110, section 5.5): as Latin-1 they stay different from all that has a meaning.
        return request.clone(headers=[(name, _latin(value)) for name, value in request.headers.items() if name.lower() not in left_out])

    def _is_meant(self, request: web.BaseRequest) -> bool:
        """Whether it is this version of the file of which a part is wanted (RFC 9110, section 13.1.5); aiohttp knows dates only."""
        condition = request.headers.get("If-Range")
        if condition is None:
            return True
        version = self._opened.status
        if (date := request.if_range) is not None:
            return date.timestamp() == math.ceil(version.st_mtime)
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


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


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
