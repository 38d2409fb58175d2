"""The limits on concurrent sessions and processes, as chains of slots: the slots of an endpoint, then the slots of the whole server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from wsbridge.mentions import written


class Limiter:
    """A number of slots; `limit` 0 means no limit.

    A slot stands for a process that runs, or a browser that is connected. The server reserves it before it creates anything for the
    session, and releases it after the end of the session and its program. A slot of this limiter needs a slot of `parent` as well.
    """

    def __init__(self, limit: int, *, setting: str = "max_programs", parent: Limiter | None = None) -> None:
        """`setting` is the name of the setting that holds the limit."""
        self._setting = setting
        self.limit = limit
        """May change at any time. A lower limit ends no session."""
        self._used = 0
        self._refuses_all = False
        self._parent = parent

    def acquire(self) -> bool:
        """Reserve a slot; return whether a slot was free."""
        if not self._has_own or (self._parent is not None and not self._parent.acquire()):
            return False
        self._used += 1
        return True

    @property
    def is_free(self) -> bool:
        """Whether there is a free slot."""
        return self._has_own and (self._parent is None or self._parent.is_free)

    @property
    def full(self) -> str:
        """The reason for a refusal without a free slot, for the log and for the client: it names the setting of the limit."""
        if self._has_own and self._parent is not None:
            return self._parent.full
        return written(f"no slot is free (<{self._setting}>)")

    @property
    def _has_own(self) -> bool:
        return not self._refuses_all and (self.limit <= 0 or self._used < self.limit)

    def release(self) -> None:
        """Release a slot."""
        self._used -= 1
        if self._parent is not None:
            self._parent.release()

    @contextmanager
    def released_on_error(self) -> Iterator[None]:
        """Release the slot if the block raises, also by cancellation: the session that would own it does not start."""
        try:
            yield
        except BaseException:
            self.release()
            raise

    def refuse_all(self) -> None:
        """Refuse every further slot."""
        self._refuses_all = True
