"""Decides when a publish that the broker has not confirmed is overdue.

A publish is overdue `timeout` seconds after the last progress: its own sending, any confirm, or bytes that the broker still
accepts. If the broker skips a publish and confirms later publishes, later progress does not extend the timeout of the skipped
publish.
"""

from __future__ import annotations


class Confirms:
    """The unconfirmed publishes of one link. Times are in seconds of one clock; numbers grow in the order of sending."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._sent: dict[int, float] = {}
        self._passed_over: dict[int, float] = {}
        """For each publish that the broker has skipped: when it first confirmed a later publish."""
        self._progress = 0.0

    def sent(self, number: int, now: float) -> None:
        """Record that a publish was sent."""
        self._sent[number] = now

    def settled(self, number: int, now: float) -> None:
        """Record that the broker has confirmed or refused a publish."""
        self._sent.pop(number, None)
        self._passed_over.pop(number, None)
        self._progress = now
        for other in self._sent:
            if other > number:
                break
            self._passed_over.setdefault(other, now)

    def progressed(self, now: float) -> None:
        """Record that the broker still accepts bytes of what was sent."""
        self._progress = now

    def restart(self, now: float) -> None:
        """Restart the timeout of every publish: until now the broker was blocking publishers."""
        self._progress = now
        self._passed_over.clear()

    def is_overdue(self, now: float) -> bool:
        """Return whether a publish is overdue; with a timeout of 0 no publish ever is."""
        return self._timeout > 0 and any(
            now - self._passed_over.get(number, max(sent, self._progress)) >= self._timeout for number, sent in self._sent.items()
        )
