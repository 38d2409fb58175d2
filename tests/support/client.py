"""A WebSocket and HTTP client for tests, written by hand from RFC 6455 and RFC 9112, over a blocking socket.

It shares no code with the product or a library, so that a bug cannot be in both. It can do what a browser never does. It sends unmasked
frames, reserved bits, frames in the handshake's segment, half a request or a reset. The deadline of a receive covers the whole
operation.

While it receives, the client answers pings and echoes a close frame, as RFC 6455 requires; both can be disabled. One thread may send
while another receives, but not over TLS.
"""

from __future__ import annotations

import base64
import hashlib
import os
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from threading import Thread
from typing import Self

from tests.support.deadline import DEADLINE, scaled, slowdown

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, section 1.3."""

NO_STATUS = 1005
ABNORMAL = 1006
"""The codes under which a browser reports a close frame without a code, and a connection that ended without a close frame."""

Headers = Iterable[tuple[str, str | None]]


class DeadlinePassed(AssertionError):
    """The awaited data did not arrive in time."""


class ConnectionEnded(Exception):
    """The peer closed the TCP connection; `reset` tells a reset from an orderly close."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__("the peer reset the connection" if reset else "the peer closed the connection")
        self.reset = reset


class Opcode(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


@dataclass(frozen=True, slots=True)
class Frame:
    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message, joined from its fragments; `kind` is TEXT or BINARY."""

    kind: Opcode
    data: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The end of a connection, as a browser's `onclose` reports it."""

    code: int
    reason: str = ""


class Closed(Exception):
    """The connection ended, although a message was expected."""

    def __init__(self, close: Close) -> None:
        super().__init__(f"closed with {close.code} {close.reason!r}")
        self.close = close


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response; headers in their order, including repeats."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def values(self, name: str) -> list[str]:
        """Return the values of every header line of that name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name: str) -> str | None:
        """Return the value of the only header line of that name, or None; two lines are an error."""
        values = self.values(name)
        assert len(values) < 2, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None


class Refused(Exception):
    """The response to the upgrade was not 101."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"the upgrade was answered with {response.status} {response.reason}")
        self.response = response


class Stream:
    """A connected socket with a read buffer; every read has a deadline."""

    def __init__(self, sock: socket.socket, timeout: float = DEADLINE) -> None:
        self.sock = sock
        self.timeout = timeout
        self._buffer = bytearray()
        # The kernel ends a blocked send, so that a thread may send while another waits in poll().
        longest = scaled(timeout)
        seconds = int(longest)
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", seconds, int((longest - seconds) * 1e6)))

    def deadline(self, timeout: float | None) -> float:
        """The time.monotonic() at which an operation that starts now times out."""
        return time.monotonic() + scaled(self.timeout if timeout is None else timeout)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all data, or raise DeadlinePassed if the peer accepts nothing for `timeout` seconds."""
        try:
            self.sock.sendall(data)
        except BlockingIOError:
            raise DeadlinePassed(f"the peer took nothing for {self.timeout} s") from None

    def read_exactly(self, size: int, timeout: float | None = None) -> bytes:
        """Return the next `size` bytes."""
        deadline = self.deadline(timeout)
        while len(self._buffer) < size:
            self._fill(deadline, f"{size} bytes")
        return self._pop(size)

    def read_until(self, separator: bytes, timeout: float | None = None) -> bytes:
        """Return the bytes up to and including the separator."""
        deadline = self.deadline(timeout)
        while (end := self._buffer.find(separator)) < 0:
            self._fill(deadline, repr(separator))
        return self._pop(end + len(separator))

    def read_to_end(self, timeout: float | None = None) -> bytes:
        """Return all bytes until the peer closes the connection."""
        deadline = self.deadline(timeout)
        with suppress(ConnectionEnded):
            while True:
                self._fill(deadline, "the end of the connection")
        return self._pop(len(self._buffer))

    def wait_for_end(self, timeout: float | None = None) -> bool:
        """Read until the peer closes the connection; return whether it was reset."""
        deadline = self.deadline(timeout)
        try:
            while True:
                self._fill(deadline, "the end of the connection")
        except ConnectionEnded as end:
            return end.reset

    def end_sending(self) -> None:
        """Half-close the connection."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close the connection with a TCP reset, as a crashed peer's kernel does."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _pop(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _fill(self, deadline: float, wanted: str) -> None:
        self._wait_readable(deadline, wanted)
        try:
            data = self.sock.recv(1 << 18)
        except ConnectionResetError:
            raise ConnectionEnded(reset=True) from None
        if not data:
            raise ConnectionEnded(reset=False)
        self._buffer += data

    def _wait_readable(self, deadline: float, wanted: str) -> None:
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            return
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            so_far = bytes(self._buffer[:200])
            raise DeadlinePassed(f"waited in vain for {wanted}; {len(self._buffer)} bytes have come: {so_far!r}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def remaining(deadline: float) -> float:
    """Return the time until a deadline, in seconds of a quiet machine, which `Stream.deadline` converts back."""
    return max(0.0, deadline - time.monotonic()) / slowdown()


def open_stream(
    *,
    port: int = 0,
    host: str = "127.0.0.1",
    unix: str | Path | None = None,
    tls: ssl.SSLContext | None = None,
    receive_buffer: int | None = None,
    timeout: float = DEADLINE,
) -> Stream:
    """Connect to a TCP port or a Unix socket, over TLS if there is a context.

    With a small `receive_buffer` (SO_RCVBUF, bytes), the peer soon notices that the client does not read.
    """
    if unix is not None:
        family, address = socket.AF_UNIX, str(unix)
    else:
        family, address = (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, port)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(scaled(timeout))
        sock.connect(address)
        if unix is None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname="localhost" if host.startswith("127.") else host)
    except BaseException:
        sock.close()
        raise
    return Stream(sock, timeout)


def read_response(stream: Stream, *, method: str = "GET", timeout: float | None = None) -> Response:
    """Read one HTTP response with its body: up to Content-Length or the last chunk, or to the end of the connection."""
    deadline = stream.deadline(timeout)
    head = stream.read_until(b"\r\n\r\n", remaining(deadline)).decode("latin-1")
    status_line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    _, status, reason = (status_line + " ").split(" ", 2)
    fields = (line.partition(":") for line in lines)
    response = Response(int(status), reason.strip(), tuple((name, value.strip()) for name, _, value in fields))
    body = b"" if method == "HEAD" or response.status in {101, 204, 304} else _read_body(stream, response, deadline)
    return Response(response.status, response.reason, response.headers, body)


def request_bytes(method: str, target: str, headers: Headers, body: bytes = b"", *, version: str = "HTTP/1.1") -> bytes:
    """Encode an HTTP request exactly as given; header values are sent as latin-1."""
    lines = [f"{method} {target} {version}", *(f"{name}: {value}" for name, value in headers if value is not None), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def replaced(defaults: Headers, headers: Headers) -> list[tuple[str, str | None]]:
    """Return the default headers without the given names, then the given headers; None as value omits a header."""
    given = list(headers)
    names = {name.lower() for name, _ in given}
    return [pair for pair in defaults if pair[0].lower() not in names] + given


def request(
    method: str,
    target: str,
    *,
    headers: Headers = (),
    body: bytes = b"",
    timeout: float | None = None,
    port: int = 0,
    **where: object,
) -> Response:
    """Make one HTTP request on its own connection. `where` is as for open_stream; the target is sent unchanged."""
    defaults: list[tuple[str, str | None]] = [("Host", f"127.0.0.1:{port}"), ("Connection", "close")]
    if body:
        defaults.append(("Content-Length", str(len(body))))
    with open_stream(port=port, **where) as stream:  # type: ignore[arg-type]
        # A server may answer and close before it has read everything.
        with suppress(BrokenPipeError, ConnectionResetError):
            stream.send(request_bytes(method, target, replaced(defaults, headers), body))
        return read_response(stream, method=method, timeout=timeout)


def encode_frame(payload: bytes, opcode: int = Opcode.TEXT, *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """Encode one frame (RFC 6455, section 5.2), also one that the RFC forbids. The mask is random."""
    size = len(payload)
    head = bytearray([(0x80 if fin else 0) | rsv << 4 | opcode])
    flag = 0x80 if masked else 0
    if size < 126:
        head.append(flag | size)
    elif size < 1 << 16:
        head += struct.pack(">BH", flag | 126, size)
    else:
        head += struct.pack(">BQ", flag | 127, size)
    if not masked:
        return bytes(head) + payload
    mask = os.urandom(4)
    return bytes(head) + mask + _xor(payload, mask)


def encode_fragments(parts: Sequence[bytes], kind: Opcode = Opcode.TEXT) -> bytes:
    """Encode one message as several frames."""
    opcodes = [kind, *[Opcode.CONTINUATION] * (len(parts) - 1)]
    last = len(parts) - 1
    return b"".join(encode_frame(part, opcodes[index], fin=index == last) for index, part in enumerate(parts))


def close_payload(code: int | None, reason: str = "") -> bytes:
    """The body of a close frame; empty without a code."""
    return b"" if code is None else struct.pack(">H", code) + reason.encode()


class Client:
    """One WebSocket connection; made by connect()."""

    def __init__(self, stream: Stream, response: Response, *, answers_pings: bool = True) -> None:
        self.stream = stream
        self.response = response
        self.answers_pings = answers_pings
        self.close_frame: Close | None = None
        """The close frame of the server, once it has arrived."""
        self._sent_close = False

    @property
    def subprotocol(self) -> str | None:
        return self.response.value("Sec-WebSocket-Protocol")

    def send_text(self, text: str) -> None:
        self.send_frame(text.encode(), Opcode.TEXT)

    def send_binary(self, data: bytes) -> None:
        self.send_frame(data, Opcode.BINARY)

    def send_ping(self, data: bytes = b"") -> None:
        self.send_frame(data, Opcode.PING)

    def send_pong(self, data: bytes = b"") -> None:
        self.send_frame(data, Opcode.PONG)

    def send_close(self, code: int | None = 1000, reason: str = "") -> None:
        self.send_frame(close_payload(code, reason), Opcode.CLOSE)

    def send_fragments(self, parts: Sequence[bytes], kind: Opcode = Opcode.TEXT) -> None:
        """Send one message as several frames."""
        self.send_raw(encode_fragments(parts, kind))

    def send_frame(self, payload: bytes, opcode: int, *, fin: bool = True, rsv: int = 0, masked: bool = True) -> None:
        """Send any frame, also a forbidden one."""
        self._sent_close |= opcode == Opcode.CLOSE
        self.send_raw(encode_frame(payload, opcode, fin=fin, rsv=rsv, masked=masked))

    def send_raw(self, data: bytes) -> None:
        self.stream.send(data)

    @contextmanager
    def sending(self, data: bytes) -> Iterator[Thread]:
        """Send raw bytes from a thread, for a peer that does not accept them at once; yield the thread.

        The thread has ended when the block ends: it has sent all bytes, or the connection is shut down and the rest is dropped.
        """
        thread = Thread(target=self._send_until_closed, args=(data,))
        thread.start()
        try:
            yield thread
        finally:
            # This wakes a blocked send; afterwards, the connection is unusable.
            if thread.is_alive():
                with suppress(OSError):
                    self.stream.sock.shutdown(socket.SHUT_RDWR)
            thread.join()

    def receive_frame(self, timeout: float | None = None) -> Frame:
        """Return the next frame unchanged; raise ConnectionEnded if there is none."""
        deadline = self.stream.deadline(timeout)
        first, second = self.stream.read_exactly(2, remaining(deadline))
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", self.stream.read_exactly(2, remaining(deadline)))
        elif size == 127:
            (size,) = struct.unpack(">Q", self.stream.read_exactly(8, remaining(deadline)))
        assert not second & 0x80, "a server must not mask its frames (RFC 6455, section 5.1)"
        return Frame(first & 0x0F, self.stream.read_exactly(size, remaining(deadline)), bool(first & 0x80), first >> 4 & 7)

    def receive(self, timeout: float | None = None) -> Message:
        """Return the next message; raise Closed if the connection ends instead."""
        deadline = self.stream.deadline(timeout)
        parts: list[bytes] = []
        kind = Opcode.CONTINUATION
        while True:
            frame = self._receive_or_closed(remaining(deadline))
            assert frame.rsv == 0, f"reserved bits without an extension: {frame}"
            if frame.opcode >= Opcode.CLOSE:
                self._handle_control(frame)
                continue
            assert (frame.opcode == Opcode.CONTINUATION) == bool(parts), f"fragments out of order: opcode {frame.opcode}"
            kind = kind if parts else Opcode(frame.opcode)
            parts.append(frame.payload)
            if frame.fin:
                return Message(kind, b"".join(parts))

    def receive_text(self, timeout: float | None = None) -> str:
        """Return the next message, which must be text."""
        message = self.receive(timeout)
        assert message.kind is Opcode.TEXT, f"expected text: {message}"
        return message.data.decode()

    def receive_binary(self, timeout: float | None = None) -> bytes:
        """Return the next message, which must be binary."""
        message = self.receive(timeout)
        assert message.kind is Opcode.BINARY, f"expected binary: {message}"
        return message.data

    def receive_bytes(self, size: int, timeout: float | None = None) -> bytes:
        """Return binary messages joined, until they have `size` bytes: chunks have no boundaries of their own."""
        deadline = self.stream.deadline(timeout)
        data = bytearray()
        while len(data) < size:
            data += self.receive_binary(remaining(deadline))
        return bytes(data)

    def receive_until_close(self, timeout: float | None = None) -> tuple[list[Message], Close]:
        """Return all messages up to the end of the connection, and its end."""
        deadline = self.stream.deadline(timeout)
        messages = []
        try:
            while True:
                messages.append(self.receive(remaining(deadline)))
        except Closed as closed:
            return messages, closed.close

    def receive_lines(self, timeout: float | None = None) -> list[str]:
        """Return the text of all messages up to the end of the connection."""
        messages, _ = self.receive_until_close(timeout)
        return [message.data.decode() for message in messages]

    def receive_close(self, timeout: float | None = None) -> Close:
        """Skip all messages; return the end of the connection."""
        return self.receive_until_close(timeout)[1]

    def is_open(self, data: bytes = b"still there?") -> bool:
        """Return whether the server answers a ping; messages before the pong are lost."""
        deadline = self.stream.deadline(None)
        try:
            self.send_ping(data)
            while self.receive_frame(remaining(deadline)) != Frame(Opcode.PONG, data):
                pass
        except (ConnectionEnded, ConnectionError):
            return False
        return True

    def wait_for_end(self, timeout: float | None = None) -> bool:
        """Read until the peer closes TCP; return whether it was reset."""
        return self.stream.wait_for_end(timeout)

    def drop(self) -> None:
        """Close TCP without a close frame, as a killed browser does."""
        self.stream.close()

    def reset(self) -> None:
        """Close TCP with a reset."""
        self.stream.reset()

    def _receive_or_closed(self, timeout: float | None) -> Frame:
        try:
            return self.receive_frame(timeout)
        except ConnectionEnded:
            raise Closed(self.close_frame or Close(ABNORMAL)) from None

    def _handle_control(self, frame: Frame) -> None:
        if frame.opcode == Opcode.PING and self.answers_pings:
            with suppress(ConnectionError):
                self.send_pong(frame.payload)
        elif frame.opcode == Opcode.CLOSE:
            self.close_frame = _read_close(frame.payload)
            if not self._sent_close:
                with suppress(ConnectionError):
                    self.send_frame(frame.payload, Opcode.CLOSE)
            raise Closed(self.close_frame)

    def _send_until_closed(self, data: bytes) -> None:
        with suppress(OSError):
            self.stream.sock.sendall(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stream.close()


def connect(
    path: str = "/",
    *,
    headers: Headers = (),
    origin: str | None = None,
    subprotocols: Sequence[str] = (),
    early: bytes = b"",
    method: str = "GET",
    version: str = "HTTP/1.1",
    answers_pings: bool = True,
    timeout: float = DEADLINE,
    port: int = 0,
    **where: object,
) -> Client:
    """Upgrade a new connection; raise Refused if the response is not 101.

    A given header replaces the default header of that name, or omits it if its value is None; a name may be repeated. `early` is sent
    in the handshake's segment. `where` is as for open_stream.
    """
    key = base64.b64encode(os.urandom(16)).decode()
    defaults: list[tuple[str, str | None]] = [
        ("Host", f"127.0.0.1:{port}"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", "13"),
        ("Origin", origin),
        ("Sec-WebSocket-Protocol", ", ".join(subprotocols) or None),
    ]
    stream = open_stream(port=port, timeout=timeout, **where)  # type: ignore[arg-type]
    try:
        with suppress(BrokenPipeError, ConnectionResetError):
            stream.send(request_bytes(method, path, replaced(defaults, headers), early, version=version))
        response = read_response(stream)
        if response.status != 101:
            raise Refused(response)
        accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
        assert response.value("Sec-WebSocket-Accept") == accept, f"the handshake's answer is not ours: {response.headers}"
    except BaseException:
        stream.close()
        raise
    return Client(stream, response, answers_pings=answers_pings)


def _read_body(stream: Stream, response: Response, deadline: float) -> bytes:
    if "chunked" in (response.value("Transfer-Encoding") or ""):
        body = b""
        while size := int(stream.read_until(b"\r\n", remaining(deadline)).split(b";")[0], 16):
            body += stream.read_exactly(size + 2, remaining(deadline))[:-2]
        stream.read_until(b"\r\n", remaining(deadline))
        return body
    length = response.value("Content-Length")
    return stream.read_to_end(remaining(deadline)) if length is None else stream.read_exactly(int(length), remaining(deadline))


def _read_close(payload: bytes) -> Close:
    if not payload:
        return Close(NO_STATUS)
    (code,) = struct.unpack_from(">H", payload)
    return Close(code, payload[2:].decode())


def _xor(payload: bytes, mask: bytes) -> bytes:
    """Mask in one operation on whole numbers, because a loop in Python would take a second for some megabytes."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
