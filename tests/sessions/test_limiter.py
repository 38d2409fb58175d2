"""The limit of simultaneous sessions."""

from __future__ import annotations

import pytest

from wsbridge.sessions.limiter import Limiter


def test_slot_of_a_session_that_fails_to_begin() -> None:
    """A block that raises releases its slot once; a block that does not raise keeps it."""
    limiter = Limiter(1)
    assert limiter.acquire()
    with pytest.raises(KeyError), limiter.released_on_error():
        raise KeyError
    assert limiter.acquire()
    assert not limiter.acquire()
    with limiter.released_on_error():
        pass
    assert not limiter.acquire()


def test_chain() -> None:
    """A slot of an endpoint is also a slot of the server; a refusal reserves nothing in either."""
    server = Limiter(2)
    first, second = Limiter(1, parent=server), Limiter(0, parent=server)
    assert [first.acquire(), first.acquire(), second.acquire(), second.acquire()] == [True, False, True, False]
    assert not second.is_free
    first.release()
    assert [second.is_free, second.acquire(), first.acquire(), first.is_free] == [True, True, False, False]
    second.release()
    assert first.acquire()


def test_limit_that_changes() -> None:
    """A lower limit revokes no slot; the limiter still counts the slots in use."""
    limiter = Limiter(2)
    assert [limiter.acquire(), limiter.acquire()] == [True, True]
    limiter.limit = 1
    limiter.release()
    assert not limiter.acquire()
    limiter.limit = 0
    assert limiter.acquire()


def test_reason_names_the_setting() -> None:
    """The reason of a refusal names the setting of the limit that is reached, of the endpoint or of the server."""
    server = Limiter(1, setting="max_sessions")
    first, second = Limiter(1, setting="max_clients", parent=server), Limiter(0, parent=server)
    assert first.acquire()
    assert (first.full, second.full) == ("no slot is free (max_clients)", "no slot is free (max_sessions)")
    second.refuse_all()
    assert second.full == "no slot is free (max_programs)"
