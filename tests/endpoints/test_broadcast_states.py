"""The states of a broadcast endpoint, as a table: one endpoint at a time owns the channel, and only the owner releases it."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsbridge.endpoints.broadcast import NEXT, Event, State


def after(state: State, *events: Event) -> State:
    """Return the state after these events."""
    return reduce(lambda state, event: NEXT[state].get(event, state), events, state)


def releases(state: State) -> bool:
    """Whether `finish` releases the channel in this state."""
    return Event.FINISHED in NEXT[state]


def test_every_state_has_a_row() -> None:
    """Every state has a row, and a candidate can come to every other state."""
    assert set(NEXT) == set(State)
    assert {State.CANDIDATE, *(state for row in NEXT.values() for state in row.values())} == set(State)


@pytest.mark.parametrize("state", State)
def test_only_the_owner_releases(state: State) -> None:
    """Neither a candidate that is discarded nor an endpoint with a successor releases the channel."""
    assert releases(state) is (state is State.OWNER)


@given(st.lists(st.sampled_from(Event)))
def test_released_once(events: list[Event]) -> None:
    """The first `finish` of an endpoint that has begun releases the channel; no event makes a second one release it."""
    assert not releases(after(State.CANDIDATE, Event.STARTED, Event.FINISHED, *events))


@given(st.lists(st.sampled_from((Event.SUCCEEDED, Event.FINISHED))))
def test_discarded_candidate(events: list[Event]) -> None:
    """A candidate that does not begin never owns the channel."""
    assert after(State.CANDIDATE, *events) is State.CANDIDATE
