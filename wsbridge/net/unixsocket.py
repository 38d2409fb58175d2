"""The Unix socket: it replaces a socket on which no server listens, and only its owner and group can connect.

Connecting requires write permission. The socket begins without any permission, then gets its owner and group, and its mode last. So
other users cannot connect at any moment.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
from collections.abc import Callable

from wsbridge.errors import ListenError, reason_of

UNCHANGED = -1
"""The value that leaves an owner or a group unchanged, as for chown(2)."""
LAST_ID = 2**32 - 2
"""The highest number of a user or group: for chown(2), the next number means no change."""


def bind_unix(path: str, *, mode: int, owner: int = UNCHANGED, group: int = UNCHANGED) -> socket.socket:
    """Return a socket that is bound to a path, with its owner, group and mode; it does not listen yet. Raises ListenError."""
    _clear(path)
    sock = socket.socket(socket.AF_UNIX)
    bound = False
    try:
        # The socket's file gets the mode of the socket's own inode, less the umask. unix(7) does not document this.
        os.fchmod(sock.fileno(), 0)
        sock.bind(path)
        bound = True
        _give_rights(path, mode, owner, group)
    except BaseException as error:
        sock.close()
        if bound:
            os.unlink(path)
        if isinstance(error, OSError):
            raise ListenError(f"cannot listen on {path}: {reason_of(error).lower()}") from None
        raise
    return sock


def user_number(name: str) -> int:
    """Return the number of a user given by name or number; `UNCHANGED` for an empty name. Raises LookupError."""
    return _number(name, lambda name: pwd.getpwnam(name).pw_uid)


def group_number(name: str) -> int:
    """Return the number of a group given by name or number; `UNCHANGED` for an empty name. Raises LookupError."""
    return _number(name, lambda name: grp.getgrnam(name).gr_gid)


def identity(path: str) -> tuple[int, int] | None:
    """Return the device and the inode of a path, or None if it does not exist."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _number(name: str, find: Callable[[str], int]) -> int:
    if not name:
        return UNCHANGED
    return int(name) if name.isascii() and name.isdecimal() and int(name) <= LAST_ID else find(name)


def _give_rights(path: str, mode: int, owner: int, group: int) -> None:
    """Set the owner and group, then the mode, of the socket itself.

    A user with write permission in the directory can replace the socket by a link, so this function does not follow links.
    """
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(handle).st_mode):
            raise ListenError(f"cannot listen on {path}: another file replaced the socket")
        itself = f"/proc/self/fd/{handle}"
        if (owner, group) != (UNCHANGED, UNCHANGED):
            try:
                os.chown(itself, owner, group)
            except OSError as error:
                raise ListenError(
                    f"cannot set the owner and group of {path} (--unixsocket-owner, --unixsocket-group):"
                    f" {reason_of(error).lower()}; run the server as root, or set only a group of which its user is a member"
                ) from None
        os.chmod(itself, mode)
    finally:
        os.close(handle)


def _clear(path: str) -> None:
    """Remove a socket on which no server listens; refuse to remove anything else. Raises ListenError."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(f"cannot listen on {path}: {reason_of(error).lower()}") from None
    if not stat.S_ISSOCK(mode):
        complaint = "the existing file is not a socket, and the server does not remove it; use another path"
        raise ListenError(f"cannot listen on {path}: {complaint}")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError as error:
            raise ListenError(f"cannot listen on {path}: {reason_of(error).lower()}; is it in use by another user's server?") from None
        else:
            raise ListenError(f"cannot listen on {path}: address already in use by another server")
