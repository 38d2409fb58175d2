"""How messages flow: batches, pushed by a source into a sink that can hold the source up.

A source calls its sink; a sink that is full calls `pause` on its source, and `resume` when it has drained. Nothing on
the way is awaited and nothing is queued: a batch is handed on whole, or its source is standing still.
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

    A message of kind TEXT is valid UTF-8: whoever makes the batch sees to it. A plain tuple, because one is made for
    every read of a pipe or socket: a frozen dataclass costs three times as much.
    """

    kind: Kind
    messages: Sequence[bytes | bytearray]


class End(NamedTuple):
    """Why a flow ended, as a close frame says it: `code` of RFC 6455 section 7.4, `reason` for people.

    Code 1005 stands for a close frame without a code, 1006 for none at all; neither is ever sent.
    """

    code: int
    reason: str = ""


class Sink(Protocol):
    """Takes batches, in order, until `end`; it never blocks and never refuses."""

    def write(self, batch: Batch) -> None:
        """Take a batch. A sink that is full takes it all the same and pauses its source."""

    def end(self, reason: End) -> None:
        """Take note that nothing will follow."""


class Source(Protocol):
    """Pushes batches into its sink. Both methods may be called at any time and any number of times."""

    def pause(self) -> None:
        """Push nothing more until `resume`, except what is already under way."""

    def resume(self) -> None:
        """Push again."""


@dataclass(slots=True)
class Joint:
    """A sink made of two functions: it joins a source with who takes its batches and who takes its end."""

    write: Callable[[Batch], None]
    end: Callable[[End], None]


class Still:
    """A source that has nothing: what a sink holds before it is joined and after its source is gone."""

    def pause(self) -> None:
        """Nothing to hold up."""

    def resume(self) -> None:
        """Nothing to go on."""


STILL = Still()


@dataclass(slots=True)
class Memory:
    """The in-memory twin of a socket or pipe: a sink that keeps what it gets and a source that says what it pushes.

    It carries the tests of the sessions. `paused` is what its sink told it last.
    """

    sink: Sink | None = None
    taken: list[Batch] = field(default_factory=list)
    ended: End | None = None
    paused: bool = False

    def write(self, batch: Batch) -> None:
        self.taken.append(batch)

    def end(self, reason: End) -> None:
        self.ended = reason

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def push(self, batch: Batch) -> None:
        """Hand a batch to the sink that this source is joined to."""
        assert self.sink is not None
        self.sink.write(batch)

    @property
    def messages(self) -> list[bytes]:
        """All messages taken so far, of whatever batch."""
        return [bytes(message) for batch in self.taken for message in batch.messages]


def batches(messages: Iterable[tuple[Kind, bytes]]) -> list[Batch]:
    """Make batches of single messages: one for each run of the same kind."""
    return [Batch(kind, [message for _, message in run]) for kind, run in groupby(messages, key=lambda pair: pair[0])]


def valid_text(messages: Sequence[bytes]) -> Sequence[bytes]:
    """Return the messages as valid UTF-8, with U+FFFD where a byte was none.

    Almost all text is ASCII or valid: one pass over the whole decides that, and only a batch that is neither is
    looked at message by message.
    """
    whole = b"\n".join(messages) if len(messages) > 1 else messages[0]
    if whole.isascii():
        return messages
    try:
        whole.decode()
    except UnicodeDecodeError:
        return [message.decode("utf-8", "replace").encode() for message in messages]
    return messages
