"""The limit on concurrent sessions and processes, as a number of slots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Limiter:
    """A number of slots; `limit` 0 means no limit.

    A slot stands for a process that runs, or a browser that is connected. The server reserves it before it creates anything for the
    session, and gives it back when nothing of the session is left.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit if limit > 0 else None
        self._barred = False

    def acquire(self) -> bool:
        """Reserve a slot; return whether a slot was free."""
        if not self.is_free:
            return False
        if self._free is not None:
            self._free -= 1
        return True

    @property
    def is_free(self) -> bool:
        """Whether there is a free slot."""
        return not self._barred and (self._free is None or self._free > 0)

    def release(self) -> None:
        """Give a slot back."""
        if self._free is not None:
            self._free += 1

    @contextmanager
    def returned_on_error(self) -> Iterator[None]:
        """Give the slot back if the block raises, cancellation included: the session that would own it does not begin."""
        try:
            yield
        except BaseException:
            self.release()
            raise

    def bar(self) -> None:
        """Refuse every further slot."""
        self._barred = True
