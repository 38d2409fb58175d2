"""The timers of an event loop, without the loop: a test sets the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Timer:
    """The handle that `call_later` returns."""

    def __init__(self, at: float, call: Callable[[], object]) -> None:
        self.at, self.call, self.is_cancelled = at, call, False

    def cancel(self) -> None:
        self.is_cancelled = True


class Clock:
    """Replaces a loop whose timers alone are used; `now` is its time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def call_later(self, seconds: float, call: Callable[..., object], *arguments: Any) -> Timer:
        self.timers.append(Timer(self.now + seconds, lambda: call(*arguments)))
        return self.timers[-1]

    def turn_to(self, now: float) -> None:
        """Run the timers up to a time, in the order of their times."""
        while due := [timer for timer in self.timers if timer.at <= now and not timer.is_cancelled]:
            first = min(due, key=lambda timer: timer.at)
            self.timers.remove(first)
            self.now = first.at
            first.call()
        self.now = now
