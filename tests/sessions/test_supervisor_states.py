"""The states of a supervised program, as a table: when the ladder begins, when the policy restarts the program, and what a stop does."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsbridge.sessions.supervisor import ACTIVE, NEXT, Event, State

LAUNCHED, EXITED, OUTPUT_ENDED, AGAIN = Event.LAUNCHED, Event.EXITED, Event.OUTPUT_ENDED, Event.WILL_RESTART

HISTORIES = st.lists(st.sampled_from(Event))


def after(*events: Event) -> State:
    """Return the state after these events."""
    return reduce(lambda state, event: NEXT[state].get(event, state), events, State.READY)


def test_every_state_has_a_row() -> None:
    """Every state has a row, and the first state leads to every other state."""
    assert set(NEXT) == set(State)
    assert {State.READY, *(state for row in NEXT.values() for state in row.values())} == set(State)


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((LAUNCHED,), State.RUNNING),
        ((LAUNCHED, OUTPUT_ENDED), State.SILENT),
        ((LAUNCHED, OUTPUT_ENDED, EXITED), State.ENDING),
        ((LAUNCHED, OUTPUT_ENDED, Event.EXIT_TIMEOUT), State.ENDING),
        ((LAUNCHED, EXITED), State.DRAINING),
        ((LAUNCHED, EXITED, OUTPUT_ENDED), State.ENDING),
        ((LAUNCHED, EXITED, Event.DRAINED), State.ENDING),
        ((LAUNCHED, Event.FAULTED), State.ENDING),
        ((LAUNCHED, Event.FAULTED, EXITED), State.ENDING),
        ((LAUNCHED, Event.EXIT_TIMEOUT), State.RUNNING),
    ],
)
def test_when_the_ladder_begins(events: tuple[Event, ...], state: State) -> None:
    """The ladder begins after the exit and the end of stdout, after the time for either of them, and after a fault."""
    assert after(*events) is state


@pytest.mark.parametrize("before", [(), (AGAIN,), (LAUNCHED, Event.FAULTED), (LAUNCHED, Event.FAULTED, AGAIN)])
def test_policy(before: tuple[Event, ...]) -> None:
    """After a run, and after a start that failed, the program restarts or ends for good."""
    assert after(*before, AGAIN) is State.WAITING
    assert after(*before, AGAIN, LAUNCHED) is State.RUNNING
    assert after(*before, Event.FINISHED) is State.ENDED


@given(HISTORIES)
def test_policy_waits_for_the_ladder(events: list[Event]) -> None:
    """While a program is under way, neither a restart nor the end for good is possible."""
    state = after(*events)
    if state in ACTIVE:
        assert not {LAUNCHED, AGAIN, Event.FINISHED} & set(NEXT[state])


@given(HISTORIES, HISTORIES)
def test_stop(before: list[Event], later: list[Event]) -> None:
    """After a stop, whenever it comes, no program starts and the state only changes to the last one."""
    state = after(*before, Event.STOPPED, *later)
    assert state in (State.STOPPING, State.ENDED)
    assert after(*before, Event.STOPPED, *later, Event.FINISHED) is State.ENDED
