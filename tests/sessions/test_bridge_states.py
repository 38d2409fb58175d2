"""The states of a bridge's session, as a table: the first event that ends the session decides how."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsbridge.sessions.bridge import NEXT, Event, State

ENDINGS = {Event.CLIENT_DISCONNECTED: State.DISCONNECTED, Event.OUTPUT_ENDED: State.DELIVERING, Event.MUST_CLOSE: State.CLOSING}


def after(events: list[Event]) -> State:
    """Return the state after these events."""
    return reduce(lambda state, event: NEXT[state].get(event, state), events, State.RUNNING)


def test_every_state_has_a_row() -> None:
    """Every state has a row, and is reachable from the first."""
    assert set(NEXT) == set(State)
    assert {after([]), *(state for row in NEXT.values() for state in row.values())} == set(State)


@given(st.lists(st.sampled_from([*ENDINGS, Event.PROGRAM_EXITED])))
def test_first_ending_decides(events: list[Event]) -> None:
    """The first event that can end the session decides its state, whatever happens later. An exit alone begins the drain."""
    endings = [ENDINGS[event] for event in events if event in ENDINGS]
    exited = State.DRAINING if events else State.RUNNING
    assert after(events) == (endings[0] if endings else exited)


@pytest.mark.parametrize("ending", ENDINGS)
def test_end(ending: Event) -> None:
    """Each session ends when the ladder has ended its program; the status is sent once, and only after all output."""
    assert after([ending, Event.LADDER_ENDED]) is State.ENDED
    sent = after([ending, Event.STATUS_SENT])
    assert (sent is not ENDINGS[ending]) is (ending is Event.OUTPUT_ENDED)
    assert after([ending, Event.STATUS_SENT, Event.STATUS_SENT]) is sent
    assert after([ending, Event.STATUS_SENT, Event.LADDER_ENDED]) is State.ENDED


@pytest.mark.parametrize("state", [State.RUNNING, State.DRAINING])
def test_undecided(state: State) -> None:
    """Before an event has decided the end, the session neither sends a status nor ends."""
    assert not NEXT[state].keys() & {Event.STATUS_SENT, Event.LADDER_ENDED}
