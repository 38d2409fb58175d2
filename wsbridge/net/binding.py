"""The listening sockets of one ListenSettings: all of them, or none.

A socket listens from the moment at which it is bound. Connections wait in the kernel's accept queue until an acceptor gets the
socket.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from dataclasses import dataclass, field

from wsbridge.errors import ListenError
from wsbridge.net.keepalive import keep_alive
from wsbridge.net.unixsocket import SocketFile, bind_unix, group_number, user_number
from wsbridge.settings import ListenSettings
from wsbridge.settings.listen import place_fault

BACKLOG = 1024
"""Connections that the kernel queues while the server is busy."""

Inherited = dict[str, list[socket.socket]]
"""Inherited sockets by name; `bind` removes the sockets that it uses."""


@dataclass(slots=True)
class Bound:
    """Listening sockets, the addresses by which the log names them, and the file of the Unix socket that is among them."""

    main: list[socket.socket] = field(default_factory=list)
    redirects: list[tuple[socket.socket, int]] = field(default_factory=list)
    """The sockets of the redirect port, each with the port that it redirects to."""
    addresses: list[str] = field(default_factory=list)
    file: SocketFile | None = None

    @property
    def sockets(self) -> list[socket.socket]:
        return [*self.main, *(sock for sock, _ in self.redirects)]

    def close(self) -> None:
        if self.file is not None:
            self.file.remove()
        for sock in self.sockets:
            sock.close()


async def bind(settings: ListenSettings, loop: asyncio.AbstractEventLoop, *, inherited: Inherited) -> Bound:
    """Bind all sockets, or claim the inherited sockets that the settings name. Raises ListenError; then it has closed all sockets."""
    bound = Bound()
    try:
        if settings.inherited is not None:
            bound.main = _tuned(_claim(settings.inherited, inherited))
            bound.addresses = list(dict.fromkeys(map(_address, bound.main)))
        else:
            _bind_path(settings, bound)
            if settings.is_tcp:
                await _bind_host(settings, bound, loop)
    except BaseException:
        bound.close()
        raise
    return bound


async def _bind_host(settings: ListenSettings, bound: Bound, loop: asyncio.AbstractEventLoop) -> None:
    host = settings.host
    socks = await bind_host(host, settings.port, loop)
    bound.main += _tuned(socks)
    port = socks[0].getsockname()[1]
    bound.addresses.append(f"{host or socket.gethostname()}:{port}")
    if settings.redirect_port:
        bound.redirects += [(sock, port) for sock in _tuned(await bind_host(host, settings.redirect_port, loop))]


def _bind_path(settings: ListenSettings, bound: Bound) -> None:
    path = settings.unix_path
    if path is not None:
        sock, bound.file = bind_unix(path, mode=settings.unix_mode, owner=user_number(settings.owner), group=group_number(settings.group))
        bound.main.append(sock)
        bound.addresses.append(os.path.abspath(path))
        sock.listen(BACKLOG)


def _claim(name: str, inherited: Inherited) -> list[socket.socket]:
    """Remove the sockets of a name, or all sockets, from `inherited`, and return them. Raises ListenError if there is none."""
    socks = [sock for key in ([name] if name else [*inherited]) for sock in inherited.pop(key, ())]
    if socks:
        return socks
    if not name:
        reason = "this process has no unused inherited socket"
        raise ListenError(f"cannot listen on inherited sockets: {reason}; start it from a systemd socket unit")
    others = ", ".join(sorted(inherited)) or "none"
    raise ListenError(
        f"cannot listen on the inherited sockets {name}: no unused inherited socket has this name (unused: {others});"
        f" set FileDescriptorName={name} in the socket unit"
    )


def _address(sock: socket.socket) -> str:
    """Return the address of an inherited socket, in the form of the settings' own addresses; `@` begins an abstract Unix address."""
    name = sock.getsockname()
    if isinstance(name, bytes):
        return "@" + name[1:].decode(errors="backslashreplace")
    if isinstance(name, str):
        return os.path.abspath(name)
    host, port = name[:2]
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def bind_host(host: str, port: int, loop: asyncio.AbstractEventLoop) -> list[socket.socket]:
    """Return one or more sockets, one for each address of a host, all on one port. Raises ListenError.

    The server skips addresses that the machine does not have, unless the machine has none of them.
    """
    where = f"cannot listen on {host}:{port}"
    if complaint := place_fault(host, port):
        raise ListenError(f"{where}: {complaint}")
    socks: list[socket.socket] = []
    missing: OSError | None = None
    try:
        if not host and socket.has_dualstack_ipv6():
            return [socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)]
        found = await loop.getaddrinfo(host.strip("[]") or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                socks.append(socket.create_server((address[0], port, *address[2:]), family=family, backlog=BACKLOG))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error
            else:
                port = socks[0].getsockname()[1]
        if missing is not None and not socks:
            raise missing
    except (OSError, UnicodeError) as error:
        for sock in socks:
            sock.close()
        if isinstance(error, UnicodeError):
            raise ListenError(f"{where}: the host name is not valid") from None
        is_name = isinstance(error, socket.gaierror)  # its error numbers are not the system's
        reason, number = (str(error.strerror), 0) if is_name else (os.strerror(error.errno or 0), error.errno or 0)
        # Scripts look for the text "address already in use".
        raise ListenError(f"{where}: {reason[:1].lower()}{reason[1:]}", errno=number, host=host, port=port) from None
    return socks


def _tuned(socks: list[socket.socket]) -> list[socket.socket]:
    """Make the kernel send without delay and detect a peer that has vanished.

    A connection inherits the options that its listening socket has when the client connects, so set them at once.
    """
    for sock in socks:
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(sock)
    return socks
