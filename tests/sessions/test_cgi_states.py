"""The states of a CGI script's output, as a table: what ends the output, and after which events it can still grow."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsbridge.sessions.cgi import NEXT, Event, State

ENDED, CUT, EXITED, DRAINED = Event.OUTPUT_ENDED, Event.OUTPUT_CUT, Event.EXITED, Event.DRAINED


def after(*events: Event) -> State:
    """Return the state after these events."""
    return reduce(lambda state, event: NEXT[state].get(event, state), events, State.RUNNING)


def test_every_state_has_a_row() -> None:
    """Every state has a row, and the first state leads to every other state."""
    assert set(NEXT) == set(State)
    assert {State.RUNNING, *(state for row in NEXT.values() for state in row.values())} == set(State)


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((ENDED,), State.SILENT),
        ((ENDED, EXITED), State.OVER),
        ((EXITED,), State.DRAINING),
        ((EXITED, ENDED), State.OVER),
        ((EXITED, DRAINED), State.OVER),
        ((CUT,), State.OVER),
        ((CUT, EXITED), State.OVER),
    ],
)
def test_end_of_the_output(events: tuple[Event, ...], state: State) -> None:
    """The output is over after the end of stdout and the exit, after the exit and the drain time, or after the ladder's signal."""
    assert after(*events) is state


@given(st.lists(st.sampled_from(Event)))
def test_ladder_ends_the_output(events: list[Event]) -> None:
    """Whatever has happened, no output follows the end of the ladder."""
    assert after(*events, Event.LADDER_ENDED) is State.OVER


@given(st.lists(st.sampled_from(Event)))
def test_over_is_final(events: list[Event]) -> None:
    """No event makes output possible again."""
    states = [after(*events[:count]) for count in range(len(events) + 1)]
    if State.OVER in states:
        assert set(states[states.index(State.OVER) :]) == {State.OVER}
