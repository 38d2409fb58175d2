"""Reading an exchange's stream, over one link after the other.

It is read on from where it was left. Whether it is still the same stream shows in the fingerprint of the last body that we had;
one that was deleted and made again is a new epoch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Literal

from wsbridge.bus.backlog import Backlog
from wsbridge.bus.bodies import fingerprint
from wsbridge.bus.link import Arrival, Link, LinkLost
from wsbridge.bus.spool import WINDOW
from wsbridge.bus.tail import Found, Place, Tail

HISTORY_SECONDS = 10.0
"""How long a stream that holds something may bring nothing at all before it has brought it: however slow a link is, bytes come."""
LONGEST = 60
"""Times as long may a history take of which bytes come."""
PROBE_SECONDS = 1.0
"""How long the first bytes of a body that is there may take to come: a stream that brings nothing in this time has nothing there."""


class StreamReader:
    """What of a stream is news goes to `take`, with its mark, when the backlog lets it.

    It begins with the last `history` bodies; with `begin` at that offset, or with what comes `next`, and then `attach` does not
    wait until all has come that is there. The WINDOW bodies before the beginning go to `learn`: after a break a producer sends as
    many again, and what was had then is no news when it comes behind. `renew` is told of each epoch: of the first with its mark,
    of others with None.
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
    ) -> None:
        self._backlog = backlog
        self._history = history
        self._first = begin
        self._take = take
        self._learn = learn
        self._renew = renew
        self._tail = Tail()
        self._has_attached = False
        self._wanted = 0
        """The offset from which on bodies are wanted, at the start."""
        self._has_begun = False
        self._begins: int | None = None
        """The offset that the receiver's epoch begins with, until something has come of it."""
        self._arrived = asyncio.Event()
        """Something has come since we were attached."""

    async def attach(self, link: Link) -> None:
        """Read on where we were, or at first from where the history begins that is wanted. Raises LinkLost."""
        self._arrived = asyncio.Event()
        if not self._has_attached:
            await self._attach_first(link)
            self._has_attached = True
            self._wanted = 0
        elif not await self._read_on(link):
            self._begin(0)
            await self._consume(link, "first")

    async def _attach_first(self, link: Link) -> None:
        if self._first == "next":
            await self._consume(link, "next")
            return
        newest = await self._probe(link)
        if newest is None:
            self._begin(0)
            await self._consume(link, "first")
            return
        if self._first is not None:
            # Behind the end nothing would come, and no error either; that a stream is another one is told by its bodies.
            await self._consume_from(link, min(self._first, newest))
            has_come = await link.patiently(HISTORY_SECONDS, self._arrived.wait(), longest=LONGEST)
        else:
            await self._consume_from(link, max(0, newest - max(self._history, 1) + 1))
            has_come = await link.patiently(HISTORY_SECONDS, self._tail.reach(newest), longest=LONGEST)
        if not has_come:
            raise LinkLost("its stream does not bring what it holds")

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
        if await link.patiently(PROBE_SECONDS, self._arrived.wait()):
            return True
        # An offset past the end brings nothing, and no error: the stream is another, and shorter, unless it is just slow.
        await link.stop_consuming()
        newest = await self._probe(link)
        if newest is not None and newest >= last.offset:
            raise LinkLost("its stream does not bring what it holds")
        self._tail.forget()
        return False

    async def _probe(self, link: Link) -> int | None:
        """Return the offset of one of the last bodies in the stream, or None when it is empty. Raises LinkLost."""
        offsets: list[int] = []
        found = asyncio.Event()

        def take(arrival: Arrival) -> None:
            link.taken(arrival)
            offsets.append(arrival.offset or 0)
            found.set()

        await link.consume_stream(take, "last")
        await link.patiently(PROBE_SECONDS, found.wait())
        await link.stop_consuming()
        return offsets[0] if offsets else None

    async def _consume_from(self, link: Link, offset: int) -> None:
        self._wanted = offset
        await self._consume(link, max(0, offset - WINDOW))

    async def _consume(self, link: Link, offset: int | str) -> None:
        await link.consume_stream(partial(self._arrive, link, self._arrived), offset)

    def _arrive(self, link: Link, arrived: asyncio.Event, arrival: Arrival) -> None:
        assert arrival.offset is not None
        if arrival.offset < self._wanted:
            self._backlog.do(partial(self._learn, link, arrival))
            return
        arrived.set()
        if link.is_lost:
            # It comes again over the next one; of a stream that was made anew this would be taken for the beginning.
            return
        place = Place(arrival.offset, fingerprint(arrival.data, arrival.headers))
        match self._tail.take(place):
            case Found.KNOWN:
                self._backlog.do(partial(link.taken, arrival))
                return
            case Found.OTHER:
                self._tail.forget()
                link.lose("the stream was made anew")
                return
            case Found.FIRST | Found.GAP:
                self._begin(arrival.offset)
            case Found.NEWS:
                pass
        self._begins = None
        self._backlog.do(partial(self._take, link, arrival, str(place)))

    def _begin(self, offset: int) -> None:
        """What comes next is the body at this offset, and stands in no relation to what came before."""
        if self._begins == offset:
            return
        self._begins = offset
        # Later epochs are without the mark, which in the stream before named another place.
        self._renew(None if self._has_begun else str(offset))
        self._has_begun = True
