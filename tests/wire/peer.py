"""A WebSocket client, written from RFC 6455, section 5.2, alone: it builds a client's frames and reads a server's frames."""

from __future__ import annotations

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x37\xfa\x21\x3d"


def frame(
    payload: bytes = b"", opcode: int = TEXT, *, fin: bool = True, rsv: int = 0, mask: bytes | None = MASK, length: int | None = None
) -> bytes:
    """Return a frame of a client; `length` replaces the length in the header. Without a mask, the frame is invalid."""
    claimed = len(payload) if length is None else length
    head = bytes((fin << 7 | rsv << 4 | opcode,))
    masked = 128 if mask is not None else 0
    if claimed < 126:
        head += bytes((masked | claimed,))
    elif claimed < 2**16:
        head += bytes((masked | 126,)) + claimed.to_bytes(2, "big")
    else:
        head += bytes((masked | 127,)) + claimed.to_bytes(8, "big")
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def message(*fragments: bytes, opcode: int = TEXT, rsv: int = 0, between: bytes = b"") -> bytes:
    """Return a message in fragments, with other frames between them."""
    last = len(fragments) - 1
    frames = (
        frame(fragment, CONTINUATION if index else opcode, fin=index == last, rsv=0 if index else rsv)
        for index, fragment in enumerate(fragments)
    )
    return between.join(frames)


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    return frame(b"" if code is None else code.to_bytes(2, "big") + reason, CLOSE)


def read_frames(data: bytes) -> list[tuple[int, bytes]]:
    """Return the first byte and the payload of a server's frames; check that none is masked and each length is as short as possible."""
    frames = []
    while data:
        first, length, start = data[0], data[1], 2
        assert length < 128, "a server's frame is masked"
        if length >= 126:
            start = 4 if length == 126 else 10
            length, shortest = int.from_bytes(data[2:start], "big"), 126 if length == 126 else 2**16
            assert shortest <= length < 2**63, "a length with more bytes than necessary"
        assert len(data) >= start + length, "a truncated frame"
        frames.append((first, data[start : start + length]))
        data = data[start + length :]
    return frames
