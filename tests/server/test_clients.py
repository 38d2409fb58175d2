"""WebSocket clients of a channel: access, data with the handshake, protocol violations, and sudden disconnects."""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress

import pytest

from tests.server.conftest import V1, Broadcast, listen, status, view, wait_for_viewers
from tests.support.client import Close, Opcode, encode_fragments, encode_frame, open_stream, request_bytes
from tests.support.proc import pause
from tests.support.server import Server, run, wait_until


@pytest.mark.parametrize(
    ("flags", "origin", "code"),
    [
        (["--sameorigin"], "http://127.0.0.1:{port}", 101),
        (["--sameorigin"], "http://127.0.0.1:1", 403),
        (["--sameorigin"], None, 403),
        (["--origin=good.example"], "https://good.example", 101),
        (["--origin=good.example"], "https://bad.example", 403),
        ([], "null", 101),
    ],
)
def test_origins(broadcast: Broadcast, flags: list[str], origin: str | None, code: int) -> None:
    """The channel uses the same rules for origins as the bridge."""
    server = broadcast("--input=exchange", *flags)
    named = origin.format(port=server.port) if origin else None
    admitted = [("Origin", "https://good.example" if "--origin=good.example" in flags else f"http://127.0.0.1:{server.port}")]
    if code == 101:
        server.connect(origin=named).drop()
    else:
        assert server.refusal(origin=named).status == code
    wait_until(lambda: json.loads(server.get("/status", headers=admitted).body)["viewers"] == 0, "no viewer")


@pytest.mark.parametrize("busy", ["429", "close"])
def test_maxclients(broadcast: Broadcast, busy: str) -> None:
    """--maxclients limits clients of all kinds together. An excess client gets 429, or 1013 with --busy=close, and may connect later."""
    server = broadcast("--input=exchange", "--maxclients=2", f"--busy={busy}")
    with server.connect() as one, listen(server):
        wait_for_viewers(server, 2)
        if busy == "429":
            answer = server.refusal()
            assert answer.status == 429
            server.wait_for_log("--maxclients")
        else:
            for subprotocols in ((), ("other", V1)):
                # A browser that requested a subprotocol and gets none disconnects, and sees no code.
                with server.connect(subprotocols=subprotocols) as late:
                    assert late.subprotocol == (V1 if subprotocols else None)
                    assert late.receive_close() == Close(1013, "no slot is free; try again later")
        one.send_close()
        assert one.receive_close() == Close(1000)
        wait_for_viewers(server, 1)
        with server.connect() as again:
            again.send_text("here")
            assert again.receive_text() == "here"


def test_slots_are_released(broadcast: Broadcast) -> None:
    """However clients disconnect, each slot is released once."""
    server = broadcast("--input=none", "--maxclients=2", "sleep", 1000)
    for _ in range(5):
        with server.connect() as spoke, view(server) as vanished:
            spoke.send_text("x")
            assert spoke.receive_close().code == 1003
            vanished.client.reset()
        wait_for_viewers(server, 0)
        assert server.get("/events", headers=[("Origin", "no uri")]).status == 403
        assert server.refusal(headers=[("Sec-WebSocket-Key", "x")]).status == 400
    with server.connect(), listen(server):
        wait_for_viewers(server, 2)
        assert server.refusal().status == 429


def test_any_number_of_clients(broadcast: Broadcast) -> None:
    """Without --maxclients there is no limit."""
    server = broadcast("--input=exchange")
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(1_200)]
        clients[0].send_text("all")
        assert {client.receive_text() for client in clients} == {"all"}


def test_early_frames(talk: Server) -> None:
    """The server processes frames that arrive in the handshake's segment."""
    early = encode_frame(b"one") + encode_frame(b"two", Opcode.BINARY) + encode_frame(b"ping", Opcode.PING)
    with talk.connect(early=early) as client:
        assert client.receive_text() == "one"
        assert client.receive_binary() == b"two"
    with talk.connect(early=encode_frame(b"", Opcode.CLOSE)) as client:
        assert client.receive_close() == Close(1005)


@pytest.mark.parametrize("is_early", [False, True])
def test_input_of_short_connections_is_bounded(broadcast: Broadcast, is_early: bool) -> None:
    """While the program reads nothing, clients that connect, send and disconnect fill at most about a megabyte, however often they do
    so."""
    server = broadcast("--input=program", "sleep", 1000)
    message, taken = "x" * 100_000, 11
    with server.connect() as first:
        first.send_text(message)
        wait_until(lambda: status(server)["counts"]["messages_in"] == 1, "the message that fills it")
        for number in range(20):
            with server.connect(early=encode_frame(message.encode()) if is_early else b"") as other:
                if not is_early:
                    other.send_text(message)
                if number < taken - 1:
                    wait_until(lambda number=number: status(server)["counts"]["messages_in"] == number + 2, "his message")
                other.drop()
            wait_for_viewers(server, 1)
        assert status(server)["counts"]["messages_in"] == taken


def test_silent_client_while_the_input_is_full(broadcast: Broadcast) -> None:
    """While the program reads nothing, the server still reads from a client that sends no message, so it answers its pings and its
    close."""
    server = broadcast("--input=program", "sleep", 1000)
    with server.connect() as speaker, server.connect() as before:
        speaker.send_text("x" * 200_000)
        wait_until(lambda: status(server)["counts"]["messages_in"] == 1, "the message that fills it")
        with server.connect() as after:
            for client in (before, after):
                assert client.is_open()
                client.send_close()
                assert client.receive_close() == Close(1000)


def test_early_frames_without_an_input(broadcast: Broadcast) -> None:
    """Without an input, the server also closes a client that sends messages with the handshake with 1003."""
    server = broadcast("sleep", 1000)
    with server.connect(early=encode_frame(b"x") * 100) as client:
        assert client.receive_close().code == 1003
    wait_for_viewers(server, 0)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (encode_frame(b"x", masked=False), 1002),
        (encode_frame(b"x", rsv=4), 1002),
        (encode_frame(b"x", 3), 1002),
        (encode_frame(b"x", Opcode.CONTINUATION), 1002),
        (encode_frame(b"\xff"), 1007),
        (encode_frame(b"x" * 200_000), 1009),
        (encode_fragments([b"x" * 60_000] * 2), 1009),
        (encode_frame(b"x" * 126, Opcode.PING), 1002),
    ],
    ids=["unmasked", "reserved", "unknown", "no-beginning", "no-utf8", "long", "long-in-fragments", "long-ping"],
)
def test_bad_frames(talk: Server, frames: bytes, code: int) -> None:
    """The server closes a client that violates the protocol with the matching code. Its earlier messages count; other clients are not
    affected."""
    with talk.connect() as bad, talk.connect() as good:
        wait_for_viewers(talk, 2)
        # A client that is closed while it sends may see a broken connection, over TLS with an error of its own kind.
        with suppress(OSError):
            bad.send_raw(encode_frame(b"before") + frames + encode_frame(b"after"))
        assert good.receive_text() == "before"
        with suppress(OSError):
            bad.receive_close()
        assert bad.close_frame is not None
        assert bad.close_frame.code == code
        wait_for_viewers(talk, 1)
        good.send_text("still here")
        assert good.receive_text() == "still here"


def test_closing(talk: Server) -> None:
    """The server echoes a close code, after the messages before it."""
    with talk.connect() as client, talk.connect() as other:
        wait_for_viewers(talk, 2)
        client.send_close(4000, "bye")
        assert client.receive_close() == Close(4000)
        client.wait_for_end()
        wait_for_viewers(talk, 1)
        assert other.is_open()


@pytest.mark.parametrize("how", ["drop", "reset", "half"])
def test_sudden_disconnect(talk: Server, how: str) -> None:
    """The server notices a client that disconnects without a close frame at once, and keeps nothing of it."""
    with talk.connect() as client, talk.connect() as other:
        wait_for_viewers(talk, 2)
        match how:
            case "drop":
                client.drop()
            case "reset" if "unix" not in talk.where:
                client.reset()
            case _:
                client.stream.end_sending()
        wait_for_viewers(talk, 1)
        other.send_text("x")
        assert other.receive_text() == "x"


def test_disconnect_while_receiving(talk: Server) -> None:
    """Clients that disconnect while they receive messages leave nothing behind. Other clients are not affected."""
    before = talk.descriptors()
    with talk.connect() as publisher:
        for number in range(30):
            with talk.connect(early=encode_frame(b"x" * 50_000, Opcode.BINARY)), view(talk) as vanishing:
                vanishing.client.send_binary(b"%d" % number)
                if "unix" not in talk.where:
                    vanishing.client.reset()
        wait_for_viewers(talk, 1)
        publisher.send_text("still here")
        while publisher.receive().data != b"still here":
            pass
    wait_until(lambda: talk.descriptors() <= before, "all descriptors")


def test_heartbeat(broadcast: Broadcast) -> None:
    """The server disconnects a client that answers no pings, and keeps a client that does."""
    server = broadcast("--input=exchange", "--pingms=500")
    with server.connect(answers_pings=False) as silent, server.connect() as alive:
        wait_for_viewers(server, 2)
        with alive.sending(b""):
            while status(server)["viewers"] == 2:
                alive.send_pong()
                pause(0.02)
        assert status(server)["counts"]["clients_timed_out"] == 1
        assert silent.receive_close() == Close(1006)


def test_paused_client_that_disconnects(broadcast: Broadcast) -> None:
    """The server notices the disconnect of a client whose messages wait for room."""
    server = broadcast("--input=program", "sleep", 1000)
    with server.connect() as client:
        with client.sending(encode_frame(b"x" * 60_000) * 400) as thread:
            wait_until(lambda: status(server)["viewers"] == 1, "the client")
            thread.join(0.5)
            assert thread.is_alive(), "the client is not paused"
        client.drop()
        wait_for_viewers(server, 0)


def test_upgrade_of_a_keep_alive_connection(talk: Server) -> None:
    """A keep-alive connection may become a WebSocket."""
    with open_stream(port=talk.port, **talk.where) as stream:
        stream.send(request_bytes("GET", "/status", [("Host", "h")]))
        stream.read_until(b"}}")
        key = [("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("Sec-WebSocket-Version", "13")]
        stream.send(request_bytes("GET", "/", [("Host", "h"), ("Upgrade", "websocket"), ("Connection", "Upgrade"), *key]))
        assert stream.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        wait_for_viewers(talk, 1)
        stream.send(encode_frame(b"x"))
        assert stream.read_exactly(3) == b"\x81\x01x"


# The command line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--exchange"),
        (["--exchange=x"], "the channel has no source of messages"),
        (["--exchange=x", "--through", "--input=exchange"], "--through needs COMMAND"),
        (["--exchange=x", "--input=program"], "--input=program needs COMMAND"),
        (["--exchange=x", "--input=program", "--through", "--broker=amqp://h/", "cat"], "cannot be used together"),
        (["--exchange=x", "--through", "cat"], "no messages would reach COMMAND"),
        (["--exchange=x", "--input=elsewhere", "cat"], "--input"),
        (["--exchange=x", "--join=all", "cat"], "--join"),
        (["--exchange=x", "--slow=never", "cat"], "--slow"),
        (["--exchange=x", "--restart=no", "cat"], "--restart"),
        (["--exchange=x", "--queue=-1", "cat"], "--queue"),
        (["--exchange=x", "--history=-1", "cat"], "--history"),
        (["--exchange=amq.x", "cat"], "amq"),
        (["--exchange=" + "x" * 256, "cat"], "255"),
        (["--exchange=x", "--dir=.", "cat"], "-dir; it is a flag of bridge"),
        (["--exchange=x", "--replay", "cat"], "--broker"),
        (["--exchange=x", "no-such-program-anywhere"], "no-such-program-anywhere"),
    ],
)
def test_invalid_settings(words: list[str], message: str) -> None:
    """The server refuses invalid settings at its start, and names the flag and the remedy."""
    done = run("broadcast", "--port=0", *words)
    assert done.returncode != 0
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
