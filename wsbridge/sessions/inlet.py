"""Where what many clients send flows together: into one program's stdin, or into the bus.

When that is full, each client is held up from its next message on: nobody has to be told who does not speak. Only when many
have said much meanwhile, or one who comes and goes and comes again, whoever comes is held up at once.
"""

from __future__ import annotations

from collections.abc import Callable

from wsbridge.flow import STILL, Batch, Source

BEYOND_BYTES = 1024 * 1024
"""What may be said while it is full before whoever comes is held up at once, and so is not heard: not even his pings are."""


class Inlet:
    """The source, for whoever takes the messages, and the sink, for every client. `beside` is held up along with them."""

    def __init__(self, write: Callable[[Batch], None], *, beside: Source = STILL) -> None:
        self._write = write
        self._beside = beside
        self._is_full = False
        self._beyond = 0
        """Bytes that were said since it is full."""
        self._held: set[Source] = set()

    def join(self, client: Source) -> None:
        """Take a client; it waits with its first message already when too much was said by others."""
        if self._beyond > BEYOND_BYTES:
            self._hold(client)

    def write(self, client: Source, batch: Batch) -> None:
        """Hand on what a client says."""
        self._write(batch)
        if self._is_full:
            self._beyond += sum(map(len, batch.messages))
            self._hold(client)

    def _hold(self, client: Source) -> None:
        if client not in self._held:
            self._held.add(client)
            client.pause()

    def leave(self, client: Source) -> None:
        """A client is no longer served. It is held up no more: its last words are to be heard."""
        if client in self._held:
            self._held.discard(client)
            client.resume()

    def pause(self) -> None:
        self._is_full = True
        self._beside.pause()

    def resume(self) -> None:
        self._is_full = False
        self._beyond = 0
        self._beside.resume()
        held, self._held = self._held, set()
        for client in held:
            client.resume()
