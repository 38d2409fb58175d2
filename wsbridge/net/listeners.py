"""The listeners of a server, with and without TLS. They open, close and change one by one while the server runs.

A change keeps the listening sockets, so no connection in their accept queues is lost. Established connections never change: each
keeps the TLS context of its handshake.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from wsbridge.errors import ListenError
from wsbridge.logs import logger
from wsbridge.metrics import Metrics
from wsbridge.net.acceptor import Acceptor
from wsbridge.net.binding import Bound, bind
from wsbridge.net.certificates import make_context
from wsbridge.net.tls import TlsOpener
from wsbridge.net.transports import Connect, Open, plain_transports, use_fast_transports
from wsbridge.net.unixsocket import group_number, user_number
from wsbridge.settings import ListenSettings, TlsSettings

log = logger("http")


class Incoming(asyncio.Protocol):
    """The protocol of an accepted connection."""

    __slots__ = ()

    def read_available(self) -> None:
        """Read the bytes that have already arrived; the listener calls this once the transport reads its socket."""


Factory = Callable[..., Incoming]
"""Makes the protocol of a connection. Its optional argument is the socket of a connection without TLS, whose protocol then waits for
`read_available`."""


RedirectFactory = Callable[[str, int], Factory]
"""Returns the factory of a redirect server, for the scheme and the port that it redirects to."""


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
            self._loop.call_soon(incoming.read_available)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            log.debug("cannot begin a connection: %s", error)


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the server that all its listeners use."""

    factory: Factory
    acceptor: Acceptor
    metrics: Metrics
    loop: asyncio.AbstractEventLoop
    redirect: RedirectFactory | None
    connect: Connect
    plain: Open


class Renewal(NamedTuple):
    """The content of certificate files that have changed."""

    context: ssl.SSLContext
    stamp: tuple[object, ...]
    """The files of the certificate, in a form that changes with them."""


class Listener:
    """All sockets of one ListenSettings. `Listeners.open` makes it, and it accepts connections until `close`."""

    def __init__(
        self,
        settings: ListenSettings,
        context: ssl.SSLContext | None,
        stamp: tuple[object, ...],
        bound: Bound,
        parts: Parts,
        on_close: Callable[[Listener], None],
    ) -> None:
        self.settings = settings
        self.addresses = bound.addresses
        """The actual addresses: host and port, or the path of a Unix socket. An abstract Unix address begins with `@`."""
        self._bound = bound
        self._stamp = stamp
        self._parts = parts
        self._on_close = on_close
        self._is_closed = False
        self._plain = PlainOpener(parts.factory, make=parts.plain, loop=parts.loop)
        self._tls: TlsOpener | None = None
        """It stays after a change to settings without TLS, until its handshakes in progress have ended."""
        self._use(settings, context)

    def renewal(self) -> Renewal | None:
        """Read the certificate files again, and return the argument of `renew`; None without TLS, or if the files are the same.

        Raises ListenError if the files are not usable. The listener keeps its present certificate until `renew`.
        """
        tls = self.settings.tls
        if tls is None or (stamp := _stamp(tls)) == self._stamp:
            return None
        return Renewal(make_context(tls), stamp)

    def renew(self, renewal: Renewal) -> None:
        """Use the certificate of a renewal for new handshakes."""
        self._secure(renewal.context)
        self._stamp = renewal.stamp

    def change(self, settings: ListenSettings) -> None:
        """Use other settings with the same addresses from the next accepted connection on; read all certificate files again.

        Raises ListenError, and changes nothing, if the certificate files or the rights of the Unix socket are not usable, or if
        the addresses differ.
        """
        if self._is_closed:
            raise ListenError(f"cannot change the listener at {', '.join(self.addresses)}: it is closed")
        if _place(settings) != _place(self.settings):
            raise ListenError(f"cannot change the addresses of the listener at {', '.join(self.addresses)}; close it and open another")
        stamp, context = _stamp(settings.tls), _context(settings.tls)
        if self._bound.file is not None and _rights(settings) != _rights(self.settings):
            mode, owner, group = _rights(settings)
            self._bound.file.give(mode=mode, owner=owner, group=group)
        self._use(settings, context)
        self._stamp = stamp

    def close(self) -> None:
        """Stop accepting, close the sockets and abort the handshakes in progress; established connections stay open.

        Unlink the path of the Unix socket now, and only if it is still this listener's socket. A successor may have bound the path,
        or may bind it while this server ends its sessions.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self._bound.file is not None:
            self._bound.file.remove()
        for sock in self._bound.sockets:
            self._parts.acceptor.stop(sock)
        if self._tls is not None:
            self._tls.close()
        self._on_close(self)

    def _use(self, settings: ListenSettings, context: ssl.SSLContext | None) -> None:
        open = self._plain.open if context is None else self._secure(context).open
        for sock in self._bound.main:
            self._parts.acceptor.listen(sock, open)
        for sock, port in self._bound.redirects:
            assert self._parts.redirect is not None
            server = self._parts.redirect("https" if context else "http", port)
            self._parts.acceptor.listen(sock, PlainOpener(server, make=self._parts.plain, loop=self._parts.loop).open)
        self.settings = settings

    def _secure(self, context: ssl.SSLContext) -> TlsOpener:
        """Use a context for new handshakes."""
        parts = self._parts
        if self._tls is None:
            self._tls = TlsOpener(parts.factory, context, connect=parts.connect, metrics=parts.metrics, loop=parts.loop)
        self._tls.context = context
        return self._tls


class Listeners:
    """Opens the listeners of a server, which share its factory and its acceptor, and closes them at the end."""

    def __init__(
        self,
        factory: Factory,
        acceptor: Acceptor,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
        *,
        redirect: RedirectFactory | None = None,
        inherited: Mapping[str, list[socket.socket]] | None = None,
    ) -> None:
        """`redirect` is needed for settings with a redirect port. `inherited` contains sockets by name, which belong to this object
        from then on.
        """
        connect, plain = use_fast_transports(loop), plain_transports(loop)
        self._parts = Parts(factory, acceptor, metrics, loop, redirect, connect, plain)
        self._inherited = dict(inherited or {})
        self._open: set[Listener] = set()
        self._is_closed = False

    async def open(self, settings: ListenSettings) -> Listener:
        """Open all sockets of the settings, or none; they accept connections when all are open. Raises ListenError."""
        stamp, context = _stamp(settings.tls), _context(settings.tls)
        bound = await bind(settings, self._parts.loop, inherited=self._inherited)
        if self._is_closed:
            bound.close()
            raise ListenError(f"cannot listen on {', '.join(bound.addresses)}: the server is shutting down")
        listener = Listener(settings, context, stamp, bound, self._parts, self._open.discard)
        self._open.add(listener)
        return listener

    def close(self) -> None:
        """Close every listener, and the inherited sockets that no listener uses. From then on, `open` raises ListenError."""
        self._is_closed = True
        for listener in tuple(self._open):
            listener.close()
        self._parts.acceptor.close()
        while self._inherited:
            for sock in self._inherited.popitem()[1]:
                sock.close()


def _context(tls: TlsSettings | None) -> ssl.SSLContext | None:
    return make_context(tls) if tls is not None else None


def _stamp(tls: TlsSettings | None) -> tuple[object, ...]:
    """Return a value that changes with the files of a certificate. Call this before reading them."""
    if tls is None:
        return ()
    return tuple(_stamp_of_file(name) for name in (tls.certificate, tls.key, tls.client_ca) if name)


def _stamp_of_file(name: str) -> tuple[int, ...]:
    try:
        found = os.stat(name)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _place(settings: ListenSettings) -> tuple[object, ...]:
    """Return the settings that determine the addresses."""
    return settings.address, settings.redirect_port


def _rights(settings: ListenSettings) -> tuple[int, int, int]:
    return settings.unix_mode, user_number(settings.owner), group_number(settings.group)
