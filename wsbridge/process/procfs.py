"""Reads /proc: which processes exist, the session of each, and its user.

See proc(5). A process can exit at any time, so every answer describes the moment of the read.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from functools import cache

LISTING = "/proc/self/task/{}/children"
PIECE = 64 * 1024
LAST_PIECE = 4000
"""A read of at most this many bytes is the last. It is shorter than the kernel's smallest buffer of 4096 bytes, less one number."""
DEAD = ("Z", "X")
"""The states of a process that has exited; a zombie only waits for its parent to read its status."""


@dataclass(frozen=True, slots=True)
class Stat:
    """The first fields of /proc/PID/stat."""

    name: str
    """The name of the executable file, at most 15 bytes of it."""
    state: str
    parent: int
    group: int
    session: int

    @property
    def is_alive(self) -> bool:
        return self.state not in DEAD


def parse_stat(data: bytes) -> Stat:
    """Parse the content of /proc/PID/stat; the name may contain blanks, parentheses and line feeds."""
    head, _, rest = data.rpartition(b") ")
    state, parent, group, session = rest.split(None, 4)[:4]
    return Stat(head.partition(b"(")[2].decode("utf-8", "backslashreplace"), state.decode(), int(parent), int(group), int(session))


def read_stat(pid: int | str) -> Stat | None:
    """Return the stat of a process, or None if there is no such process."""
    data = _read(f"/proc/{pid}/stat")
    return parse_stat(data) if data else None


def processes() -> list[int]:
    """Return the pid of every visible process, including zombies."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def by_session() -> dict[int, list[int]]:
    """Return the processes of each session, including zombies; getsid(2) needs a tenth of the time of reading stat."""
    sessions: dict[int, list[int]] = {}
    for pid in processes():
        try:
            sessions.setdefault(os.getsid(pid), []).append(pid)
        except OSError:
            continue
    return sessions


def user_of(pid: int) -> str:
    """Return the name of the user that owns a process, or the user's ID; `?` if there is no such process.

    It waits for the system's name service, once for each user.
    """
    try:
        number = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return "?"
    return _user_name(number)


class Children:
    """The pids of the children of this process, in decimal, as bytes.

    If the kernel lists children (CONFIG_PROC_CHILDREN), they are only those of the main thread: that thread inherits orphans.
    """

    def __init__(self, listing: str = LISTING) -> None:
        """`listing` is the name of the kernel's list, with a place for the pid."""
        self._pid = os.getpid()
        try:
            self._fd = os.open(listing.format(self._pid), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1

    def read(self) -> set[bytes]:
        """Return the children, including zombies."""
        if self._fd < 0:
            return {b"%d" % pid for pid in processes() if (stat := read_stat(pid)) and stat.parent == self._pid}
        data = piece = os.pread(self._fd, PIECE, 0)
        while len(piece) > LAST_PIECE:
            piece = os.pread(self._fd, PIECE, len(data))
            data += piece
        return set(data.split())

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def children_of(pid: int) -> list[int]:
    """Return the children that the main thread of a process has started, including zombies; none if the kernel does not list them."""
    return [int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()]


@cache
def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _read(path: str) -> bytes:
    """Return the content of a small file, or nothing if it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""
    finally:
        os.close(fd)
