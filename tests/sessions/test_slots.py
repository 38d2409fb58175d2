"""How many sessions there may be at once."""

from __future__ import annotations

import pytest

from wsbridge.sessions.slots import Slots


def test_slot_of_a_session_that_does_not_begin() -> None:
    """A block that raises gives its slot back, once; one that does not raise keeps it."""
    slots = Slots(1)
    assert slots.take()
    with pytest.raises(KeyError), slots.returned_on_error():
        raise KeyError
    assert slots.take()
    assert not slots.take()
    with slots.returned_on_error():
        pass
    assert not slots.take()
