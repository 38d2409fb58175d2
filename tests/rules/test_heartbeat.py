"""The decisions of the heartbeat, as values: times in, decisions out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsbridge.rules.heartbeat import Beat, Heartbeat

INTERVAL = 0.5


def life(*happenings: tuple[float, str], until: float, begin: float = 0.0) -> list[tuple[float, Beat]]:
    """Return a client's pings and its end. The test asks the heartbeat exactly at the requested times, after earlier events."""
    heartbeat = Heartbeat(INTERVAL, begin)
    waiting = sorted(happenings)
    beats: list[tuple[float, Beat]] = []
    now = begin
    while True:
        beat, next_time = heartbeat.beat(now)
        if beat is not Beat.WAIT:
            beats.append((now, beat))
        if beat is Beat.TIMEOUT:
            return beats
        assert next_time > now, "the heartbeat asks for the same time again"
        now = next_time
        if now > until:
            return beats
        while waiting and waiting[0][0] <= now:
            when, what = waiting.pop(0)
            match what:
                case "heard":
                    heartbeat.received_at = when
                case "rest":
                    heartbeat.rest()
                case "wake":
                    heartbeat.wake(when)


def every(interval: float, until: float, begin: float = 0.0) -> list[float]:
    return [begin + interval * count for count in range(1, int((until - begin) / interval) + 1)]


def pings(*times: float) -> list[tuple[float, Beat]]:
    return [(time, Beat.PING) for time in times]


def test_silent_client() -> None:
    """With `--pingms=500`, a silent client gets a ping at 0.5 s and is gone at 1.0 s."""
    assert life(until=10) == [*pings(0.5), (1.0, Beat.TIMEOUT)]


def test_any_clock() -> None:
    """The times may come from any clock: only differences count."""
    assert life(until=200, begin=100.0) == [*pings(100.5), (101.0, Beat.TIMEOUT)]


def test_client_that_answers() -> None:
    """A client that answers every ping stays connected, and gets a ping every interval."""
    answers = [(time + 0.01, "heard") for time in every(INTERVAL, 100)]
    assert life(*answers, until=100) == pings(*every(INTERVAL, 100))


def test_slow_answers() -> None:
    """An answer may take almost the whole deadline."""
    answers = [(time, "heard") for time in every(0.99, 50)]
    assert life(*answers, until=50) == pings(*every(INTERVAL, 50))


def test_client_that_falls_silent() -> None:
    """The deadline is two intervals after the last data from the client."""
    assert life((0.25, "heard"), (1.25, "heard"), until=10) == [*pings(0.5, 1.0, 1.5, 2.0), (2.25, Beat.TIMEOUT)]


def test_rest() -> None:
    """While reading is paused, the client is never gone, however long the pause lasts."""
    assert life((0.1, "rest"), until=100) == pings(*every(INTERVAL, 100))


def test_wake() -> None:
    """When reading resumes, the client has the full deadline from then."""
    assert life((0.25, "rest"), (5.25, "wake"), until=100) == [*pings(*every(INTERVAL, 6)), (6.25, Beat.TIMEOUT)]
    answers = [(time, "heard") for time in every(INTERVAL, 50, begin=5.5)]
    assert life((0.25, "rest"), (5.25, "wake"), *answers, until=50) == pings(*every(INTERVAL, 50))


def test_rest_twice() -> None:
    """`rest` is idempotent, and `wake` without `rest` does not extend the deadline."""
    assert life((0.1, "rest"), (0.2, "rest"), (0.3, "wake"), until=100)[-1] == (1.3, Beat.TIMEOUT)
    assert life((0.3, "wake"), (0.7, "wake"), until=100)[-1] == (1.0, Beat.TIMEOUT)


def test_late_question() -> None:
    """If a busy loop asks late, a client that was silent for two intervals is gone; otherwise, it gets one ping."""
    assert Heartbeat(INTERVAL, 0).beat(7.0)[0] is Beat.TIMEOUT
    heard = Heartbeat(INTERVAL, 0)
    heard.received_at = 6.9
    assert heard.beat(7.0)[0] is Beat.PING
    assert heard.beat(7.01)[0] is Beat.WAIT


def test_early_question() -> None:
    """An early question gets the answer to wait, and the time to ask again."""
    assert Heartbeat(INTERVAL, 0).beat(0.2) == (Beat.WAIT, pytest.approx(0.5))


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 0.99), max_size=40))
def test_any_client_that_answers_in_time(gaps: list[float]) -> None:
    """A client that sends data at least once in two intervals is never gone before the last interval."""
    times = [sum(gaps[: count + 1]) for count in range(len(gaps))]
    end = times[-1] if times else 0.0
    beats = life(*((time, "heard") for time in times), until=end + 2)
    gone = [when for when, beat in beats if beat is Beat.TIMEOUT]
    assert gone == [pytest.approx(end + 1)]
