"""permessage-deflate (RFC 7692): the negotiation of a client's offer, and the compression of messages.

It is off by default: lines are short, and each session needs memory for its windows. With a window of 4 KiB and the memory level below, a
session costs 42 KiB more (measured) instead of zlib's usual 300. These figures hold after data was sent in each direction.

Messages for many clients are compressed once. Each message is compressed by itself, without an earlier window, so that the result
is the same for all clients. That costs no memory per client, and a short message gains little.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from wsbridge.closecodes import INVALID_DATA, PROTOCOL_ERROR, TOO_BIG
from wsbridge.errors import ClientError

NAME = "permessage-deflate"
TAIL = b"\x00\x00\xff\xff"
"""The end of a flush, which is not sent (RFC 7692, section 7.2.1)."""

STREAMS = 16
"""A message may end one deflate stream and continue with another. Each stream costs a new window, so their number is bounded."""
BITS = frozenset(map(str, range(8, 16)))
WINDOW_BITS = 12
SHARED_BITS, SMALL_SHARED_BITS = 15, 9
"""Window bits of shared compression, which has one window in all and not one per client. Clients without support for the large
window all use the small one, so that there are at most two."""
MEMORY_LEVEL = 5


@dataclass(frozen=True, slots=True)
class Parameters:
    """The result of the negotiation.

    `server_bits` is the largest window that the server uses; the client's window always counts as 15 bits.
    """

    server_bits: int = WINDOW_BITS
    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False

    def header(self) -> str:
        """Return the value of Sec-WebSocket-Extensions that accepts the offer."""
        parts = [NAME, f"server_max_window_bits={self.server_bits}"]
        if self.server_no_context_takeover:
            parts.append("server_no_context_takeover")
        if self.client_no_context_takeover:
            parts.append("client_no_context_takeover")
        return "; ".join(parts)


def negotiate(offers: str, *, is_shared: bool = False) -> Parameters | None:
    """Accept the first offer that can be met, or return None. `offers` is a value of Sec-WebSocket-Extensions (RFC 7692, section 7.1).

    An offer with an unknown or repeated parameter, or with an invalid value, is declined, and the next offer is examined. Shared
    compression has no context takeover, and the server needs no offer for that (section 7.1.1.1).
    """
    for offer in offers.split(","):
        name, *rest = (part.strip() for part in offer.split(";"))
        if name == NAME and (accepted := _accept(rest, is_shared)) is not None:
            return accepted
    return None


def _accept(parameters: list[str], is_shared: bool) -> Parameters | None:
    seen: dict[str, str] = {}
    for parameter in parameters:
        key, _, value = (part.strip().strip('"') for part in parameter.partition("="))
        if key in seen:
            return None
        seen[key] = value
    server_bits = SHARED_BITS if is_shared else WINDOW_BITS
    for key, value in seen.items():
        match key:
            case "server_no_context_takeover" | "client_no_context_takeover" if not value:
                continue
            case "client_max_window_bits" if not value or _bits(value):
                continue
            # zlib cannot produce raw deflate with a window of 8 bits.
            case "server_max_window_bits" if _bits(value) > 8:
                server_bits = min(server_bits, _bits(value))
            case _:
                return None
    if is_shared and server_bits < SHARED_BITS:
        server_bits = SMALL_SHARED_BITS
    return Parameters(server_bits, is_shared or "server_no_context_takeover" in seen, "client_no_context_takeover" in seen)


def _bits(value: str) -> int:
    return int(value) if value in BITS else 0


def max_compressed_bytes(limit: int) -> int:
    """Return the maximum payload of a compressed message of `limit` bytes: compression may turn 8 bits into 9, and adds some headers."""
    return limit + limit // 8 + 64 if limit else 0


class Deflate:
    """Compression for both directions of a session. Each direction keeps its window between messages, unless negotiated otherwise."""

    __slots__ = ("_compress", "_decompress", "parameters")

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self._compress: zlib._Compress | None = None
        self._decompress: zlib._Decompress | None = None

    def compress(self, message: bytes | bytearray) -> bytes:
        """Return the payload of a message, to send with RSV1 set."""
        if self._compress is None or self.parameters.server_no_context_takeover:
            self._compress = self._compressor()
        return (self._compress.compress(message) + self._compress.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)

    def decompress(self, payload: bytes | bytearray, limit: int) -> bytes:
        """Return the message of a payload.

        Raises ClientError: 1009 past `limit` bytes (0: no limit), 1007 if it is not deflate, 1002 past STREAMS.
        """
        if self._decompress is None or self.parameters.client_no_context_takeover:
            self._decompress = zlib.decompressobj(-15)
        message = b""
        rest = bytes(payload) + TAIL
        try:
            for _ in range(STREAMS):
                message += self._decompress.decompress(rest, limit + 1 - len(message) if limit else 0)
                if limit and len(message) > limit:
                    raise ClientError(TOO_BIG, f"message longer than {limit} bytes")
                if not self._decompress.eof:
                    return message
                # A final block ends a stream, but neither the message nor the session (RFC 7692, section 7.2.3.5).
                rest = self._decompress.unused_data
                self._decompress = zlib.decompressobj(-15)
            raise ClientError(PROTOCOL_ERROR, f"more than {STREAMS} deflate streams in a message")
        except zlib.error:
            raise ClientError(INVALID_DATA, "compressed message is damaged") from None

    def _compressor(self) -> zlib._Compress:
        return zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -self.parameters.server_bits, MEMORY_LEVEL)


class SharedDeflate:
    """Compresses each message by itself, for all clients whose window has at least `bits` bits."""

    def __init__(self, bits: int) -> None:
        self._bits = bits

    def compress(self, message: bytes | bytearray) -> bytes:
        """Return the payload of a message, to send with RSV1 set; it may be longer than the message."""
        fresh = zlib.compressobj(wbits=-self._bits)
        return (fresh.compress(message) + fresh.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
