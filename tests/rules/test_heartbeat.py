"""When to ping and when to give up, as values: times in, decisions out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsbridge.rules.heartbeat import Beat, Heartbeat

INTERVAL = 0.5


def life(*happenings: tuple[float, str], until: float, begin: float = 0.0) -> list[tuple[float, Beat]]:
    """Return the pings and the end of a client: the heartbeat is asked exactly when it says so, and happenings come before."""
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
        assert next_time > now, "asked again for the same moment"
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
    """With `--pingms=500` a silent client is pinged at 0.5 s and given up at 1.0 s."""
    assert life(until=10) == [*pings(0.5), (1.0, Beat.TIMEOUT)]


def test_clock_may_begin_anywhere() -> None:
    """Times are of any clock: only what passes counts."""
    assert life(until=200, begin=100.0) == [*pings(100.5), (101.0, Beat.TIMEOUT)]


def test_client_that_answers() -> None:
    """A client that answers every ping is never given up, and is pinged every interval."""
    answers = [(time + 0.01, "heard") for time in every(INTERVAL, 100)]
    assert life(*answers, until=100) == pings(*every(INTERVAL, 100))


def test_slow_answers() -> None:
    """An answer may take nearly the whole deadline."""
    answers = [(time, "heard") for time in every(0.99, 50)]
    assert life(*answers, until=50) == pings(*every(INTERVAL, 50))


def test_client_that_falls_silent() -> None:
    """The deadline is two intervals after whatever was heard last."""
    assert life((0.25, "heard"), (1.25, "heard"), until=10) == [*pings(0.5, 1.0, 1.5, 2.0), (2.25, Beat.TIMEOUT)]


def test_rest() -> None:
    """While we do not read, the client cannot be heard: it is not given up, however long that lasts."""
    assert life((0.1, "rest"), until=100) == pings(*every(INTERVAL, 100))


def test_wake() -> None:
    """When we read again the client has its full time from then."""
    assert life((0.25, "rest"), (5.25, "wake"), until=100) == [*pings(*every(INTERVAL, 6)), (6.25, Beat.TIMEOUT)]
    answers = [(time, "heard") for time in every(INTERVAL, 50, begin=5.5)]
    assert life((0.25, "rest"), (5.25, "wake"), *answers, until=50) == pings(*every(INTERVAL, 50))


def test_rest_twice() -> None:
    """Resting twice is resting, and waking who was awake gives no time for nothing."""
    assert life((0.1, "rest"), (0.2, "rest"), (0.3, "wake"), until=100)[-1] == (1.3, Beat.TIMEOUT)
    assert life((0.3, "wake"), (0.7, "wake"), until=100)[-1] == (1.0, Beat.TIMEOUT)


def test_late_question() -> None:
    """A loop that was busy asks late: who was silent for two intervals by then is given up, who was not gets one ping."""
    assert Heartbeat(INTERVAL, 0).beat(7.0)[0] is Beat.TIMEOUT
    heard = Heartbeat(INTERVAL, 0)
    heard.received_at = 6.9
    assert heard.beat(7.0)[0] is Beat.PING
    assert heard.beat(7.01)[0] is Beat.WAIT


def test_early_question() -> None:
    """Who asks before it is time is told to wait, and until when."""
    assert Heartbeat(INTERVAL, 0).beat(0.2) == (Beat.WAIT, pytest.approx(0.5))


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 0.99), max_size=40))
def test_any_client_that_is_heard_in_time(gaps: list[float]) -> None:
    """Whoever is heard at least once in two intervals is never given up before the last of it."""
    times = [sum(gaps[: count + 1]) for count in range(len(gaps))]
    end = times[-1] if times else 0.0
    beats = life(*((time, "heard") for time in times), until=end + 2)
    gone = [when for when, beat in beats if beat is Beat.TIMEOUT]
    assert gone == [pytest.approx(end + 1)]
