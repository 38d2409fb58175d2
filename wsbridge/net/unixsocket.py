"""The Unix socket: it replaces a socket on which no server listens, and only its owner and group can connect.

Connecting requires write permission. The socket begins without any permission, then gets its owner and group, and its mode last. So
other users cannot connect at any moment.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from wsbridge.errors import ListenError, reason_of

UNCHANGED = -1
"""The value that stands for the owner or the group that the socket got when it was bound."""
LAST_ID = 2**32 - 2
"""The highest user or group ID: for chown(2), the next number means no change."""


@dataclass(frozen=True, slots=True)
class SocketFile:
    """The file of a bound Unix socket, as long as the path still names this socket: another server may replace the file."""

    path: str
    identity: tuple[int, int]
    """The device and the inode."""
    owner: int
    """The user and the group that the file got when the socket was bound."""
    group: int

    def remove(self) -> None:
        """Unlink the path if it still names this socket. Call this before the socket closes: the kernel may then reuse its inode.

        A file that cannot be removed stays; the next server at this path removes it.
        """
        with suppress(OSError):
            if _identity(os.lstat(self.path)) == self.identity:
                os.unlink(self.path)

    def give(self, *, mode: int, owner: int, group: int) -> None:
        """Set mode, owner and group, or change nothing and raise ListenError.

        At no moment can a user connect that may connect neither before nor after. This function does not follow links: a user with
        write permission in the directory can replace the socket by a link.
        """
        wanted = (self.owner if owner == UNCHANGED else owner, self.group if group == UNCHANGED else group)
        try:
            with self._opened() as (itself, found):
                before = stat.S_IMODE(found.st_mode)
                try:
                    if before & ~mode:
                        os.chmod(itself, before & mode)
                    if wanted != (found.st_uid, found.st_gid):
                        self._chown(itself, *wanted)
                    os.chmod(itself, mode)
                except BaseException:
                    with suppress(OSError):
                        os.chown(itself, found.st_uid, found.st_gid)
                    with suppress(OSError):
                        os.chmod(itself, before)
                    raise
        except OSError as error:
            raise ListenError(f"cannot set the mode of {self.path}: {reason_of(error).lower()}") from None

    @contextmanager
    def _opened(self) -> Iterator[tuple[str, os.stat_result]]:
        """Open the socket itself; yield a path that names it whatever happens in its directory, and its status."""
        handle = os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(handle)
            if not stat.S_ISSOCK(found.st_mode) or _identity(found) != self.identity:
                raise ListenError(f"cannot listen on {self.path}: another file replaced the socket")
            yield f"/proc/self/fd/{handle}", found
        finally:
            os.close(handle)

    def _chown(self, itself: str, owner: int, group: int) -> None:
        try:
            os.chown(itself, owner, group)
        except OSError as error:
            raise ListenError(
                f"cannot set the owner and group of {self.path} (<owner>, <group>):"
                f" {reason_of(error).lower()}; run the server as root, or set only a group of which its user is a member"
            ) from None


def bind_unix(path: str, *, mode: int, owner: int = UNCHANGED, group: int = UNCHANGED) -> tuple[socket.socket, SocketFile]:
    """Bind a socket to a path; return it and its file, which has this mode, owner and group. It does not listen yet.

    Raises ListenError.
    """
    _clear(path)
    sock = socket.socket(socket.AF_UNIX)
    bound = False
    try:
        # The socket's file gets the mode of the socket's own inode, less the umask. unix(7) does not document this.
        os.fchmod(sock.fileno(), 0)
        sock.bind(path)
        bound = True
        status = os.lstat(path)
        file = SocketFile(path, _identity(status), status.st_uid, status.st_gid)
        file.give(mode=mode, owner=owner, group=group)
    except BaseException as error:
        sock.close()
        if bound:
            os.unlink(path)
        if isinstance(error, OSError):
            raise _cannot_bind(path, error) from None
        raise
    return sock, file


def _cannot_bind(path: str, error: OSError) -> ListenError:
    return ListenError(f"cannot listen on {path}: {reason_of(error).lower()}", errno=error.errno or 0, path=path)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def user_number(name: str) -> int:
    """Return the ID of a user given by name or ID; `UNCHANGED` for an empty name. Raises LookupError."""
    return _number(name, lambda name: pwd.getpwnam(name).pw_uid)


def group_number(name: str) -> int:
    """Return the ID of a group given by name or ID; `UNCHANGED` for an empty name. Raises LookupError."""
    return _number(name, lambda name: grp.getgrnam(name).gr_gid)


def _number(name: str, find: Callable[[str], int]) -> int:
    if not name:
        return UNCHANGED
    return int(name) if name.isascii() and name.isdecimal() and int(name) <= LAST_ID else find(name)


def _clear(path: str) -> None:
    """Remove a socket on which no server listens; refuse to remove anything else. Raises ListenError."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_bind(path, error) from None
    if not stat.S_ISSOCK(mode):
        complaint = "the existing file is not a socket, and the server does not remove it"
        raise ListenError(f"cannot listen on {path}: {complaint}", errno=errno.EEXIST, path=path)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError as error:
            raise ListenError(f"cannot listen on {path}: {reason_of(error).lower()}; is it in use by another user's server?") from None
        else:
            raise ListenError(f"cannot listen on {path}: address already in use by another server", errno=errno.EADDRINUSE, path=path)
