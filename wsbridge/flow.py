"""How messages flow: a source pushes batches into a sink, and a full sink applies backpressure.

A source calls its sink. A full sink calls `pause` on its source, and `resume` after it has drained. Nothing on this path is
awaited or queued: the source passes a whole batch, or it is paused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import groupby
from typing import NamedTuple, Protocol


class Kind(IntEnum):
    """The kind of a message; the number is the WebSocket opcode (RFC 6455, section 5.2)."""

    TEXT = 1
    BINARY = 2


class Batch(NamedTuple):
    """Messages of one kind that arrived together, in order; never empty.

    A message of kind TEXT is valid UTF-8: the code that makes the batch ensures it. Batch is a plain tuple, because each read of
    a pipe or socket makes one. A frozen dataclass costs three times as much.
    """

    kind: Kind
    messages: Sequence[bytes | bytearray]


class End(NamedTuple):
    """Why a flow ended, in the terms of a close frame: `code` (RFC 6455, section 7.4), and `reason` for people.

    Code 1005 stands for a close frame without a code, 1006 for no close frame at all. Neither is ever sent.
    """

    code: int
    reason: str = ""


class Sink(Protocol):
    """Accepts batches, in order, until `end`; it never blocks and never refuses a batch."""

    def write(self, batch: Batch) -> None:
        """Accept a batch. A full sink accepts it as well, and pauses its source."""

    def end(self, reason: End) -> None:
        """Accept the end of the flow: no batch follows."""


class Source(Protocol):
    """Pushes batches into its sink. The sink may call both methods at any time and any number of times."""

    def pause(self) -> None:
        """Push nothing more until `resume`, except batches that it has already read."""

    def resume(self) -> None:
        """Push batches again."""


@dataclass(slots=True)
class CallbackSink:
    """A sink made of two functions: one function accepts the batches of a source, the other accepts its end."""

    write: Callable[[Batch], None]
    end: Callable[[End], None]


class NullSource:
    """A source without data: the placeholder in a sink before it has a source, and after that source has ended."""

    def pause(self) -> None:
        """Do nothing: no data flows."""

    def resume(self) -> None:
        """Do nothing: no data flows."""


NULL_SOURCE = NullSource()


@dataclass(slots=True)
class Memory:
    """The in-memory twin of a socket or pipe: a sink that stores its input, and a source that pushes on request.

    The tests of the sessions use it. `paused` is the last state that its sink requested.
    """

    sink: Sink | None = None
    batches: list[Batch] = field(default_factory=list)
    ended: End | None = None
    paused: bool = False

    def write(self, batch: Batch) -> None:
        self.batches.append(batch)

    def end(self, reason: End) -> None:
        self.ended = reason

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def push(self, batch: Batch) -> None:
        """Write a batch to the sink of this source."""
        assert self.sink is not None
        self.sink.write(batch)

    @property
    def messages(self) -> list[bytes]:
        """All messages received so far, across batches."""
        return [bytes(message) for batch in self.batches for message in batch.messages]


def batches(messages: Iterable[tuple[Kind, bytes]]) -> list[Batch]:
    """Group single messages into batches: one batch for each run of the same kind."""
    return [Batch(kind, [message for _, message in run]) for kind, run in groupby(messages, key=lambda pair: pair[0])]


def valid_text(messages: Sequence[bytes]) -> Sequence[bytes]:
    """Return the messages as valid UTF-8, with U+FFFD in place of invalid bytes.

    Almost all text is ASCII or valid. One pass over the joined messages decides that; only an invalid batch is decoded message by
    message.
    """
    whole = b"\n".join(messages) if len(messages) > 1 else messages[0]
    if whole.isascii():
        return messages
    try:
        whole.decode()
    except UnicodeDecodeError:
        return [message.decode("utf-8", "replace").encode() for message in messages]
    return messages
