"""Keeps one program running, viewers or not: starts it, hands on what it prints, and starts it again when it has ended.

It is a source of what its child prints and a sink for what is written to its stdin, whichever child that is now. Between
two children whoever writes is held up, and what he writes all the same waits for the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum

from wsbridge.closecodes import GOING_AWAY, INTERNAL_ERROR, NORMAL, TOO_BIG
from wsbridge.errors import ProgramError
from wsbridge.flow import STILL, Batch, End, Joint, Source
from wsbridge.logs import ERROR, INFO, Pairs, extra, logger
from wsbridge.metrics import Metrics
from wsbridge.process.child import DRAIN_POLL, Child
from wsbridge.process.group import describe
from wsbridge.rules.restarts import Restarts

CANNOT_LAUNCH = 126
"""The status of a program that cannot be started, as of a shell."""

INPUT_SECONDS = 5.0
"""What a program that is ended has to take what many have written to it, as long as it takes; the ladder comes after that."""

EXIT_SECONDS = 1.0
"""What a program has, from the end of its stdout, to exit by itself."""

CLOSED_STDOUT = End(INTERNAL_ERROR, "it has closed its stdout")

log = logger("program")


class State(StrEnum):
    """How it is with the program."""

    RUNNING = "running"
    WAITING = "waiting"
    """It has ended, and is started again after a pause."""
    ENDED = "ended"


class Keeper:
    """One program. `run` keeps it until `stop`; `write` and the source may be used all the while.

    A program that has closed its stdout is ended, unless `reads`: then it may live for what it is told.
    """

    def __init__(
        self,
        launch: Callable[[], Child],
        write: Callable[[Batch], None],
        *,
        reads: bool,
        restarts: Restarts,
        drain_seconds: float,
        pairs: Pairs,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._launch = launch
        self._hand_on = write
        self._reads = reads
        self._restarts = restarts
        self._drain_seconds = drain_seconds
        self._pairs = pairs
        self._metrics = metrics
        self._loop = loop
        self._child: Child | None = None
        self._taker: Child | None = None
        """The child, as long as it is to take what is written."""
        self._waiting: list[Batch] = []
        self._fault: End | None = None
        self._paused = False
        self._stopping = False
        self._news = asyncio.Event()
        self.state = State.RUNNING
        self.last_exit: str | None = None
        """How it last ended, in words; None as long as it has not."""
        self.source: Source = STILL
        """Who writes to its stdin."""

    # Its stdin

    def write(self, batch: Batch) -> None:
        """Write to its stdin; what no program will ever take is discarded, and counted."""
        if self._taker is not None:
            self._taker.write(batch)
        elif self.state is State.ENDED:
            self._metrics.discarded_in += len(batch.messages)
        else:
            self._waiting.append(batch)

    # What it prints

    def pause(self) -> None:
        self._paused = True
        if self._child is not None:
            self._child.pause()

    def resume(self) -> None:
        self._paused = False
        if self._child is not None:
            self._child.resume()

    # Its life

    async def run(self) -> None:
        """Keep it running until `stop`, or for as long as it is to be started again."""
        self.hold()
        while not self._stopping:
            began = self._loop.time()
            status = await self._run_once()
            if self._stopping:
                break
            self.last_exit = describe(status)
            level = ERROR if status else INFO
            pause = self._restarts.after(status, self._loop.time() - began)
            if pause is None:
                log.log(level, "%s; it is not started again", self.last_exit, extra=extra(self._pairs))
                break
            self._metrics.program_restarts += 1
            log.log(level, "%s; it is started again in %g s", self.last_exit, pause, extra=extra(self._pairs))
            self.state = State.WAITING
            self._news.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._news.wait()
            except TimeoutError:
                pass
        self.state = State.ENDED
        waiting, self._waiting = self._waiting, []
        for batch in waiting:
            self.write(batch)
        self.source.resume()

    def stop(self) -> None:
        """Have the program ended, by the ladder; `run` returns when it is."""
        self._stopping = True
        self._news.set()

    def kill(self) -> None:
        """Have it ended at once."""
        self.stop()
        if self._child is not None:
            self._child.kill()

    def hold(self) -> None:
        """Hold up who writes until there is a child to write to."""
        if self.state is not State.ENDED:
            self.source.pause()

    async def _run_once(self) -> int:
        """Run one child to its end; return its status."""
        try:
            child = self._launch()
        except ProgramError as error:
            self._metrics.launch_failures += 1
            log.error("%s", error, extra=extra(self._pairs))
            return CANNOT_LAUNCH
        self._child = self._taker = child
        self._fault = None
        self.state = State.RUNNING
        self._news.clear()
        child.on_exit = self._exited
        child.source = self.source
        child.start(Joint(self._hand_on, self._output_ended))
        if self._paused:
            child.pause()
        waiting, self._waiting = self._waiting, []
        for batch in waiting:
            child.write(batch)
        if not child.is_full:
            self.source.resume()
        try:
            await self._until_over(child)
        finally:
            self._write_no_more()
            child.close_input(End(GOING_AWAY if self._stopping else NORMAL))
            await child.end(input_seconds=INPUT_SECONDS)
            self._child = None
            self._metrics.discarded_in += child.discarded
        status = child.group.status
        if self._fault is not None:
            # How it took it to be ended says nothing.
            return 0 if self._fault.code == NORMAL else status or 1
        return status if status is not None else CANNOT_LAUNCH

    async def _until_over(self, child: Child) -> None:
        """Return when there is nothing more to come of a child, or nothing more to be had."""
        while not self._stopping and self._fault is None:
            if child.group.status is not None:
                if not child.output_open:
                    return
                # What was printed before the exit is handed on however long that takes; others may hold stdout for a while.
                if not await self._told(max(self._drain_seconds, DRAIN_POLL)) and not child.owes_output:
                    return
            elif not child.output_open and not self._reads:
                # One that exits closes its stdout a moment before.
                if await self._told(EXIT_SECONDS):
                    continue
                log.error("the program has closed its stdout and is ended", extra=extra(self._pairs))
                self._fault = CLOSED_STDOUT
                return
            else:
                await self._told(None)

    async def _told(self, seconds: float | None) -> bool:
        """Wait for news; return whether there were any in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True

    def _exited(self) -> None:
        self._write_no_more()
        self._news.set()

    def _write_no_more(self) -> None:
        """This child takes nothing any more: whoever writes is held up, and what he writes all the same is for the next."""
        if self._taker is not None:
            self._taker.source = STILL
            self._taker = None
            self.hold()

    def _output_ended(self, reason: End) -> None:
        child = self._child
        if reason.code == NORMAL and not reason.reason and child is not None and not child.output_open:
            self._news.set()
            return
        if self._stopping:
            # Whatever it was in the middle of, it is we who ended it.
            return
        if reason.code == TOO_BIG:
            self._metrics.messages_too_long += 1
        level = INFO if reason.code == NORMAL else ERROR
        log.log(level, "the program is ended: %s", f"{reason.code} {reason.reason}".rstrip(), extra=extra(self._pairs))
        self._fault = reason
        self._write_no_more()
        self._news.set()
