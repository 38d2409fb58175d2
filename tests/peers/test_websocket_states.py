"""The states of the closing handshake, as a table: the client ends once, and wsbridge sends at most one close frame."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsbridge.peers.websocket import NEXT, SENDING, Event, State

HISTORIES = st.lists(st.sampled_from(Event))
ENDS = {Event.DISCONNECTED, Event.CLOSE_RECEIVED, Event.VIOLATION}
"""The events with which the client ends."""


def after(*events: Event) -> State:
    """Return the state after these events."""
    return reduce(lambda state, event: NEXT[state].get(event, state), events, State.OPEN)


def test_every_state_has_a_row() -> None:
    """Every state has a row, and the first state leads to every other state."""
    assert set(NEXT) == set(State)
    assert {State.OPEN, *(state for row in NEXT.values() for state in row.values())} == set(State)


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((Event.DISCONNECTED,), State.DISCONNECTED),
        ((Event.CLOSE_RECEIVED,), State.HANDSHAKE_DONE),
        ((Event.CLOSE_SENT,), State.CLOSING),
        ((Event.CLOSE_SENT, Event.CLOSE_RECEIVED), State.HANDSHAKE_DONE),
        ((Event.CLOSE_SENT, Event.DISCONNECTED), State.HANDSHAKE_DONE),
        ((Event.CLOSE_SENT, Event.VIOLATION), State.REFUSED),
        ((Event.VIOLATION, Event.DISCONNECTED), State.REFUSED),
        ((Event.DISCONNECTED, Event.CLOSE_SENT), State.DISCONNECTED),
    ],
)
def test_handshake(events: tuple[Event, ...], state: State) -> None:
    """Either side closes first; a client that has disconnected gets no close frame."""
    assert after(*events) is state


@given(HISTORIES)
def test_client_ends_once(events: list[Event]) -> None:
    """The first event with which the client ends changes the state, and so reaches the session; no later event does."""
    first = next((number for number, event in enumerate(events) if event in ENDS), len(events))
    changes = [number for number, event in enumerate(events) if event in NEXT[after(*events[:number])]]
    assert [number for number in changes if events[number] in ENDS] == [first][: len(events) - first]
    assert all(number <= first for number in changes)


@given(HISTORIES)
def test_one_close_frame(events: list[Event]) -> None:
    """After its close frame, wsbridge sends no frame."""
    is_sending = [after(*events[:count]) in SENDING for count in range(len(events) + 1)]
    assert is_sending == sorted(is_sending, reverse=True)
