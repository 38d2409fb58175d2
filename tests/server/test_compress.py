"""`--compress` in a channel: a message is compressed once for all clients with compression; other clients get it uncompressed."""

from __future__ import annotations

import json
import random
import zlib

import pytest

from tests.server.conftest import V1, Broadcast, status, view
from tests.support.client import Client, Opcode

TAIL = b"\x00\x00\xff\xff"
RSV1 = 4
OFFERS = ("permessage-deflate; client_max_window_bits", "permessage-deflate; server_max_window_bits=10; client_no_context_takeover")
LONG = json.dumps([{"sensor": number, "value": number / 7} for number in range(100)]).encode()
NOISE = random.Random(5).randbytes(500)


def agreed(client: Client) -> str:
    return client.response.value("Sec-WebSocket-Extensions") or ""


def bits(client: Client) -> int:
    _, _, found = agreed(client).partition("server_max_window_bits=")
    return int(found.partition(";")[0])


def receive(client: Client) -> tuple[bool, bytes]:
    """Return whether the next message is compressed, and its data, decompressed in the agreed window without context."""
    frame = client.receive_frame()
    assert frame.rsv in (0, RSV1)
    if not frame.rsv:
        return False, frame.payload
    return True, zlib.decompressobj(wbits=-bits(client)).decompress(frame.payload + TAIL)


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("subprotocols", [(), (V1,)], ids=["plain", "v1"])
def test_compressed(broadcast: Broadcast, offer: str, subprotocols: tuple[str, ...]) -> None:
    """Each long message is compressed separately. Messages that would not get shorter and the channel's records stay uncompressed."""
    server = broadcast("--input=exchange", "--compress")
    offering = [("Sec-WebSocket-Extensions", offer)]
    with (
        server.connect(headers=offering, subprotocols=subprotocols) as one,
        server.connect(headers=offering, subprotocols=subprotocols) as other,
        server.connect() as plain,
        view(server) as viewer,
    ):
        assert "server_no_context_takeover" in agreed(one)
        assert bits(one) == (9 if "10" in offer else 15)
        assert agreed(plain) == agreed(viewer.client) == ""
        for client in (one, other):
            if subprotocols:
                assert receive(client)[1].startswith(b"!at ")
        plain.send_text("short")
        plain.send_text(LONG.decode())
        plain.send_text(LONG.decode())
        plain.send_frame(NOISE, Opcode.BINARY)
        expected = [(False, b"short"), (True, LONG), (True, LONG), (False, NOISE)]
        for client in (one, other):
            came = [receive(client) for _ in expected]
            if subprotocols:
                came = [(was_compressed, data.partition(b"\n")[2]) for was_compressed, data in came]
            assert came == expected
        assert [plain.receive().data for _ in expected] == viewer.messages(4) == [data for _, data in expected]


def test_compressed_input(broadcast: Broadcast) -> None:
    """The channel publishes the decompressed message of a client."""
    server = broadcast("--input=exchange", "--compress")
    with server.connect(headers=[("Sec-WebSocket-Extensions", OFFERS[0])]) as speaker, server.connect() as plain:
        deflate = zlib.compressobj(wbits=-15)
        for _ in range(2):
            compressed = deflate.compress(LONG) + deflate.flush(zlib.Z_SYNC_FLUSH)
            speaker.send_frame(compressed.removesuffix(TAIL), Opcode.TEXT, rsv=RSV1)
            assert plain.receive().data == LONG
        assert status(server)["messages"] == 2


def test_no_compression_without_the_flag(broadcast: Broadcast) -> None:
    """Without --compress, the server declines an offer."""
    server = broadcast("--input=exchange")
    with server.connect(headers=[("Sec-WebSocket-Extensions", OFFERS[0])]) as client:
        assert agreed(client) == ""
        client.send_text(LONG.decode())
        assert receive(client) == (False, LONG)
