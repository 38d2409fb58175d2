"""How many sessions there may be at once."""

from __future__ import annotations

import pytest

from wsbridge.sessions.limiter import Limiter


def test_slot_of_a_session_that_does_not_begin() -> None:
    """A block that raises gives its slot back, once; one that does not raise keeps it."""
    limiter = Limiter(1)
    assert limiter.acquire()
    with pytest.raises(KeyError), limiter.returned_on_error():
        raise KeyError
    assert limiter.acquire()
    assert not limiter.acquire()
    with limiter.returned_on_error():
        pass
    assert not limiter.acquire()
