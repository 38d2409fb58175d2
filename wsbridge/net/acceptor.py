"""Accept connections for all listeners at a bounded rate: a few in each iteration of the event loop.

During a flood of connections, new connections wait in the kernel's accept queue, in order, and the server keeps serving the
existing ones. asyncio's own accept loop empties the whole queue in one iteration. The acceptor pauses while the server has no room
for more work, and while file descriptors run short. It keeps a few descriptors in reserve for the programs and files of existing
connections.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass

from wsbridge.logs import ERROR, INFO, RateLimit, logger
from wsbridge.metrics import Metrics

Open = Callable[[socket.socket, object], None]
"""A function that begins a connection. Its arguments are the accepted socket, which it owns from then on, and the peer's address."""

NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
RESERVE, RESERVE_SHARE = 64, 8
"""File descriptors that connections must not use: RESERVE, or 1/RESERVE_SHARE of the limit if that is less."""

log = logger("server")


@dataclass(frozen=True, slots=True)
class Pace:
    """The rate at which the server accepts connections."""

    a_turn: int = 4
    """Connections that each listener accepts in one loop iteration. Accepting a connection costs 0.1 ms; its upgrade costs twice
    that."""
    room_seconds: float = 0.05
    """Seconds that accepting pauses without room. Then the acceptor accepts a few anyway: work that hangs must not block other
    clients."""
    short_seconds: float = 0.25
    """Seconds between two checks for free descriptors."""


class Acceptor:
    """Accepts connections on listening sockets, which it owns; `has_room` returns whether the server can begin more work now."""

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
        """The lowest reserved descriptor number. The kernel assigns the lowest free number, so an accepted socket shows how many
        are in use."""
        self._listening: dict[socket.socket, Open] = {}
        self._is_paused = self._is_short = self._is_logged = False
        self._timer: asyncio.TimerHandle | None = None
        self._without_room = 0
        """Connections that the acceptor still accepts without room."""
        self._shortages = RateLimit(log, ERROR)
        self.checks = 0
        """How many times the acceptor has checked for free descriptors."""

    def listen(self, sock: socket.socket, open: Open) -> None:
        """Accept connections on another socket and pass them to `open`.

        For a socket that is already listening, `open` replaces the earlier function from the next accepted connection on.
        """
        sock.setblocking(False)
        self._listening[sock] = open
        if not self._is_paused:
            self._loop.add_reader(sock, self._accept, sock, open)

    def stop(self, sock: socket.socket) -> None:
        """Stop accepting on one socket and close it; accepted connections stay open."""
        if self._listening.pop(sock, None) is not None and not self._is_paused:
            self._loop.remove_reader(sock)
        sock.close()

    def close(self) -> None:
        """Stop accepting and close the listening sockets; accepted connections stay open."""
        self._pause()
        if self._timer is not None:
            self._timer.cancel()
        for sock in self._listening:
            sock.close()
        self._listening.clear()

    def room(self) -> None:
        """Resume accepting if there is room again."""
        if self._is_paused and not self._is_short and self._has_room():
            self._resume()

    def _accept(self, listening: socket.socket, open: Open) -> None:
        for _ in range(self._pace.a_turn):
            if self._is_paused or listening not in self._listening:
                return
            if not self._has_room():
                if not self._without_room:
                    self._pause()
                    self._timer = self._loop.call_later(self._pace.room_seconds, self._go_on)
                    return
                self._without_room -= 1
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
                # accept(2) also reports the errors of a queued connection; the next connection may be valid.
                log.debug("accept: %s", error)
            return
        sock.setblocking(False)
        descriptor = sock.fileno()
        open(sock, address)
        if descriptor >= self._first_reserved:
            self._run_short(f"{self._first_reserved} of {self._limit} file descriptors are in use, and the rest are reserved")

    def _run_short(self, reason: str) -> None:
        self._pause()
        self._is_short = True
        self._metrics.accept_pauses += 1
        self._is_logged = self._shortages.log(
            "descriptors",
            f"the server accepts no connections until file descriptors are free: {reason}; raise the limit of open files (ulimit -Hn)",
            {},
            self._loop.time(),
        )
        self._timer = self._loop.call_later(self._pace.short_seconds, self._check_shortage)

    def _check_shortage(self) -> None:
        self.checks += 1
        if _lowest_free() < self._first_reserved:
            self._is_short = False
            if self._is_logged:
                log.log(INFO, "the server accepts connections again: file descriptors are free")
            self._resume()
        else:
            self._timer = self._loop.call_later(self._pace.short_seconds, self._check_shortage)

    def _pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            for sock in self._listening:
                self._loop.remove_reader(sock)

    def _go_on(self) -> None:
        """Accept `a_turn` more connections although there is no room: work that hangs must not block other clients."""
        self._without_room = self._pace.a_turn
        self._resume()

    def _resume(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._is_paused = False
        for sock, open in self._listening.items():
            self._loop.add_reader(sock, self._accept, sock, open)


def _lowest_free() -> float:
    """Return the lowest free descriptor number, or infinity if there is none."""
    try:
        descriptor = os.dup(0)
    except OSError:
        return float("inf")
    os.close(descriptor)
    return descriptor
