"""Reads files that a user names in a configuration: regular files up to a limit, and nothing that could block or never end."""

from __future__ import annotations

import errno
import os
import stat

from wsbridge.errors import reason_of
from wsbridge.files import open_at_once

KINDS = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


class UnusableFile(ValueError):
    """A file cannot be read. The text follows the name of the file: `a.toml: no such file; create the file, or correct the name`."""


def read_regular(path: str, *, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes, a multiple of 1024. Raises UnusableFile."""
    try:
        with open(path, "rb", opener=open_at_once) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise UnusableFile(f"{KINDS.get(stat.S_IFMT(mode), 'no file')}, not a regular file; name a regular file")
            content = file.read(limit + 1)
    except OSError as error:
        raise UnusableFile(_why(error)) from None
    except UnusableFile:
        raise
    except ValueError:
        # `open` raises it for a NUL, and for a character that the file system cannot encode.
        raise UnusableFile("no file can have this name; correct the name") from None
    if len(content) > limit:
        raise UnusableFile(f"longer than {_show_size(limit)}, the limit for such a file; shorten it, or name another file")
    return content


def _why(error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return "no such file; create the file, or correct the name"
        case errno.EACCES | errno.EPERM:
            return "permission denied; let the user that runs wsbridge read the file"
        case errno.EISDIR:
            return "a directory, not a regular file; name a regular file"
        case errno.ENXIO:
            return "a socket, not a regular file; name a regular file"
    return f"{reason_of(error).lower()}; correct the name, or the file"


def _show_size(limit: int) -> str:
    return f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
