"""When a publish that the broker has not confirmed is overdue.

A publish is overdue `timeout` seconds after the last progress: its own sending, any confirm, or bytes that the broker still takes.
A broker that confirms later ones and leaves one out makes no progress with that one: its time runs on.
"""

from __future__ import annotations


class Confirms:
    """The publishes of one link that are not confirmed. Times are seconds of one clock; numbers grow in the order of sending."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._sent: dict[int, float] = {}
        self._passed_over: dict[int, float] = {}
        """Of those behind which others were confirmed: when that was first."""
        self._progress = 0.0

    def sent(self, number: int, now: float) -> None:
        """Take note that a publish was sent."""
        self._sent[number] = now

    def settled(self, number: int, now: float) -> None:
        """Take note that the broker has confirmed or refused a publish."""
        self._sent.pop(number, None)
        self._passed_over.pop(number, None)
        self._progress = now
        for other in self._sent:
            if other > number:
                break
            self._passed_over.setdefault(other, now)

    def progressed(self, now: float) -> None:
        """Take note that the broker still takes bytes of what was sent."""
        self._progress = now

    def restart(self, now: float) -> None:
        """Let the time of every publish begin anew: until now the broker had said that it blocks publishers."""
        self._progress = now
        self._passed_over.clear()

    def is_overdue(self, now: float) -> bool:
        """Return whether a publish is overdue; a timeout of 0 never ends."""
        return self._timeout > 0 and any(
            now - self._passed_over.get(number, max(sent, self._progress)) >= self._timeout for number, sent in self._sent.items()
        )
