"""The busy-poll selector: when it polls, when it sleeps, and that an idle loop uses no processor time."""

from __future__ import annotations

import asyncio
import os
import selectors
import time
from collections.abc import Iterator

import pytest

from wsbridge.net import busypoll
from wsbridge.net.busypoll import BusyPollSelector, make_loop


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


class Looks:
    """Records the timeouts that the selector passes to epoll."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.timeouts: list[float | None] = []
        select = selectors.EpollSelector.select

        def looked(selector: selectors.EpollSelector, timeout: float | None = None) -> busypoll.Ready:
            self.timeouts.append(timeout)
            return select(selector, 0)

        monkeypatch.setattr(selectors.EpollSelector, "select", looked)


def test_busy_poll_after_an_event(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """After an event, the selector polls without sleeping for a moment, then sleeps. Without an event, it sleeps at once."""
    with BusyPollSelector() as selector:
        selector.register(pipe[0], selectors.EVENT_READ)
        looks = Looks(monkeypatch)
        assert selector.select(5) == []
        assert looks.timeouts == [5]
        os.write(pipe[1], b"x")
        assert len(selector.select(5)) == 1
        os.read(pipe[0], 1)
        del looks.timeouts[:]
        assert selector.select(5) == []
        assert looks.timeouts[-1] == 5
        assert set(looks.timeouts[:-1]) == {0}
        del looks.timeouts[:]
        selector.select(None)
        assert looks.timeouts == [None]


@pytest.mark.parametrize("timeout", [0, busypoll.BUSY_POLL_SECONDS / 2])
def test_no_busy_poll_before_due_work(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, timeout: float) -> None:
    """If the loop has a ready callback or a timer that is due, the selector does not busy-poll."""
    with BusyPollSelector() as selector:
        selector.register(pipe[0], selectors.EVENT_READ)
        os.write(pipe[1], b"x")
        selector.select(0)
        looks = Looks(monkeypatch)
        selector.select(timeout)
        assert looks.timeouts == [timeout]


def test_idle_loop_sleeps() -> None:
    """An idle loop uses almost no processor time."""
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(asyncio.sleep(0))
        before = time.process_time()
        runner.run(asyncio.sleep(0.5))
        assert time.process_time() - before < 0.1


def test_no_busy_poll_on_a_single_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one processor, the loop does not busy-poll, so the other processes can run."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    loop = make_loop()
    assert type(loop._selector) is selectors.EpollSelector  # type: ignore[attr-defined]
    loop.close()
