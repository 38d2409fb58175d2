"""The tests that apply to every decoder: whole, byte by byte, with a tail, and in random cuts.

The outcome does not depend on the cuts, so it is flat: one tuple for each message, and no batches. Examples are `(Kind.TEXT, b"one")`,
`("ping", b"")`, `("close", 1000, "bye")` and `("violation", 1002)`. They are plain tuples because the product's are named tuples: for
Python, its Ping and Pong of the same payload are equal.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from types import ModuleType
from typing import Any

from wsbridge.errors import ProgramError
from wsbridge.flow import Batch, End, Kind
from wsbridge.wire.reader import Ping, Pong, Violation

EVERY_CUT_BELOW = 48
"""Bytes. A stream up to this length is cut in two at every place."""
RANDOM_CUTS = 6

Item = tuple[Any, ...]
Make = Callable[[], Any]
"""Makes a fresh decoder: an object with `feed`, and with `eof` if it needs the end of the stream."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The items that a decoder delivered, in order, and the type of the error that ended it. The error's text is for the reader."""

    delivered: list[Item]
    error: type[Exception] | None = None
    words: str = field(default="", compare=False)


def decode(make: Make, data: bytes, *, tail: bytes = b"", boundaries: bool = True, ends: bool = True) -> Outcome:
    """Return the outcome of a stream, and check that it is the same however the stream is cut.

    A `tail` that follows at once does not change the outcome of the complete part. With `boundaries=False`, the decoder guarantees
    bytes, not messages. With `ends=False`, the stream continues, and `eof` is not called.
    """
    whole = run(make, [data], boundaries=boundaries, ends=ends)
    for pieces in cuts(data):
        cut = run(make, pieces, boundaries=boundaries, ends=ends)
        assert (cut, cut.words) == (whole, whole.words), f"cut as {pieces}, the stream has another outcome"
    if tail:
        before, together = (run(make, [stream], ends=False) for stream in (data, data + tail))
        assert together.delivered[: len(before.delivered)] == before.delivered, f"the tail {tail!r} changes the outcome before it"
        assert before.error is None or together == before, f"the tail {tail!r} is read after an error"
    return whole


def run(make: Make, pieces: Sequence[bytes], *, boundaries: bool = True, ends: bool = True) -> Outcome:
    """Feed the pieces to a fresh decoder, then call `eof`."""
    decoder = make()
    delivered: list[Item] = []
    # A read of 0 bytes is the end, so an empty piece is never fed.
    steps = [lambda piece=piece: fed(decoder, piece) for piece in pieces if piece]
    if ends and hasattr(decoder, "eof"):
        steps.append(decoder.eof)
    for step in steps:
        try:
            delivered += flat(step())
        except ProgramError as error:
            delivered += flat(error.before)
            return Outcome(delivered if boundaries else joined(delivered), type(error), str(error))
    return Outcome(delivered if boundaries else joined(delivered))


def fed(decoder: Any, piece: bytes) -> list[Any]:
    """Feed a piece, then feed nothing for as long as the decoder has more items."""
    items = list(decoder.feed(piece))
    while getattr(decoder, "has_more", False):
        items += decoder.feed(b"")
    return items


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Yield the ways to cut a stream: byte by byte, at fixed random places, and for a short stream at every place."""
    yield [data[index : index + 1] for index in range(len(data))]
    random = Random(len(data))
    for _ in range(RANDOM_CUTS if len(data) > 2 else 0):
        places = sorted(random.sample(range(1, len(data)), min(len(data) - 1, random.randint(1, 8))))
        yield [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
    if len(data) < EVERY_CUT_BELOW:
        yield from ([data[:place], data[place:]] for place in range(1, len(data)))


def flat(items: Sequence[Any]) -> list[Item]:
    """Return the result of a decoder, each message separately. A batch is never empty."""
    flattened: list[Item] = []
    for item in items:
        match item:
            case Batch(kind, messages):
                assert messages, "a batch without messages"
                flattened += [(kind, bytes(message)) for message in messages]
            case End(code, reason):
                flattened.append(("close", code, reason))
            case Ping(payload):
                flattened.append(("ping", bytes(payload)))
            case Pong(payload):
                flattened.append(("pong", bytes(payload)))
            case Violation(code):
                flattened.append(("violation", code))
            case _:
                raise AssertionError(f"a decoder returned {item!r}")
    return flattened


def joined(delivered: Sequence[Item]) -> list[Item]:
    """Return the items with neighbouring messages of one kind joined: the outcome without boundaries."""
    result: list[Item] = []
    for item in delivered:
        if isinstance(item[0], Kind) and result and result[-1][0] is item[0]:
            result[-1] = (item[0], result[-1][1] + item[1])
        else:
            result.append(item)
    return result


def held_bytes(decoder: Any) -> int:
    """Return the number of the stream's bytes that an object holds, itself and through its references."""
    held, seen, waiting = 0, set(), [decoder]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, (type, ModuleType)) or callable(thing):
            continue
        seen.add(id(thing))
        if isinstance(thing, (bytes, bytearray, str)):
            held += len(thing)
        waiting += gc.get_referents(thing)
    return held
