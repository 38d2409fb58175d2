"""Positions: a client with a position gets exactly the messages that it missed, or a notice of the loss. Other clients begin where
--join says."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.server.conftest import Broadcast, Record, Viewer, split, status, view, wait_for_viewers
from tests.support.client import Client
from tests.support.proc import TRANSPORTS
from tests.support.server import Server


def publish(publisher: Client, *texts: str) -> None:
    """Publish as a client, and wait until the channel has the messages."""
    for text in texts:
        publisher.send_text(text)
        assert publisher.receive_text() == text


def left(viewer: Viewer) -> str:
    """Disconnect a client and return its position."""
    viewer.client.drop()
    assert viewer.position is not None
    return viewer.position


def test_greeting(talk: Server) -> None:
    """A client gets its position as soon as it joins, so that it can reconnect before the first message."""
    with view(talk) as viewer, talk.connect() as publisher:
        assert viewer.next() == Record("at", (viewer.position or "").encode())
        here = left(viewer)
        publish(publisher, "one")
        with view(talk, since=here) as again:
            assert [again.next() for _ in range(2)] == [Record("at", here.encode()), Record("message", b"one")]


def test_resume(talk: Server) -> None:
    """A client that reconnects gets exactly the messages that it missed, then the later messages, and nothing is lost or repeated."""
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


def test_same_position_twice(talk: Server) -> None:
    """A position may be used again, also by another client."""
    with view(talk) as viewer, talk.connect() as publisher:
        viewer.next()
        publish(publisher, "a", "b")
        for _ in range(2):
            with view(talk, since=viewer.position) as again:
                assert again.messages(2) == [b"a", b"b"]


def test_lost(broadcast: Broadcast) -> None:
    """A client that was away too long gets the number of lost messages before the next message."""
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
def test_unknown_position(broadcast: Broadcast, since: str) -> None:
    """A client with an unknown position gets a notice of an unknown loss, then all messages that the channel keeps."""
    server = broadcast("--input=exchange")
    with server.connect() as publisher:
        publish(publisher, "one", "two")
        viewer = Viewer(server.connect(f"/?since={since}".encode().decode("latin-1"), subprotocols=("wsbridge.v1",)))
        with viewer:
            assert viewer.next() == Record("lost", b"?")
            assert viewer.messages(2) == [b"one", b"two"]


def test_position_of_another_run(broadcast: Broadcast) -> None:
    """A restarted server does not accept a position of the previous run, although both count from 0."""
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
    """A position after the end of the channel is unknown."""
    mark, number = split(status(talk)["position"])
    with Viewer(talk.connect(f"/?since={mark}-{number + 1}", subprotocols=("wsbridge.v1",))) as viewer:
        assert viewer.next() == Record("lost", b"?")


@pytest.mark.parametrize(("how", "first"), [("history", ["1", "2", "3"]), ("last", ["3"]), ("none", [])])
def test_join(broadcast: Broadcast, how: str, first: list[str]) -> None:
    """`--join` selects the first messages for a client without a position. A plain client gets messages and no records."""
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


def test_join_of_an_empty_channel(broadcast: Broadcast) -> None:
    """An empty channel has no history and no last message, and this is no loss."""
    for how in ("history", "last"):
        server = broadcast("--input=exchange", f"--join={how}")
        with view(server) as viewer, server.connect() as publisher:
            assert viewer.next().what == "at"
            publish(publisher, "first")
            assert viewer.next() == Record("message", b"first")


def test_plain_client_with_a_position(talk: Server) -> None:
    """A client without the subprotocol may also bring a position."""
    with view(talk) as viewer, talk.connect() as publisher:
        viewer.next()
        here = viewer.position
        publish(publisher, "one", "two")
        with talk.connect(f"/?since={here}") as plain:
            assert [plain.receive_text() for _ in range(2)] == ["one", "two"]


def test_subprotocols(broadcast: Broadcast) -> None:
    """The server accepts wsbridge.v1 if a client offers it, and the names of --subprotocol. It chooses the client's first."""
    server = broadcast("--input=exchange", "--subprotocol=chat")
    offers = [(), ("wsbridge.v1",), ("chat",), ("chat", "wsbridge.v1"), ("wsbridge.v1", "chat"), ("other",)]
    chosen = []
    for offer in offers:
        with server.connect(subprotocols=offer) as client:
            chosen.append(client.subprotocol)
    assert chosen == [None, "wsbridge.v1", "chat", "chat", "wsbridge.v1", None]


@pytest.mark.parametrize("name", TRANSPORTS)
def test_resume_during_a_flood(broadcast: Broadcast, name: str) -> None:
    """A client that reconnects again and again during a flood receives every message once and in order."""
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
