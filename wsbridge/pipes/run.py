"""The common parts of `publish` and `subscribe`: the event loop, signals, a log on stderr, and the exit status that a shell expects.

The exit status reports the result. After the first signal, the command shuts down, and then raises the same signal against itself, so
that the shell sees it. If the reader of its stdout has closed the pipe, SIGPIPE ends it in the same way. A second signal ends it at once.
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

from wsbridge.errors import MessageTooLong, ProgramError, WsbridgeError
from wsbridge.logs import escape, send_to
from wsbridge.mentions import written
from wsbridge.metrics import Metrics
from wsbridge.settings import PipeSettings

STDOUT_DRAIN_SECONDS = 1.0
"""Time for the reader of stdout to read the remaining output after a signal."""


class Ending(NamedTuple):
    """How the command ends: the exit status, or the signal that ends the process, and a sentence for stderr."""

    status: int = 0
    words: str = ""
    signal: int = 0


class Lifetime:
    """Records the first reason for the command to end."""

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self._over = asyncio.Event()

    def end(self, ending: Ending) -> None:
        """End the command. The first of several reasons counts, but a failure replaces a normal end."""
        if self.ending is None or self.ending == Ending():
            self.ending = ending
        self._over.set()

    def output_failed(self, error: OSError) -> None:
        """End the command: stdout can no longer be written."""
        if isinstance(error, BrokenPipeError):
            self.end(Ending(signal=signal.SIGPIPE))
        else:
            self.end(Ending(1, f"cannot write to stdout: {error.strerror or error}"))

    def handle_signal(self, number: int) -> None:
        if self.ending is not None:
            die_of(number)
        self.end(Ending(signal=number))

    async def wait(self) -> None:
        await self._over.wait()


class StderrFormatter(logging.Formatter):
    """The format of the log on stderr.

    It escapes control characters: a line may contain foreign text, which must not control the terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        return f"wsbridge: {escape(super().format(record))}"


Work = Callable[[PipeSettings, Lifetime, Metrics], Coroutine[Any, Any, Ending]]


def run_pipe(work: Work, settings: PipeSettings, *, level: int) -> int:
    """Run the work of a command; return the exit status. When `Lifetime` ends, the work is cancelled and closes its resources."""
    from wsbridge.logwriter import LogHandler
    from wsbridge.net.busypoll import make_loop

    metrics = Metrics()
    log = LogHandler(2, StderrFormatter(), metrics)
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


async def _live(work: Work, settings: PipeSettings, metrics: Metrics) -> Ending:
    loop, life = asyncio.get_running_loop(), Lifetime()
    for number in (signal.SIGINT, signal.SIGTERM):
        # A shell without job control starts background jobs with SIGINT ignored. The command keeps ignoring it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, life.handle_signal, number)
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
    """Return the ending for a stdin that cannot be read or violates the framing."""
    if isinstance(how, OSError):
        return Ending(1, f"cannot read stdin: {how.strerror or how}")
    # The errors of the decoders refer to a program's stdout; here the input is stdin.
    setting = written("<max_program_message>" if isinstance(how, MessageTooLong) else "<framing>")
    return Ending(1, f"stdin: {str(how).replace('of stdout ', '').replace('stdout ', '')} ({setting})")


def count_messages(count: int) -> str:
    """Return the beginning of a sentence about so many messages."""
    return f"{count} message{' was' if count == 1 else 's were'}"


def settle(future: asyncio.Future[Any], result: object) -> None:
    """Set the result of a future, unless it has a result already or was cancelled."""
    if not future.done():
        future.set_result(result)


def die_of(number: int) -> int:
    """End this process by a signal, as if the signal had not been caught.

    If the process survives, return the exit status that stands for the signal.
    """
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
