"""Socket activation: listening sockets that the service manager opened before it started this process (sd_listen_fds(3)).

The descriptors begin at 3. LISTEN_PID is the process that they are for, LISTEN_FDS their number, and LISTEN_FDNAMES their names,
separated by colons. Several sockets can have the same name.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping

from wsbridge.errors import ListenError, reason_of

FIRST = 3
"""The number of the first descriptor."""
UNNAMED = "unknown"
"""The name of all descriptors if LISTEN_FDNAMES is missing, as in sd_listen_fds_with_names(3)."""
REMEDY = "; the socket unit needs ListenStream= and Accept=no"


def inherited_sockets(environ: Mapping[str, str], pid: int) -> dict[str, list[socket.socket]]:
    """Return the inherited sockets by their names; none if the variables are for another process than `pid`.

    Call this once: the returned sockets own their descriptors. No program inherits them. Raises ListenError if the variables are
    not valid, or if a descriptor is not a listening TCP or Unix stream socket.
    """
    if environ.get("LISTEN_PID") != str(pid):
        return {}
    found: dict[str, list[socket.socket]] = {}
    try:
        for descriptor, name in enumerate(_names(environ), FIRST):
            found.setdefault(name, []).append(_listening_socket(descriptor, name))
    except BaseException:
        for sock in (sock for socks in found.values() for sock in socks):
            sock.close()
        raise
    return found


def _names(environ: Mapping[str, str]) -> list[str]:
    """Return the name of each descriptor."""
    number = environ.get("LISTEN_FDS", "0")
    if not re.fullmatch("[0-9]{1,9}", number):
        raise ListenError(f"cannot use the inherited sockets: LISTEN_FDS={number} is not a number of descriptors")
    count = int(number)
    if "LISTEN_FDNAMES" not in environ:
        return [UNNAMED] * count
    names = environ["LISTEN_FDNAMES"].split(":") if count else []
    if len(names) != count:
        raise ListenError(f"cannot use the inherited sockets: LISTEN_FDNAMES has {len(names)} names for {count} descriptors")
    return names


def _listening_socket(descriptor: int, name: str) -> socket.socket:
    where = f"cannot use the inherited descriptor {descriptor} ({name})"
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ListenError(f"{where}: {reason_of(error).lower()}{REMEDY}") from None
    if complaint := _why_unusable(sock):
        sock.close()
        raise ListenError(f"{where}: {complaint}{REMEDY}")
    return sock


def _why_unusable(sock: socket.socket) -> str:
    """Return the reason that the server cannot accept connections from a socket; empty if it can."""
    is_tcp = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.proto == socket.IPPROTO_TCP
    if sock.type != socket.SOCK_STREAM or not (is_tcp or sock.family == socket.AF_UNIX):
        return "it is not a TCP or Unix stream socket"
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "it does not listen"
    return ""
