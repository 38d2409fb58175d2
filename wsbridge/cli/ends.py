"""What the two ends of a pipe have in common: a loop, signals, a log on stderr, and an exit as a shell expects it.

An end that was reached is told by the exit status. One that was ended by a signal lets go in good order and then dies of that
very signal, as `cat` does; so it does of SIGPIPE, when whoever reads its stdout has gone. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NamedTuple

from wsbridge.cli.config import EndSettings
from wsbridge.errors import MessageTooLong, ProgramError, WsbridgeError
from wsbridge.logs import escape, send_to
from wsbridge.metrics import Metrics

HURRIED_SECONDS = 1.0
"""What the reader of our stdout has, after a signal, to take what is left."""


class Ending(NamedTuple):
    """How it ends: the exit status, or the signal to die of, and what is to be said on stderr."""

    status: int = 0
    words: str = ""
    signal: int = 0


class Life:
    """From the start to the first reason to end."""

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self._over = asyncio.Event()

    def end(self, ending: Ending) -> None:
        """It is over; of several reasons the first is the one that counts, but for a failure while all went well."""
        if self.ending is None or self.ending == Ending():
            self.ending = ending
        self._over.set()

    def output_failed(self, error: OSError) -> None:
        """Nothing can be printed any more."""
        if isinstance(error, BrokenPipeError):
            self.end(Ending(signal=signal.SIGPIPE))
        else:
            self.end(Ending(1, f"stdout cannot be written: {error.strerror or error}"))

    def take_signal(self, number: int) -> None:
        if self.ending is not None:
            die_of(number)
        self.end(Ending(signal=number))

    async def wait(self) -> None:
        await self._over.wait()


class Said(logging.Formatter):
    """What is said on stderr: a line of it may hold words of a stranger's, who is not to speak to the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return f"wsbridge: {escape(super().format(record))}"


Work = Callable[[EndSettings, Life, Metrics], Coroutine[Any, Any, Ending]]


def run_end(work: Work, settings: EndSettings, *, level: int) -> int:
    """Do the work of one end; return the exit status. The work is cancelled when its life is over, and then closes what it has."""
    from wsbridge.eager import make_loop
    from wsbridge.logoutput import Output

    metrics = Metrics()
    log = Output(2, Said(), metrics)
    send_to(log, level)

    async def main() -> Ending:
        log.attach(asyncio.get_running_loop())
        gc.enable()
        gc.freeze()
        return await _live(work, settings, metrics)

    try:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            ending = runner.run(main())
    finally:
        log.attach(None)
        log.finish()
    if ending.words:
        print(f"wsbridge: {escape(ending.words)}", file=sys.stderr)
    return die_of(ending.signal) if ending.signal else ending.status


async def _live(work: Work, settings: EndSettings, metrics: Metrics) -> Ending:
    loop, life = asyncio.get_running_loop(), Life()
    for number in (signal.SIGINT, signal.SIGTERM):
        # A shell without job control has its background jobs ignore SIGINT; that stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, life.take_signal, number)
    working = loop.create_task(work(settings, life, metrics), name="work")
    waiting = loop.create_task(life.wait(), name="life")
    await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not working.done():
        working.cancel()
    with suppress(asyncio.CancelledError):
        try:
            life.end(await working)
        except WsbridgeError as error:
            life.end(Ending(getattr(error, "exit_status", 1), str(error)))
    assert life.ending is not None
    return life.ending


def input_ending(how: ProgramError | OSError) -> Ending:
    """Return how it ends when stdin is not what it should be."""
    if isinstance(how, OSError):
        return Ending(1, f"stdin cannot be read: {how.strerror or how}")
    # The decoders speak of a program's stdout; here what they read is our stdin.
    flag = "--maxline" if isinstance(how, MessageTooLong) else "--framing"
    return Ending(1, f"stdin: {str(how).replace('of stdout ', '').replace('stdout ', '')} ({flag})")


def count_messages(count: int) -> str:
    """Return how a sentence about so many messages begins."""
    return f"{count} message{' was' if count == 1 else 's were'}"


def settle(future: asyncio.Future[Any], result: object) -> None:
    """Set the result of a future, unless whoever waited for it was told to stop, or it has one."""
    if not future.done():
        future.set_result(result)


def die_of(number: int) -> int:
    """End this process by a signal, as if it had not been caught; where that is not to be, return the status that stands for it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
