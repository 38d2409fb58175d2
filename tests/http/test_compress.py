"""`--compress`: the server negotiates permessage-deflate (RFC 7692), and sessions with it are as correct as without.

The client uses zlib alone and is strict: it decompresses with the negotiated window.
"""

from __future__ import annotations

import random
import ssl
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest

from tests.support.client import Client, Close, Closed, Opcode, encode_frame
from tests.support.proc import resident
from tests.support.server import Server
from tests.support.site import Certificates, Serve, shell_path

TAIL = b"\x00\x00\xff\xff"
RSV1 = 4
MIB = 1 << 20
OFFERS = (
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; client_max_window_bits=10",
    "permessage-deflate; server_max_window_bits=9",
    "permessage-deflate; server_no_context_takeover",
    "permessage-deflate; client_no_context_takeover",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10",
)
NOISE = random.Random(3).randbytes(300_000)


@dataclass(frozen=True, slots=True)
class Agreed:
    """The negotiated parameters in the server's response."""

    parameters: dict[str, str]

    @property
    def server_bits(self) -> int:
        return int(self.parameters.get("server_max_window_bits", "15"))

    @property
    def client_bits(self) -> int:
        return int(self.parameters.get("client_max_window_bits", "15"))


class CompressedSession:
    """A client that compresses messages, and expects compressed messages."""

    def __init__(self, client: Client) -> None:
        self.client = client
        header = client.response.value("Sec-WebSocket-Extensions") or ""
        name, *parameters = (part.strip() for part in header.split(";"))
        assert name == "permessage-deflate"
        self.agreed = Agreed({key: value for key, _, value in (parameter.partition("=") for parameter in parameters)})
        self._deflate = self._compressor()
        self._inflate = self._decompressor()

    def payload(self, data: bytes) -> bytes:
        """Compress a message (RFC 7692, section 7.2.1)."""
        if "client_no_context_takeover" in self.agreed.parameters:
            self._deflate = self._compressor()
        compressed = self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        # Without new data, zlib flushes nothing: an empty stored block represents an empty message (section 7.2.3.6).
        return compressed.removesuffix(TAIL) or b"\x00"

    def send(self, data: bytes, kind: Opcode = Opcode.TEXT) -> None:
        self.client.send_frame(self.payload(data), kind, rsv=RSV1)

    def receive(self) -> tuple[int, bytes]:
        """Return kind and content of the next message, which must be compressed, in one or more frames."""
        frame = self.client.receive_frame()
        while frame.opcode >= Opcode.CLOSE:
            assert frame.rsv == 0, f"a control frame is never compressed: {frame}"
            if frame.opcode == Opcode.CLOSE:
                code = struct.unpack_from(">H", frame.payload)[0] if frame.payload else 1005
                raise Closed(Close(code, frame.payload[2:].decode()))
            frame = self.client.receive_frame()
        assert frame.rsv == RSV1, f"RSV1 alone marks a compressed message: {frame}"
        kind, payload = frame.opcode, frame.payload
        while not frame.fin:
            frame = self.client.receive_frame()
            assert (frame.rsv, frame.opcode) == (0, Opcode.CONTINUATION)
            payload += frame.payload
        if "server_no_context_takeover" in self.agreed.parameters:
            self._inflate = self._decompressor()
        return kind, self._inflate.decompress(payload + TAIL)

    def texts(self, count: int) -> list[bytes]:
        return [self.receive()[1] for _ in range(count)]

    def close_code(self) -> int:
        """Skip the remaining messages; return the code of the close frame."""
        try:
            while True:
                self.receive()
        except Closed as closed:
            return closed.close.code

    def _compressor(self) -> zlib._Compress:
        return zlib.compressobj(wbits=-self.agreed.client_bits)

    def _decompressor(self) -> zlib._Decompress:
        return zlib.decompressobj(wbits=-self.agreed.server_bits)


def offering(*offers: str) -> list[tuple[str, str]]:
    return [("Sec-WebSocket-Extensions", offer) for offer in offers]


@contextmanager
def compressed(server: Server, path: str = "/echo", offer: str = OFFERS[0]) -> Iterator[CompressedSession]:
    with server.connect(path, headers=offering(offer)) as client:
        yield CompressedSession(client)


# The negotiation


@pytest.mark.parametrize("offer", OFFERS)
def test_offer_is_accepted(served: Server, offer: str) -> None:
    """The server accepts an offer with its requirements, and with nothing that the offer does not permit."""
    demanded = {key: value for key, _, value in (part.strip().partition("=") for part in offer.split(";")[1:])}
    with compressed(served, offer=offer) as session:
        agreed = session.agreed.parameters
        names = {"server_max_window_bits", "client_max_window_bits", "server_no_context_takeover", "client_no_context_takeover"}
        assert set(agreed) <= names
        assert [name for name in demanded if name.startswith("server") and name not in agreed] == []
        assert 9 <= session.agreed.server_bits <= int(demanded.get("server_max_window_bits") or 15)
        if "client_max_window_bits" in agreed:
            assert "client_max_window_bits" in demanded
            assert 8 <= session.agreed.client_bits <= int(demanded["client_max_window_bits"] or 15)


@pytest.mark.parametrize(
    "offers",
    [
        ("permessage-deflate; unknown", "permessage-deflate; server_no_context_takeover"),
        ("x-webkit-deflate-frame, permessage-deflate; server_max_window_bits=7, permessage-deflate; server_no_context_takeover",),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits, permessage-deflate; server_no_context_takeover",),
        ("permessage-deflate; server_no_context_takeover=1, permessage-deflate; server_no_context_takeover",),
    ],
)
def test_invalid_offer_is_skipped(served: Server, offers: Sequence[str]) -> None:
    """The server declines an offer with unknown, invalid or repeated parameters, and checks the next, in the same header or another."""
    with served.connect("/echo", headers=offering(*offers)) as client:
        assert "server_no_context_takeover" in CompressedSession(client).agreed.parameters


@pytest.mark.parametrize(
    "offer", ["", "permessage-deflate; unknown", "x-webkit-deflate-frame", "permessage-deflate; server_max_window_bits=8"]
)
def test_no_acceptable_offer(served: Server, offer: str) -> None:
    """Without an acceptable offer, the session opens without compression."""
    with served.connect("/echo", headers=offering(offer) if offer else ()) as client:
        assert client.response.value("Sec-WebSocket-Extensions") is None
        client.send_text("plain " * 100)
        assert client.receive_text() == "plain " * 100


def test_one_response_to_an_offer(served: Server) -> None:
    """The response to an offer is in the 101 exactly once."""
    with served.connect("/echo", headers=offering("permessage-deflate"), subprotocols=["chat"]) as client:
        assert len(client.response.values("Sec-WebSocket-Extensions")) == 1
        assert client.subprotocol == "chat"


# Messages

MESSAGES = [
    b"",
    b"",
    b"a",
    "\u00e9 \u4e2d \U0001f600".encode(),
    b"again and again, " * 1000,
    b"again and again, " * 1000,
    b"x" * 70_000,
    b"",
    b" spaces and\ttabs \r",
]


@pytest.mark.parametrize("offer", OFFERS)
def test_echo(served: Server, offer: str) -> None:
    """Messages return unchanged with any negotiated parameters: empty, repeated and long ones."""
    with compressed(served, offer=offer) as session:
        for _ in range(3):
            for message in MESSAGES:
                session.send(message)
            assert session.texts(len(MESSAGES)) == [message.removesuffix(b"\r") for message in MESSAGES]


def test_many_at_once(served: Server) -> None:
    """Many messages in one packet return complete and in order."""
    with compressed(served) as session:
        frames = b"".join(encode_frame(session.payload(b"number %d" % number), rsv=RSV1) for number in range(3_000))
        with session.client.sending(frames):
            assert session.texts(3_000) == [b"number %d" % number for number in range(3_000)]


def test_incompressible_data(served: Server) -> None:
    """Incompressible bytes return unchanged, in a binary message according to the kind of the frame."""
    with compressed(served, shell_path("exec wc -c")) as session:
        session.send(NOISE, Opcode.BINARY)
        session.client.send_close(1000)
        assert session.close_code() == 1000
    with compressed(served) as session:
        line = NOISE.hex().encode()
        session.send(line)
        assert session.receive() == (Opcode.TEXT, line)


def test_compression_saves_bytes(served: Server) -> None:
    """Repetitive data need a fraction of their size on the wire, also across messages."""
    text = random.Random(4).randbytes(500).hex().encode()
    with compressed(served) as session:
        sizes = []
        for _ in range(2):
            session.client.send_text(text.decode())
            sizes.append(len(session.client.receive_frame().payload))
        assert sizes[0] < len(text) * 0.7
        assert sizes[1] < sizes[0] / 5


def test_largest_message(served: Server) -> None:
    """A message of 1 MiB before compression is valid, whatever its size on the wire; one more byte closes with 1009."""
    with compressed(served) as session:
        session.send(b"x" * MIB)
        assert session.receive() == (Opcode.TEXT, b"x" * MIB)
        session.send(b"x" * (MIB + 1))
        assert session.close_code() == 1009


def test_bomb(served: Server) -> None:
    """A message that would expand to hundreds of megabytes closes with 1009, and the server never decompresses it."""
    bomb = zlib.compressobj(9, wbits=-15)
    payload = b"".join(bomb.compress(bytes(MIB)) for _ in range(200)) + bomb.flush(zlib.Z_SYNC_FLUSH)
    assert len(payload) < MIB
    with compressed(served) as session:
        before = resident(served.pid)
        session.client.send_frame(payload.removesuffix(TAIL), Opcode.TEXT, rsv=RSV1)
        assert session.close_code() == 1009
        assert resident(served.pid) - before < 20 * MIB


def test_fragments(served: Server) -> None:
    """A client may fragment a compressed message anywhere, with control frames in between; only the first frame has RSV1."""
    with compressed(served) as session:
        for size in (1, 2, 7, 1000):
            text = b"a message in fragments, " * 20
            payload = session.payload(text)
            parts = [payload[start : start + size] for start in range(0, len(payload), size)]
            for number, part in enumerate(parts):
                opcode = Opcode.CONTINUATION if number else Opcode.TEXT
                session.client.send_frame(part, opcode, fin=number == len(parts) - 1, rsv=0 if number else RSV1)
                if number == 0:
                    session.client.send_ping(b"between")
            assert session.receive() == (Opcode.TEXT, text)


def test_uncompressed_message(served: Server) -> None:
    """A client may send a message uncompressed at any time."""
    with compressed(served) as session:
        for number in range(3):
            session.client.send_text(f"plain {number}")
            session.send(b"compressed %d" % number)
        assert session.texts(6) == [line for number in range(3) for line in (b"plain %d" % number, b"compressed %d" % number)]


def test_final_block(served: Server) -> None:
    """A message may end with a final block of deflate, and other blocks may follow (RFC 7692, section 7.2.3.5)."""
    with compressed(served, offer=OFFERS[5]) as session:
        for number in range(3):
            deflate = zlib.compressobj(wbits=-15)
            payload = deflate.compress(b"final %d" % number) + deflate.flush(zlib.Z_FINISH)
            session.client.send_frame(payload + b"\x00", Opcode.TEXT, rsv=RSV1)
            assert session.receive() == (Opcode.TEXT, b"final %d" % number)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([encode_frame(b"\xff\xff\xff", rsv=RSV1)], 1007),
        ([encode_frame(b"ping", Opcode.PING, rsv=RSV1)], 1002),
        ([encode_frame(b"\x03\xe8", Opcode.CLOSE, rsv=RSV1)], 1002),
        ([encode_frame(b"a", fin=False), encode_frame(b"b", Opcode.CONTINUATION, rsv=RSV1)], 1002),
        ([encode_frame(b"a", rsv=2)], 1002),
        ([encode_frame(b"a", rsv=RSV1 | 1)], 1002),
    ],
    ids=["damaged", "ping", "close", "continuation", "RSV2", "RSV3"],
)
def test_protocol_violations(served: Server, frames: list[bytes], code: int) -> None:
    """Invalid compressed data closes with 1007, and an invalid reserved bit with 1002."""
    with compressed(served) as session:
        session.client.send_raw(b"".join(frames))
        assert session.close_code() == code


def test_text_that_is_not_utf8(served: Server) -> None:
    """Compressed text that is not UTF-8 closes with 1007; invalid output of a program is replaced."""
    with compressed(served) as session:
        session.send(b"\xff")
        assert session.close_code() == 1007
    with compressed(served, shell_path(r"printf 'a\377b\n'")) as session:
        assert session.receive() == (Opcode.TEXT, "a\ufffdb".encode())


def test_empty_lines_of_a_program(served: Server) -> None:
    """Consecutive empty lines are empty messages, and the messages after them are complete."""
    with compressed(served, shell_path(r"printf '\n\n\nx\n\n\ny\n'")) as session:
        assert session.texts(7) == [b"", b"", b"", b"x", b"", b"", b"y"]
        assert session.close_code() == 1000


def test_output_of_a_program(served: Server) -> None:
    """A program prints and exits at once: all its output arrives, then the uncompressed close frame."""
    with compressed(served, shell_path("seq 20000; exit 3")) as session:
        assert session.texts(20_000) == [b"%d" % number for number in range(1, 20_001)]
        assert session.close_code() == 1011


def test_ping_and_close(served: Server) -> None:
    """The server answers pings and close frames uncompressed."""
    with compressed(served) as session:
        session.client.send_ping(b"hello")
        frame = session.client.receive_frame()
        assert (frame.opcode, frame.rsv, frame.payload) == (Opcode.PONG, 0, b"hello")
        session.client.send_close(4000)
        assert session.close_code() == 4000


@pytest.mark.parametrize("way", ["unwrap", "half-close", "drop"])
def test_messages_before_a_disconnect(serve: Serve, certificates: Certificates, transports: dict[str, str], way: str) -> None:
    """Messages sent before a disconnect reach the program, even if they expand to far more than one read."""
    server = serve(*certificates.server_flags, "--compress", "wc", "-c", env=transports, tls=certificates.context())
    with server.connect(headers=offering(OFFERS[0])) as client:
        compressed = CompressedSession(client)
        message = encode_frame(compressed.payload(b"x" * 100_000), Opcode.TEXT, rsv=RSV1)
        rest = b"".join(encode_frame(compressed.payload(b"x" * 100_000), Opcode.TEXT, rsv=RSV1) for _ in range(59))
        client.send_raw(message + rest)
        match way:
            case "unwrap":
                with suppress(ssl.SSLError):  # the program may write after our close_notify
                    client.stream.sock.unwrap()  # type: ignore[attr-defined]
            case "half-close":
                client.stream.end_sending()
            case "drop":
                client.drop()
        server.wait_for_log(r"messages:'60 in, .*\| DISCONNECT")
    assert "in discarded" not in server.log
