"""Decides when a publish that the broker has not confirmed is overdue.

A publish is overdue `timeout` seconds after the last progress. Progress is its own sending, any confirm of the link, or bytes up
to its end that the broker accepts. Bytes behind its end are no progress: other links send them over the same connection. If the broker
skips a publish and confirms later publishes, later progress does not extend the timeout of the skipped publish.
"""

from __future__ import annotations


class Confirms:
    """The unconfirmed publishes of one link.

    Times are in seconds of one clock; numbers grow in the order of sending. Positions count the bytes of the connection.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._sent: dict[int, float] = {}
        """For each publish: when it was sent, or when the broker last accepted bytes up to its end."""
        self._ends: dict[int, int] = {}
        """The position of the end of each publish."""
        self._accepted = 0
        self._passed_over: dict[int, float] = {}
        """For each publish that the broker has skipped: when it first confirmed a later publish."""
        self._progress = 0.0

    def sent(self, number: int, now: float, end: int = 0) -> None:
        """Record that a publish was sent, and the position of its end."""
        self._sent[number] = now
        self._ends[number] = end

    def settled(self, number: int, now: float) -> None:
        """Record that the broker has confirmed or refused a publish."""
        self._sent.pop(number, None)
        self._ends.pop(number, None)
        self._passed_over.pop(number, None)
        self._progress = now
        for other in self._sent:
            if other > number:
                break
            self._passed_over.setdefault(other, now)

    def accepted(self, position: int, now: float) -> None:
        """Record the position up to which the broker has accepted the bytes of the connection."""
        before, self._accepted = self._accepted, position
        if position > before:
            self._sent.update((number, now) for number, end in self._ends.items() if end > before)

    def restart(self, now: float) -> None:
        """Restart the timeout of every publish: until now the broker was blocking publishers."""
        self._progress = now
        self._passed_over.clear()

    def is_overdue(self, now: float) -> bool:
        """Return whether a publish is overdue; with a timeout of 0 no publish ever is."""
        return self._timeout > 0 and any(
            now - self._passed_over.get(number, max(sent, self._progress)) >= self._timeout for number, sent in self._sent.items()
        )
