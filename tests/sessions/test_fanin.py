"""The fan-in of many clients into one destination: while it is full, clients that send are paused, and all resume when it has room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wsbridge.flow import Batch, Kind, Memory
from wsbridge.sessions.fanin import EXCESS_BYTES, FanIn


class Speaker(Memory):
    """A client, compared by identity."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def say(fan_in: FanIn, client: Speaker, text: bytes) -> None:
    fan_in.write(client, Batch(Kind.TEXT, [text]))


def test_messages_keep_their_order() -> None:
    """The fan-in passes the clients' messages on in the order in which they arrived."""
    taken = Memory()
    fan_in = FanIn(taken.write)
    one, other = Speaker(), Speaker()
    for number, client in enumerate((one, other, one)):
        say(fan_in, client, b"%d" % number)
    assert taken.messages == [b"0", b"1", b"2"]
    assert [client.paused for client in (one, other)] == [False, False]


def test_full_destination_pauses_senders() -> None:
    """While the destination is full, a client is paused after its next message, which is not lost. A silent client is not paused."""
    taken = Memory()
    fan_in = FanIn(taken.write)
    speaks, listens = Speaker(), Speaker()
    fan_in.pause()
    assert not speaks.paused
    say(fan_in, speaks, b"one")
    assert taken.messages == [b"one"]
    assert (speaks.paused, listens.paused) == (True, False)
    fan_in.resume()
    assert not speaks.paused
    say(fan_in, speaks, b"two")
    assert not speaks.paused


def test_repeated_pauses() -> None:
    """Each pause takes effect, and `pause` and `resume` are idempotent."""
    taken = Memory()
    fan_in = FanIn(taken.write)
    client = Speaker()
    for _ in range(3):
        fan_in.pause()
        fan_in.pause()
        say(fan_in, client, b"x")
        assert client.paused
        fan_in.resume()
        fan_in.resume()
        assert not client.paused


def test_client_that_leaves_is_resumed() -> None:
    """A client that leaves is resumed, because its answer to the close frame must be read. Then the fan-in forgets it."""
    fan_in = FanIn(Memory().write)
    client = Speaker()
    fan_in.pause()
    say(fan_in, client, b"x")
    fan_in.leave(client)
    assert not client.paused
    client.pause()
    fan_in.leave(client)
    fan_in.resume()
    assert client.paused


def test_join_while_full() -> None:
    """A client that joins while the destination is full is not paused, unless more than a megabyte has arrived from other clients
    meanwhile."""
    fan_in = FanIn(Memory().write)
    early, late, later = Speaker(), Speaker(), Speaker()
    say(fan_in, early, b"x" * EXCESS_BYTES * 2)
    fan_in.pause()
    fan_in.join(late)
    assert (early.paused, late.paused) == (False, False)
    for size in (EXCESS_BYTES, 1):
        speaker = Speaker()
        say(fan_in, speaker, b"x" * size)
        fan_in.leave(speaker)
    fan_in.join(later)
    assert (late.paused, later.paused) == (False, True)
    fan_in.resume()
    assert not later.paused
    fan_in.pause()
    fan_in.join(late)
    assert not late.paused


def test_source_beside_the_clients() -> None:
    """A source beside the clients is paused and resumed together with them."""
    beside = Memory()
    fan_in = FanIn(Memory().write, beside=beside)
    fan_in.pause()
    assert beside.paused
    fan_in.resume()
    assert not beside.paused


def test_another_source_beside() -> None:
    """A source that is added while the destination is full is paused at once."""
    first, second, third = Memory(), Memory(), Memory()
    fan_in = FanIn(Memory().write, beside=first)
    fan_in.accompany(second)
    fan_in.pause()
    fan_in.accompany(third)
    assert [source.paused for source in (first, second, third)] == [False, True, True]
    fan_in.resume()
    assert not third.paused


def test_message_that_fills_the_destination() -> None:
    """A client whose message fills the destination is paused at once."""
    fan_in = FanIn(lambda batch: fan_in.pause())
    client = Speaker()
    say(fan_in, client, b"x")
    assert client.paused


@given(steps=st.lists(st.sampled_from(("pause", "resume", 0, 1, 2, "leave 0")), max_size=30))
def test_any_order(steps: list[str | int]) -> None:
    """After the destination has drained, no client stays paused, and no message is lost."""
    taken = Memory()
    fan_in = FanIn(taken.write)
    clients = [Speaker() for _ in range(3)]
    said = 0
    for step in steps:
        match step:
            case "pause":
                fan_in.pause()
            case "resume":
                fan_in.resume()
            case "leave 0":
                fan_in.leave(clients[0])
                clients[0] = Speaker()
            case int(index):
                if not clients[index].paused:
                    said += 1
                    say(fan_in, clients[index], b"x")
    assert len(taken.messages) == said
    fan_in.resume()
    assert not any(client.paused for client in clients)


def test_another_destination() -> None:
    """After a change, messages go to the new destination, clients wait until it has room, and no destination drops."""
    old, new, client = Memory(), Memory(), Speaker()
    fan_in = FanIn(old.write)
    assert fan_in.is_open
    fan_in.pause()
    say(fan_in, client, b"a")
    assert client.paused
    fan_in.direct(new.write)
    assert client.paused
    fan_in.resume()
    say(fan_in, client, b"b")
    assert (old.messages, new.messages, client.paused) == ([b"a"], [b"b"], False)
    fan_in.direct(None)
    say(fan_in, client, b"c")
    assert (new.messages, fan_in.is_open) == ([b"b"], False)
