"""Detection of a client that disconnects while the server does not read its connection.

A paused transport is not in the loop's selector, so its end would stay unnoticed for as long as its program reads nothing. A
separate epoll watches the paused sockets for this event only. EPOLLRDHUP reports the client's FIN, even behind unread data. An
error event reports the client's reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable

EVENTS = select.EPOLLRDHUP | select.EPOLLONESHOT


class Hangups:
    """The sockets of paused transports, each with the function to call when its peer has disconnected."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def watch(self, fd: int, on_hangup: Callable[[], None]) -> None:
        """Call `on_hangup` once when the peer of this socket closes or resets the connection."""
        try:
            self._epoll.register(fd, EVENTS)
        except FileExistsError:
            self._epoll.modify(fd, EVENTS)
        self._watched[fd] = on_hangup

    def unwatch(self, fd: int, on_hangup: Callable[[], None]) -> None:
        """Stop watching a socket.

        The socket may be closed already, and another socket may have its number by now.
        """
        if self._watched.get(fd) == on_hangup:
            del self._watched[fd]
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._watched.clear()

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0):
            if on_hangup := self._watched.get(fd):
                on_hangup()
