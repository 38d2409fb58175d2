"""TCP and Unix listeners of the server, with and without TLS."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from wsbridge.errors import ListenError
from wsbridge.logs import logger
from wsbridge.metrics import Metrics
from wsbridge.net.acceptor import Acceptor
from wsbridge.net.certificates import make_context
from wsbridge.net.keepalive import keep_alive
from wsbridge.net.tls import TlsOpener
from wsbridge.net.transports import Open, plain_transports, use_fast_transports
from wsbridge.net.unixsocket import bind_unix, group_number, identity, user_number
from wsbridge.settings import ListenSettings, TlsSettings

BACKLOG = 1024
"""Connections that the kernel queues while the server is busy."""
log = logger("http")


class Incoming(asyncio.Protocol):
    """The protocol of an accepted connection."""

    __slots__ = ()

    def look(self) -> None:
        """Read the bytes that have already arrived; the listener calls this once the transport reads its socket."""


Factory = Callable[..., Incoming]
"""Makes the protocol of a connection. Its optional argument is the socket of a connection without TLS, whose protocol then waits for
`look`."""
RedirectFactory = Callable[[str, int], Factory]
"""Returns the factory of a redirect server, for the scheme and the port that it redirects to."""


class Opener(Protocol):
    """Makes connections from the sockets that a listener has accepted."""

    def open(self, sock: socket.socket, address: object) -> None:
        """Begin a connection, which owns the socket from then on."""

    def close(self) -> None:
        """Abort the connections that are not established yet."""


class PlainOpener:
    """Makes connections without TLS."""

    def __init__(self, factory: Factory, *, make: Open, loop: asyncio.AbstractEventLoop) -> None:
        self._factory = factory
        self._make = make
        self._loop = loop

    def open(self, sock: socket.socket, address: object) -> None:
        try:
            incoming = self._factory(sock)
            self._make(incoming, sock)
            # After the calls that the transport has just scheduled: of connection_made, and of the beginning of its reading.
            self._loop.call_soon(incoming.look)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            log.debug("cannot begin a connection: %s", error)

    def close(self) -> None:
        """Do nothing: a connection without TLS is established at once."""


Listeners = tuple[Callable[[], None], list[str]]
"""A function that closes every listener, and the addresses of the listeners."""


@asynccontextmanager
async def listening(
    settings: Sequence[ListenSettings],
    factory: Factory,
    acceptor: Acceptor,
    metrics: Metrics,
    loop: asyncio.AbstractEventLoop,
    *,
    redirect: RedirectFactory | None = None,
) -> AsyncIterator[Listeners]:
    """Open every listener, or none; yield a function that closes them, and their actual addresses. Raises ListenError.

    `redirect` is needed if the settings have a redirect port.
    """
    connect, plain = use_fast_transports(loop), plain_transports(loop)
    contexts: dict[TlsSettings, ssl.SSLContext] = {tls: make_context(tls) for item in settings if (tls := item.tls) is not None}
    openers: list[Opener] = []
    addresses: list[str] = []
    bound: dict[str, tuple[int, int] | None] = {}

    def listen(sock: socket.socket, make: Factory, context: ssl.SSLContext | None) -> None:
        _tune(sock)
        sock.listen(BACKLOG)
        opener: Opener
        if context is not None:
            opener = TlsOpener(make, context, connect=connect, metrics=metrics, loop=loop)
        else:
            opener = PlainOpener(make, make=plain, loop=loop)
        openers.append(opener)
        acceptor.listen(sock, opener.open)

    def close() -> None:
        acceptor.close()
        for opener in openers:
            opener.close()
        # Unlink the path now, and only if it is still this server's socket. A successor may have bound the path while this server
        # ends its sessions.
        for path, own in bound.items():
            if own is not None and identity(path) == own:
                os.unlink(path)

    try:
        for item in settings:
            context = contexts[item.tls] if item.tls is not None else None
            if (path := item.unix_path) is not None:
                sock = bind_unix(path, mode=item.unix_mode, owner=user_number(item.owner), group=group_number(item.group))
                bound[path] = identity(path)
                listen(sock, factory, context)
                addresses.append(os.path.abspath(path))  # noqa: ASYNC240 (it does not read the disk)
                continue
            host, port = item.host, item.port
            for sock in await _bind(loop, host, port):
                listen(sock, factory, context)
                port = sock.getsockname()[1]
            addresses.append(f"{host or socket.gethostname()}:{port}")
            if item.redirect_port:
                assert redirect is not None
                server = redirect("https" if context else "http", port)
                for sock in await _bind(loop, host, item.redirect_port):
                    listen(sock, server, None)
        yield close, addresses
    finally:
        close()


async def _bind(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[socket.socket]:
    """Return a socket for each address of a host, all on one port. Raises ListenError.

    The server skips addresses that the machine does not have, unless the machine has none of them.
    """
    where = f"cannot listen on {host}:{port}"
    if re.search(r"[][:]", host) and not re.fullmatch(r"\[[^][]+\]", host):
        raise ListenError(f"{where}: write an IPv6 address in brackets, such as [::1]")
    if not 0 <= port <= 65535:
        raise ListenError(f"{where}: use a port from 0 to 65535")
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


def _tune(sock: socket.socket) -> None:
    """Make the kernel send without delay and detect a peer that has vanished.

    Accepted sockets inherit the options of their listening socket.
    """
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(sock)
