"""How many there may be at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Slots:
    """So many places; `limit` 0 is any number.

    A slot stands for a process that runs, or a browser that is connected: it is taken before anything is made for it, and given
    back when nothing is left of it.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit if limit > 0 else None
        self._barred = False

    def take(self) -> bool:
        """Take a slot, if there is one."""
        if not self.is_free:
            return False
        if self._free is not None:
            self._free -= 1
        return True

    @property
    def is_free(self) -> bool:
        """Whether there is a slot."""
        return not self._barred and (self._free is None or self._free > 0)

    def give(self) -> None:
        """Give a slot back."""
        if self._free is not None:
            self._free += 1

    @contextmanager
    def returned_on_error(self) -> Iterator[None]:
        """Give the slot back when the block raises, cancellation included: the session that would own it does not begin."""
        try:
            yield
        except BaseException:
            self.give()
            raise

    def bar(self) -> None:
        """Give out no slot any more."""
        self._barred = True
