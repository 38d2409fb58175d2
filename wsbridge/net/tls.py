"""TLS connections: the server checks the first byte, answers plain HTTP with an explanation, and logs why a handshake failed."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable

from wsbridge.errors import reason_of
from wsbridge.logs import ACCESS, RateLimit, logger
from wsbridge.mentions import written
from wsbridge.metrics import Metrics
from wsbridge.net.transports import Connect
from wsbridge.rules.forwarded import UNIX_PEER

HANDSHAKE = b"\x16"
"""The record type of every handshake (RFC 8446, section 5.1); no HTTP method begins with this byte."""
HANDSHAKE_SECONDS = 10.0
"""Seconds from the connection to the end of its handshake."""
NO_TLS = b"\x15\x03\x03\x00\x02\x02\x0a"
"""The fatal alert unexpected_message (RFC 8446, section 6), for bytes that are neither a handshake nor HTTP."""
HTTP = re.compile(rb"[A-Z]+ \S* ?HTTP/|[A-Z]+ [/*]")
"""The beginning of a request line (RFC 9112, section 3)."""
WRONG_SCHEME = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
    b"Client sent an HTTP request to an HTTPS server. Use https:// or wss:// here.\n"
)
DRAIN_BYTES = 64 * 1024
"""The most bytes to read of such a request, so that a reset does not destroy the response."""

REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client sent no certificate, which <client_ca> requires",
    "UNSUPPORTED_PROTOCOL": "the client does not offer TLS 1.2 or newer",
    "NO_SHARED_CIPHER": "the client offers no cipher suite that the server supports",
    "WRONG_VERSION_NUMBER": "the client sent data that is not TLS",
    "PACKET_LENGTH_TOO_LONG": "the client sent data that is not TLS",
    "RECORD_LAYER_FAILURE": "the client sent data that is not TLS",
    "UNEXPECTED_MESSAGE": "the client sent data that is not TLS",
}
"""The meaning of OpenSSL's reason codes here."""
DISTRUST = ("UNKNOWN_CA", "CERTIFICATE_UNKNOWN", "BAD_CERTIFICATE", "UNSUPPORTED_CERTIFICATE", "CERTIFICATE_EXPIRED")
"""The alerts by which a client refuses a server's certificate."""

log = logger("http")


class TlsOpener:
    """Makes TLS connections from accepted sockets; it checks the first byte of a connection before it creates the transport."""

    def __init__(
        self,
        factory: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext,
        *,
        connect: Connect,
        metrics: Metrics,
        timeout: float = HANDSHAKE_SECONDS,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._timeout = timeout
        self._metrics = metrics
        self._log = RateLimit(log, ACCESS)
        self._factory = factory
        self.context = context
        """The context of handshakes that begin from now on."""
        self._connect = connect
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, sock: socket.socket, address: object) -> None:
        """Begin a connection, which owns the socket from then on."""
        task = self._loop.create_task(self._open(sock, address), name="tls")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Abort the handshakes in progress."""
        for task in self._tasks:
            # The task of a connection that was established in this iteration of the loop has yet to run; it must not be cancelled.
            self._loop.call_soon(task.cancel)

    async def _open(self, sock: socket.socket, address: object) -> None:
        """Check the first byte and make the TLS connection, whose transport owns the socket from then on."""
        try:
            async with asyncio.timeout(self._timeout):
                first = await self._first_byte(sock)
                if first == HANDSHAKE:
                    await self._connect(self._factory, sock, ssl=self.context, ssl_handshake_timeout=self._timeout)
                    return
            if first:
                self._answer(sock, address)
        except (OSError, TimeoutError) as error:
            self._failed(address, reason_of_failure(error, timeout=self._timeout))
        except BaseException:
            sock.close()
            raise
        sock.close()

    def _answer(self, sock: socket.socket, address: object) -> None:
        """Answer a client that does not use TLS: a 400 response to plain HTTP, a TLS alert to everything else."""
        is_http = HTTP.match(sock.recv(DRAIN_BYTES)) is not None
        self._failed(address, "the client sent plain HTTP" if is_http else "the client sent data that is not TLS")
        sock.send(WRONG_SCHEME if is_http else NO_TLS)

    def _failed(self, address: object, reason: str) -> None:
        self._metrics.tls_failures += 1
        remote = str(address[0]).removeprefix("::ffff:") if isinstance(address, tuple) else UNIX_PEER
        self._log.log(reason, f"TLS handshake failed: {reason}", {"remote": remote}, self._loop.time())

    async def _first_byte(self, sock: socket.socket) -> bytes:
        """Wait for the first byte and return it unread; return no byte if the client has disconnected."""
        readable = self._loop.create_future()
        self._loop.add_reader(sock, _wake, readable)
        try:
            await readable
        finally:
            self._loop.remove_reader(sock)
        return sock.recv(1, socket.MSG_PEEK)


def reason_of_failure(error: OSError | TimeoutError, *, timeout: float = HANDSHAKE_SECONDS) -> str:
    """Return the reason for a failed handshake, as text for the log. `timeout` is the time that it had."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server rejected the client's certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if "_ALERT_" in reason and reason.endswith(DISTRUST):
            return f"the client does not trust the server's certificate ({_in_words(reason)})"
        return written(REASONS.get(reason, _in_words(reason) or str(error)))
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the client closed the connection"
    if isinstance(error, TimeoutError | ConnectionAbortedError):
        return f"it took longer than {timeout:g} s"
    return reason_of(error)


def _in_words(reason: str) -> str:
    return reason.rpartition("_ALERT_")[2].lower().replace("_", " ")


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
