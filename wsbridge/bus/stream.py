"""Reading an exchange's stream, over one link after the other.

It is read on from where it was left. Which stream it is shows in its identity, which is made up when it is declared and goes into
the fingerprint of each body. One that has none, because it was declared by something else, is known by our own bodies alone.

Offsets that are left out are no loss by themselves: RabbitMQ uses them for notes of its own, of which one begins each segment, and
one or more are written when a native client of the stream stores how far it has read. They are a loss only when the stream has
let go of the last body before them: then nobody knows what lay between.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from functools import partial
from typing import Literal

from wsbridge.bus.backlog import Backlog
from wsbridge.bus.bodies import fingerprint, is_ours, stream_mark
from wsbridge.bus.link import Arrival, Link, LinkLost
from wsbridge.bus.spool import WINDOW
from wsbridge.bus.tail import Found, Place, Tail

HISTORY_SECONDS = 10.0
"""How long a stream that holds something may bring nothing at all before it has brought it: however slow a link is, bytes come."""
LONGEST = 60
"""Times as long may a history take of which bytes come."""
NOTES = 256
"""The most offsets before the first body of a stream that count as RabbitMQ's own notes. Where there are more, the stream has dropped
bodies, and was not empty: its first answer came too late."""
PROBE_SECONDS = 1.0
"""How long the first bytes of a body that is there may take to come: a stream that brings nothing in this time has nothing there."""

STALL_SECONDS = 10.0
"""Pause between two looks at a stream that brings nothing. After the second it is read over another link if it holds more. RabbitMQ 3.10
was seen, once in some hundred times, to bring nothing more to a consumer whose segment it had let go of."""


class StreamReader:
    """What of a stream is news goes to `take`, with its mark, when the backlog lets it.

    It begins with the last `history` bodies; with `begin` at that offset, or with what comes `next`, and then `attach` does not
    wait until all has come that is there. The WINDOW bodies before the beginning go to `learn`: after a break a producer sends as
    many again, and what was had then is no news when it comes behind. `renew` is told of each epoch: of the first with its mark,
    of others with None; `saw` of each body at once, whatever holds up the backlog.
    """

    def __init__(
        self,
        backlog: Backlog,
        *,
        history: int,
        begin: int | Literal["next"] | None,
        take: Callable[[Link, Arrival, str], None],
        learn: Callable[[Link, Arrival], None],
        renew: Callable[[str | None], None],
        saw: Callable[[Arrival], None],
    ) -> None:
        self._backlog = backlog
        self._history = max(history, 1)
        self._first = begin
        self._take = take
        self._learn = learn
        self._renew = renew
        self._saw = saw
        self._tail = Tail()
        self._identity = self._salt = ""
        """The stream's; and where it has none, what is made up instead with each link, since the stream may be another with each."""
        self._last_is_ours = False
        self._has_attached = False
        self._wanted = 0
        """The offset from which on bodies are wanted, at the start."""
        self._has_begun = False
        self._begins: int | None = None
        """The offset that the receiver's epoch begins with, until something has come of it."""
        self._arrived = asyncio.Event()
        """Something has come since we were attached."""
        self._arrivals = 0
        self._held: list[Arrival] = []
        """What waits until it is known whether offsets before it are a loss; no more than the broker sends ahead."""
        self._is_in_doubt = asyncio.Event()

    async def attach(self, link: Link) -> None:
        """Read on where we were, or at first from where the history begins that is wanted. Raises LinkLost."""
        self._arrived = asyncio.Event()
        self._held.clear()
        self._is_in_doubt.clear()
        self._identify(await link.identity())
        if not self._has_attached:
            await self._attach_first(link)
            self._has_attached = True
            self._wanted = 0
        elif not await self._read_on(link):
            self._begin(0)
            await self._consume(link, "first")

    async def settle_gaps(self, link: Link) -> None:
        """Find out of gaps in the offsets whether they are a loss, for as long as the link lasts. Raises LinkLost."""
        while True:
            await self._is_in_doubt.wait()
            self._is_in_doubt.clear()
            # Of what comes while the stream is asked, the answer says nothing.
            known = len(self._held)
            oldest = await link.find("first", HISTORY_SECONDS)
            held, self._held = self._held, []
            for number, arrival in enumerate(held):
                if self._held:
                    self._held.append(arrival)
                else:
                    self._judge(link, arrival, oldest if number < known else None)

    async def watch(self, link: Link) -> None:
        """Lose a link that brings nothing more of what the stream holds. Raises LinkLost."""
        arrivals = doubts = 0
        while True:
            await asyncio.sleep(STALL_SECONDS)
            is_waiting = arrivals == self._arrivals and not self._backlog and self._tail.last is not None
            if not is_waiting or await self.has_all(link) or arrivals != self._arrivals:
                arrivals, doubts = self._arrivals, 0
                continue
            # The newest body may be on its way at the first look.
            doubts += 1
            if doubts > 1:
                raise LinkLost("its stream brings nothing more of what it holds")

    async def has_all(self, link: Link) -> bool:
        """Return whether all has come that the stream holds. Raises LinkLost."""
        newest = await link.find("last", PROBE_SECONDS)
        last = self._tail.last
        return not self._held and (newest is None or (last is not None and last.offset >= newest))

    def _identify(self, identity: str) -> None:
        is_other = identity != self._identity
        # Of a first link that was lost within the history it is known as well which stream it brought.
        is_unsure = self._has_attached and not identity and not self._last_is_ours
        self._identity, self._salt = identity, identity or secrets.token_hex(8)
        if is_other or is_unsure:
            self._tail.forget()
            self._begins = None

    async def _attach_first(self, link: Link) -> None:
        if self._first == "next":
            await self._consume(link, "next")
            return
        newest = await link.find("last", PROBE_SECONDS)
        if newest is None:
            self._begin(0)
            await self._consume(link, "first")
            return
        # Behind the end nothing would come, and no error either; that a stream is another one is told by its bodies.
        self._wanted, start = await self._beginning(link, newest)
        await self._consume(link, start)
        arrival = self._arrived.wait() if self._first is not None else self._tail.reach(newest)
        if not await link.patiently(HISTORY_SECONDS, arrival, longest=LONGEST):
            raise LinkLost("its stream does not bring what it holds")

    async def _beginning(self, link: Link, newest: int) -> tuple[int, int]:
        """Return the offset from which on bodies are wanted, and that of the body which lies WINDOW bodies before it."""
        if isinstance(self._first, int):
            wanted = min(self._first, newest)
            before = await self._last_offsets(link, wanted - 1, WINDOW)
            return wanted, min(before, default=wanted)
        if newest < self._history:
            return 0, 0
        offsets = await self._last_offsets(link, newest, self._history + WINDOW)
        return offsets[-self._history :][0], offsets[0]

    async def _last_offsets(self, link: Link, end: int, count: int) -> list[int]:
        """Return the offsets of the last bodies up to `end`, so many, or of all that there are."""
        span = count
        while True:
            start = max(0, end - span + 1)
            offsets = await link.offsets(start, end, HISTORY_SECONDS, longest=LONGEST) if end >= 0 else []
            if len(offsets) >= count or not start:
                return offsets[-count:]
            span *= 2

    async def _read_on(self, link: Link) -> bool:
        """Return whether it is read on; else it is another stream, or an empty one."""
        last = self._tail.last
        if last is None:
            if self._first != "next" or self._has_begun:
                return False
            # Nothing has come by which the place would be known.
            self._renew(None)
            await self._consume(link, "next")
            return True
        self._tail.expect_last()
        await self._consume(link, last.offset)
        if await link.patiently(PROBE_SECONDS, self._arrived.wait(), longest=LONGEST):
            return True
        # An offset past the end brings nothing, and no error: the stream is another, and shorter, unless it is just slow.
        await link.stop_consuming()
        newest = await link.find("last", PROBE_SECONDS)
        # The newest that is found is the first of a chunk, in which the last that we had may come later.
        if newest is not None and (newest >= last.offset or await link.has(last.offset, newest, HISTORY_SECONDS)):
            raise LinkLost("its stream does not bring what it holds")
        self._tail.forget()
        return False

    async def _consume(self, link: Link, offset: int | str) -> None:
        await link.consume_stream(partial(self._arrive, link, self._arrived), offset)

    def _arrive(self, link: Link, arrived: asyncio.Event, arrival: Arrival) -> None:
        assert arrival.offset is not None
        if arrival.offset < self._wanted:
            self._backlog.do(partial(self._learn, link, arrival))
            return
        self._arrivals += 1
        arrived.set()
        if link.is_lost:
            # It comes again over the next one; of a stream that was made anew this would be taken for the beginning.
            return
        if self._held:
            self._held.append(arrival)
        else:
            self._judge(link, arrival, None)

    def _judge(self, link: Link, arrival: Arrival, oldest: int | None) -> None:
        """Hand on what is news. `oldest` is the offset of the oldest body that the stream had when this one had come, if that is known."""
        assert arrival.offset is not None
        self._saw(arrival)
        place = Place(arrival.offset, self._fingerprint(arrival))
        match self._tail.take(place, oldest):
            case Found.KNOWN:
                self._backlog.do(partial(link.taken, arrival))
                return
            case Found.OTHER:
                self._tail.forget()
                link.lose("the stream was made anew")
                return
            case Found.DOUBT:
                self._held.append(arrival)
                self._is_in_doubt.set()
                return
            case Found.FIRST if self._begins is not None and arrival.offset - self._begins <= NOTES:
                """The epoch that was begun is that of this body: offsets of nothing lie before it."""
            case Found.FIRST | Found.GAP:
                self._begin(arrival.offset)
            case Found.NEWS:
                pass
        self._begins = None
        self._last_is_ours = is_ours(arrival.headers)
        self._backlog.do(partial(self._take, link, arrival, str(place)))

    def _fingerprint(self, arrival: Arrival) -> str:
        # Our own bodies are each other's like in no two streams; a stranger's may be.
        salt = self._identity if is_ours(arrival.headers) else self._salt
        return fingerprint(arrival.data, arrival.headers, salt)

    def _begin(self, offset: int) -> None:
        """What comes next is the body at this offset, and stands in no relation to what came before."""
        if self._begins == offset:
            return
        self._begins = offset
        # Later epochs are without the mark, which in the stream before named another place.
        self._renew(None if self._has_begun else f"{offset}.{stream_mark(self._salt)}")
        self._has_begun = True
