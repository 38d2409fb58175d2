"""Seeing a client go while nobody reads it.

A paused transport is not in the loop's selector, so its end would go unseen for as long as its program takes nothing.
One epoll of its own watches the paused sockets for nothing but that: EPOLLRDHUP comes with the client's FIN, also when
unread data lies before it, and an error with its reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable

EVENTS = select.EPOLLRDHUP | select.EPOLLONESHOT


class Hangups:
    """The sockets that are paused, and whom to tell when their peer has gone."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def watch(self, fd: int, gone: Callable[[], None]) -> None:
        """Call `gone` once when the peer of this socket has closed or reset it."""
        try:
            self._epoll.register(fd, EVENTS)
        except FileExistsError:
            self._epoll.modify(fd, EVENTS)
        self._watched[fd] = gone

    def unwatch(self, fd: int, gone: Callable[[], None]) -> None:
        """Stop watching. The socket may be closed already, and its number another's by now."""
        if self._watched.get(fd) == gone:
            del self._watched[fd]
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._watched.clear()

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0):
            if gone := self._watched.get(fd):
                gone()
