"""The fan-in merges the messages of many clients into one program's stdin, or into the bus.

While the destination is full, the fan-in pauses each client at its next message, so a silent client needs no call. If the clients
have sent too much meanwhile, the fan-in pauses each new client at once. This also bounds a client that reconnects again and again to
send more.
"""

from __future__ import annotations

from collections.abc import Callable

from wsbridge.flow import NULL_SOURCE, Batch, Source

EXCESS_BYTES = 1024 * 1024
"""Bytes that clients may send while the destination is full. Beyond that, the fan-in pauses each new client at once, so the server
does not read even its pings."""


class FanIn:
    """The source for the destination of the messages, and the sink for every client.

    The fan-in pauses and resumes `beside`, another source, along with the clients.
    """

    def __init__(self, write: Callable[[Batch], None] | None = None, *, beside: Source = NULL_SOURCE) -> None:
        self._write = write or _drop
        self._beside = beside
        self.is_open = write is not None
        """Whether the destination accepts messages of clients at all."""
        self._is_full = False
        self._excess_bytes = 0
        """Bytes that clients have sent since the destination became full."""
        self._held: set[Source] = set()

    def direct(self, write: Callable[[Batch], None] | None) -> None:
        """Pass the messages to another destination from now on, or to none.

        The new destination counts as full if the previous one was, until it calls `pause` or `resume`.
        """
        self.is_open = write is not None
        self._write = write or _drop

    def accompany(self, beside: Source) -> None:
        """Pause and resume another source along with the clients from now on."""
        self._beside = beside
        if self._is_full:
            beside.pause()

    def join(self, client: Source) -> None:
        """Add a client; pause it at once if clients have sent too much since the destination became full."""
        if self._excess_bytes > EXCESS_BYTES:
            self._hold(client)

    def write(self, client: Source, batch: Batch) -> None:
        """Pass on a client's messages; if the destination is full, pause the client."""
        self._write(batch)
        if self._is_full:
            self._excess_bytes += sum(map(len, batch.messages))
            self._hold(client)

    def _hold(self, client: Source) -> None:
        if client not in self._held:
            self._held.add(client)
            client.pause()

    def leave(self, client: Source) -> None:
        """Remove a client and resume it, so that the server still reads its last messages."""
        if client in self._held:
            self._held.discard(client)
            client.resume()

    def pause(self) -> None:
        self._is_full = True
        self._beside.pause()

    def resume(self) -> None:
        self._is_full = False
        self._excess_bytes = 0
        self._beside.resume()
        held, self._held = self._held, set()
        for client in held:
            client.resume()


def _drop(batch: Batch) -> None:
    """Drop the messages: there is no destination."""
