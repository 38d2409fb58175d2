"""Who brings a position gets exactly what he missed, or is told plainly what is lost; who brings none begins where he is told to."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.server.conftest import Broadcast, Record, Viewer, split, status, view, wait_for_viewers
from tests.support.client import Client
from tests.support.proc import TRANSPORTS
from tests.support.server import Server


def publish(publisher: Client, *texts: str) -> None:
    """Have a browser publish, and wait until the channel has it."""
    for text in texts:
        publisher.send_text(text)
        assert publisher.receive_text() == text


def left(viewer: Viewer) -> str:
    """The position that a viewer leaves with."""
    viewer.client.drop()
    assert viewer.position is not None
    return viewer.position


def test_greeting(talk: Server) -> None:
    """Who joins is told at once where he is, so that he can come back before there was any message."""
    with view(talk) as viewer, talk.connect() as publisher:
        assert viewer.next() == Record("at", (viewer.position or "").encode())
        here = left(viewer)
        publish(publisher, "one")
        with view(talk, since=here) as again:
            assert [again.next() for _ in range(2)] == [Record("at", here.encode()), Record("message", b"one")]


def test_coming_back(talk: Server) -> None:
    """Who comes back gets exactly what he has missed, then what follows, and nothing is lost or repeated."""
    with ExitStack() as stack:
        publisher = stack.enter_context(talk.connect())
        viewer = stack.enter_context(view(talk))
        wait_for_viewers(talk, 2)
        publish(publisher, *map(str, range(10)))
        seen = viewer.messages(4)
        for count in (0, 7, 100):
            position = left(viewer)
            publish(publisher, *(f"{count}-{number}" for number in range(count)))
            viewer = stack.enter_context(view(talk, since=position))
            seen += viewer.messages(3)
            assert viewer.losses == []
        assert seen == [b"%d" % number for number in range(10)] + [b"7-0", b"7-1", b"7-2"]


def test_coming_back_twice_with_the_same(talk: Server) -> None:
    """A position is a place, not a ticket: it can be used again, and by somebody else."""
    with view(talk) as viewer, talk.connect() as publisher:
        viewer.next()
        publish(publisher, "a", "b")
        for _ in range(2):
            with view(talk, since=viewer.position) as again:
                assert again.messages(2) == [b"a", b"b"]


def test_lost(broadcast: Broadcast) -> None:
    """Who was away for too long is told how many messages are lost, before the next one."""
    server = broadcast("--input=exchange", "--history=5", "--queue=0")
    with server.connect() as publisher:
        viewer = view(server)
        wait_for_viewers(server, 2)
        publish(publisher, "0")
        assert viewer.message() == b"0"
        position = left(viewer)
        publish(publisher, *map(str, range(1, 21)))
        with view(server, since=position) as again:
            assert again.next() == Record("lost", b"15")
            assert again.messages(5) == [b"16", b"17", b"18", b"19", b"20"]
            publish(publisher, "21")
            assert again.message() == b"21"


@pytest.mark.parametrize(
    "since", ["00000000000000000000-0", "nonsense", "-", "x-999999999999999999", "x-9999999999999999999", "%00", "%ff-1", "a-1%0a", "é"]
)
def test_position_of_nowhere(broadcast: Broadcast, since: str) -> None:
    """With a position that says nothing here one gets all that is kept, and is told before that nobody knows what is lost."""
    server = broadcast("--input=exchange")
    with server.connect() as publisher:
        publish(publisher, "one", "two")
        viewer = Viewer(server.connect(f"/?since={since}".encode().decode("latin-1"), subprotocols=("wsbridge.v1",)))
        with viewer:
            assert viewer.next() == Record("lost", b"?")
            assert viewer.messages(2) == [b"one", b"two"]


def test_position_of_another_run(broadcast: Broadcast) -> None:
    """A server that was started anew does not take a position of the one before for one of its own, though both count from 0."""
    servers = [broadcast("--input=exchange") for _ in range(2)]
    positions = []
    for server in servers:
        with server.connect() as publisher, view(server) as viewer:
            wait_for_viewers(server, 2)
            publish(publisher, "one", "two")
            viewer.messages(2)
            positions.append(viewer.position or "")
    assert [split(position)[1] for position in positions] == [2, 2]
    assert positions[0] != positions[1]
    with view(servers[1], since=positions[0]) as again:
        assert again.next() == Record("lost", b"?")
        assert again.messages(2) == [b"one", b"two"]


def test_position_ahead(talk: Server) -> None:
    """A position behind messages that are still to come says nothing."""
    mark, number = split(status(talk)["position"])
    with Viewer(talk.connect(f"/?since={mark}-{number + 1}", subprotocols=("wsbridge.v1",))) as viewer:
        assert viewer.next() == Record("lost", b"?")


@pytest.mark.parametrize(("how", "first"), [("history", ["1", "2", "3"]), ("last", ["3"]), ("none", [])])
def test_joining(broadcast: Broadcast, how: str, first: list[str]) -> None:
    """`--join` says what one is given first who brings no position; the plain client gets plain messages, and nothing else."""
    server = broadcast("--input=exchange", f"--join={how}", "--history=3", "--queue=0")
    with server.connect() as publisher:
        publisher.send_text("0")
        assert publisher.receive_text() == "0"
        publish(publisher, "1", "2", "3")
        with server.connect() as plain, view(server) as viewer:
            wait_for_viewers(server, 3)
            publish(publisher, "4")
            assert [plain.receive_text() for _ in (*first, "4")] == [*first, "4"]
            assert [message.decode() for message in viewer.messages(len(first) + 1)] == [*first, "4"]
            assert viewer.losses == []


def test_joining_an_empty_channel(broadcast: Broadcast) -> None:
    """Of a channel in which nothing was said yet there is no history and no last message, and that is no loss."""
    for how in ("history", "last"):
        server = broadcast("--input=exchange", f"--join={how}")
        with view(server) as viewer, server.connect() as publisher:
            assert viewer.next().what == "at"
            publish(publisher, "first")
            assert viewer.next() == Record("message", b"first")


def test_plain_client_with_a_position(talk: Server) -> None:
    """Also who wants plain messages may bring a position that he has from elsewhere."""
    with view(talk) as viewer, talk.connect() as publisher:
        viewer.next()
        here = viewer.position
        publish(publisher, "one", "two")
        with talk.connect(f"/?since={here}") as plain:
            assert [plain.receive_text() for _ in range(2)] == ["one", "two"]


def test_subprotocols(broadcast: Broadcast) -> None:
    """wsbridge.v1 is agreed to where a client offers it, and others where --subprotocol names them: the client's first."""
    server = broadcast("--input=exchange", "--subprotocol=chat")
    offers = [(), ("wsbridge.v1",), ("chat",), ("chat", "wsbridge.v1"), ("wsbridge.v1", "chat"), ("other",)]
    chosen = []
    for offer in offers:
        with server.connect(subprotocols=offer) as client:
            chosen.append(client.subprotocol)
    assert chosen == [None, "wsbridge.v1", "chat", "chat", "wsbridge.v1", None]


@pytest.mark.parametrize("name", TRANSPORTS)
def test_coming_back_while_much_is_said(broadcast: Broadcast, name: str) -> None:
    """Somebody who goes and comes all the time, while much is published, has everything once and in order."""
    if name == "aiofastnet":
        pytest.importorskip("aiofastnet")
    script = "i=0; while read -r go; do seq $((i * 1000 + 1)) $((i * 1000 + 1000)); i=$((i + 1)); done"
    server = broadcast("--input=program", "--history=100000", "--history-bytes=10000000", "sh", "-c", script, env=TRANSPORTS[name])
    with ExitStack() as stack:
        publisher = stack.enter_context(server.connect())
        viewer, seen = stack.enter_context(view(server)), []
        viewer.next()
        for visit in range(20):
            publisher.send_text("go")
            seen += viewer.messages(50 * visit + 1)
            viewer = stack.enter_context(view(server, since=left(viewer)))
        seen += viewer.messages(20_000 - len(seen))
        assert viewer.losses == []
        assert seen == [b"%d" % number for number in range(1, 20_001)]
