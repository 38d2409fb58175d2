"""Accepting connections, for all listeners: a few in each turn of the loop, and none while there is no room for more.

A storm of connections waits in the kernel's queue, in order, and the connections that were there before go on being served;
asyncio's own accept loop takes the whole queue in one turn. When descriptors run short, accepting pauses until some are free.
A few are kept in reserve for the programs and files of the connections that are there.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass

from wsbridge.logs import ERROR, INFO, Ration, logger
from wsbridge.metrics import Metrics

Open = Callable[[socket.socket, object], None]
"""Takes a socket that was accepted, which it owns from then on, and the peer's address."""

NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
RESERVE, RESERVE_SHARE = 64, 8
"""Descriptors that no connection takes: so many, or this part of a small limit."""

log = logger("server")


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast connections are accepted."""

    a_turn: int = 4
    """Connections of each listener in one turn of the loop. One costs 0.1 ms, and its upgrade twice as much."""
    room_seconds: float = 0.05
    """How long accepting pauses for want of room. Then a few are accepted all the same: what hangs must not stop the rest."""
    short_seconds: float = 0.25
    """The time between two looks for free descriptors."""


class Acceptor:
    """Accepts on listening sockets, which it owns. `has_room` says whether more work can be taken on now."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        loop: asyncio.AbstractEventLoop,
        has_room: Callable[[], bool] = lambda: True,
        pace: Pace | None = None,
    ) -> None:
        self._metrics = metrics
        self._loop = loop
        self._has_room = has_room
        self._pace = pace or Pace()
        self._limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._first_reserved = self._limit - min(RESERVE, self._limit // RESERVE_SHARE)
        """A descriptor, since the kernel gives the lowest that is free."""
        self._listening: dict[socket.socket, Open] = {}
        self._is_paused = self._is_short = self._is_told = False
        self._timer: asyncio.TimerHandle | None = None
        self._regardless = 0
        """How many connections are to be accepted without room."""
        self._shortages = Ration(log, ERROR)
        self.looks = 0
        """How often free descriptors were looked for."""

    def listen(self, sock: socket.socket, open: Open) -> None:
        """Accept on another socket."""
        sock.setblocking(False)
        self._listening[sock] = open
        if not self._is_paused:
            self._loop.add_reader(sock, self._accept, sock, open)

    def close(self) -> None:
        """Accept no more; connections that were accepted stay."""
        self._pause()
        if self._timer is not None:
            self._timer.cancel()
        for sock in self._listening:
            sock.close()
        self._listening.clear()

    def room(self) -> None:
        """Take note that there may be room again."""
        if self._is_paused and not self._is_short and self._has_room():
            self._resume()

    def _accept(self, listening: socket.socket, open: Open) -> None:
        for _ in range(self._pace.a_turn):
            if self._is_paused:
                return
            if not self._has_room():
                if not self._regardless:
                    self._pause()
                    self._timer = self._loop.call_later(self._pace.room_seconds, self._go_on)
                    return
                self._regardless -= 1
            self._accept_one(listening, open)

    def _accept_one(self, listening: socket.socket, open: Open) -> None:
        try:
            sock, address = listening.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in NO_DESCRIPTOR:
                self._run_short(os.strerror(error.errno or 0).lower())
            else:
                # The kernel reports errors of a connection that waits, too (accept(2)); the next may be well.
                log.debug("accept: %s", error)
            return
        sock.setblocking(False)
        descriptor = sock.fileno()
        open(sock, address)
        if descriptor >= self._first_reserved:
            self._run_short(f"{self._first_reserved} of {self._limit} descriptors are in use, and the rest is in reserve")

    def _run_short(self, reason: str) -> None:
        self._pause()
        self._is_short = True
        self._metrics.accept_pauses += 1
        self._is_told = self._shortages.say(
            "descriptors",
            f"no connection is accepted until descriptors are free: {reason}; raise the limit of open files (ulimit -Hn)",
            {},
            self._loop.time(),
        )
        self._timer = self._loop.call_later(self._pace.short_seconds, self._look)

    def _look(self) -> None:
        self.looks += 1
        if _lowest_free() < self._first_reserved:
            self._is_short = False
            if self._is_told:
                log.log(INFO, "connections are accepted again: descriptors are free")
            self._resume()
        else:
            self._timer = self._loop.call_later(self._pace.short_seconds, self._look)

    def _pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            for sock in self._listening:
                self._loop.remove_reader(sock)

    def _go_on(self) -> None:
        """Accept as many as in one turn, though there is no room: what hangs must not stop the rest."""
        self._regardless = self._pace.a_turn
        self._resume()

    def _resume(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._is_paused = False
        for sock, open in self._listening.items():
            self._loop.add_reader(sock, self._accept, sock, open)


def _lowest_free() -> float:
    """Return the lowest descriptor that is free, infinity where there is none."""
    try:
        descriptor = os.dup(0)
    except OSError:
        return float("inf")
    os.close(descriptor)
    return descriptor
