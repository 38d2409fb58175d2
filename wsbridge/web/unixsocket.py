"""The Unix socket: it replaces what nobody serves, and nobody but its owner and group reaches it.

Connecting needs the right to write. A socket is made with no rights at all, then gets its owner and group, and its mode
last, so there is no moment in which others could connect.
"""

from __future__ import annotations

import os
import socket
import stat

from wsbridge.errors import ListenError, reason_of

UNCHANGED = -1
"""The owner or group that a socket has anyway, as for chown(2)."""


def bind_unix(path: str, *, mode: int, owner: int = UNCHANGED, group: int = UNCHANGED) -> socket.socket:
    """Return a socket that is bound to a path, with its rights; it does not listen yet. Raises ListenError."""
    _clear(path)
    sock = socket.socket(socket.AF_UNIX)
    bound = False
    try:
        # The file of the socket gets the mode of the socket's own inode, less the umask (unix(7) does not say so, but it is so).
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


def identity(path: str) -> tuple[int, int] | None:
    """Return which file a path is; None when there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _give_rights(path: str, mode: int, owner: int, group: int) -> None:
    """Set owner and group, then the mode, of the socket itself: whoever may write into its directory can put a link in its place."""
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(handle).st_mode):
            raise ListenError(f"cannot listen on {path}: another file was put in its place")
        itself = f"/proc/self/fd/{handle}"
        if (owner, group) != (UNCHANGED, UNCHANGED):
            try:
                os.chown(itself, owner, group)
            except OSError as error:
                raise ListenError(
                    f"cannot give {path} the owner and group of --unixsocket-owner and --unixsocket-group: {reason_of(error).lower()};"
                    " root can, and a user can give a group of which it is a member"
                ) from None
        os.chmod(itself, mode)
    finally:
        os.close(handle)


def _clear(path: str) -> None:
    """Remove a socket that nobody listens on; refuse to touch anything else."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(f"cannot listen on {path}: {reason_of(error).lower()}") from None
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"cannot listen on {path}: there is something that is not a socket; it is left alone")
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
