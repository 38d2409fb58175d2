"""What /proc tells about processes: which there are, in which session each is, and whose they are.

See proc(5). A process can end at any time, so every answer is about the moment of the reading.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from functools import cache

LISTING = "/proc/self/task/{}/children"
PIECE = 64 * 1024
LAST_PIECE = 4000
"""Bytes of a read that is shorter than the kernel's smallest buffer of 4096, less one number: nothing follows it."""
DEAD = ("Z", "X")
"""The states of a process that has ended; a zombie only waits for its parent to read its status."""


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
    """Read the content of /proc/PID/stat; the name may hold blanks, parentheses and line feeds."""
    head, _, rest = data.rpartition(b") ")
    state, parent, group, session = rest.split(None, 4)[:4]
    return Stat(head.partition(b"(")[2].decode("utf-8", "backslashreplace"), state.decode(), int(parent), int(group), int(session))


def read_stat(pid: int | str) -> Stat | None:
    """Return the stat of a process, or None when there is no such process."""
    data = _read(f"/proc/{pid}/stat")
    return parse_stat(data) if data else None


def processes() -> list[int]:
    """Return the number of every process that can be seen, zombies included."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def by_session() -> dict[int, list[int]]:
    """Return the processes of each session, zombies included; getsid(2) takes a tenth of the time of reading stat."""
    sessions: dict[int, list[int]] = {}
    for pid in processes():
        try:
            sessions.setdefault(os.getsid(pid), []).append(pid)
        except OSError:
            continue
    return sessions


def user_of(pid: int) -> str:
    """Return the name of the user whose process it is, or the user's number; `?` when there is no such process.

    Waits for the system's name service, once for each user.
    """
    try:
        number = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return "?"
    return _user_name(number)


class Children:
    """The children of this process, as numbers in bytes.

    Those of the main thread alone where the kernel lists them (CONFIG_PROC_CHILDREN): it is the one that inherits orphans.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        try:
            self._fd = os.open(LISTING.format(self._pid), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1

    def read(self) -> set[bytes]:
        """Return them, zombies included."""
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


@cache
def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _read(path: str) -> bytes:
    """Return a small file whole, or nothing when it cannot be read."""
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
