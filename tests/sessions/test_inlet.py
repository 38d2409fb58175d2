"""Where what many say flows together: whoever speaks while it is full is held up, and everybody goes on when it has drained."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wsbridge.flow import Batch, Kind, Memory
from wsbridge.sessions.inlet import BEYOND_BYTES, Inlet


class Speaker(Memory):
    """A client; each is another, though they hold the same."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def say(inlet: Inlet, client: Speaker, text: bytes) -> None:
    inlet.write(client, Batch(Kind.TEXT, [text]))


def test_all_flows_on() -> None:
    """What clients say goes on in the order in which it came."""
    taken = Memory()
    inlet = Inlet(taken.write)
    one, other = Speaker(), Speaker()
    for number, client in enumerate((one, other, one)):
        say(inlet, client, b"%d" % number)
    assert taken.messages == [b"0", b"1", b"2"]
    assert [client.paused for client in (one, other)] == [False, False]


def test_who_speaks_while_it_is_full_is_held_up() -> None:
    """When it is full a client is held up with its next message, which is not lost; who says nothing is left alone."""
    taken = Memory()
    inlet = Inlet(taken.write)
    speaks, listens = Speaker(), Speaker()
    inlet.pause()
    assert not speaks.paused
    say(inlet, speaks, b"one")
    assert taken.messages == [b"one"]
    assert (speaks.paused, listens.paused) == (True, False)
    inlet.resume()
    assert not speaks.paused
    say(inlet, speaks, b"two")
    assert not speaks.paused


def test_full_again() -> None:
    """Fullness is told again each time, and draining twice is draining."""
    taken = Memory()
    inlet = Inlet(taken.write)
    client = Speaker()
    for _ in range(3):
        inlet.pause()
        inlet.pause()
        say(inlet, client, b"x")
        assert client.paused
        inlet.resume()
        inlet.resume()
        assert not client.paused


def test_who_is_closed_is_heard_out() -> None:
    """A client that is no longer served is held up no more: its answer to the close frame is to be read. Then it is forgotten."""
    inlet = Inlet(Memory().write)
    client = Speaker()
    inlet.pause()
    say(inlet, client, b"x")
    inlet.leave(client)
    assert not client.paused
    client.pause()
    inlet.leave(client)
    inlet.resume()
    assert client.paused


def test_who_comes_while_it_is_full() -> None:
    """Who comes while it is full is heard; but not when a megabyte has come since, of many who came, spoke and went."""
    inlet = Inlet(Memory().write)
    early, late, later = Speaker(), Speaker(), Speaker()
    say(inlet, early, b"x" * BEYOND_BYTES * 2)
    inlet.pause()
    inlet.join(late)
    assert (early.paused, late.paused) == (False, False)
    for size in (BEYOND_BYTES, 1):
        speaker = Speaker()
        say(inlet, speaker, b"x" * size)
        inlet.leave(speaker)
    inlet.join(later)
    assert (late.paused, later.paused) == (False, True)
    inlet.resume()
    assert not later.paused
    inlet.pause()
    inlet.join(late)
    assert not late.paused


def test_beside() -> None:
    """Who publishes beside the clients is held up, and goes on, along with them."""
    beside = Memory()
    inlet = Inlet(Memory().write, beside=beside)
    inlet.pause()
    assert beside.paused
    inlet.resume()
    assert not beside.paused


def test_full_at_the_first_word() -> None:
    """A client whose very message fills it is held up at once."""
    inlet = Inlet(lambda batch: inlet.pause())
    client = Speaker()
    say(inlet, client, b"x")
    assert client.paused


@given(steps=st.lists(st.sampled_from(("pause", "resume", 0, 1, 2, "leave 0")), max_size=30))
def test_any_order(steps: list[str | int]) -> None:
    """Nobody who is there stays held up once it has drained, and nothing that was said is lost."""
    taken = Memory()
    inlet = Inlet(taken.write)
    clients = [Speaker() for _ in range(3)]
    said = 0
    for step in steps:
        match step:
            case "pause":
                inlet.pause()
            case "resume":
                inlet.resume()
            case "leave 0":
                inlet.leave(clients[0])
                clients[0] = Speaker()
            case int(index):
                if not clients[index].paused:
                    said += 1
                    say(inlet, clients[index], b"x")
    assert len(taken.messages) == said
    inlet.resume()
    assert not any(client.paused for client in clients)
