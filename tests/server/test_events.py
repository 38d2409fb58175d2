"""The channel as an event stream, for a browser's EventSource and for curl."""

from __future__ import annotations

import re
import subprocess
from base64 import b64decode

import pytest

from tests.server.conftest import Broadcast, Event, listen, split, status, view, wait_for_viewers
from tests.support.client import Client, Opcode, encode_frame, open_stream, read_response, request_bytes
from tests.support.server import Server, wait_until
from tests.support.site import Certificates

SSE = [("Accept", "text/event-stream")]


def publish(publisher: Client, *texts: str) -> None:
    for text in texts:
        publisher.send_text(text)
        assert publisher.receive_text() == text


def test_messages(talk: Server) -> None:
    """Each message is an event with its position as id. A binary message is in base64; an empty message is an event too."""
    with listen(talk) as listener, view(talk) as viewer:
        wait_for_viewers(talk, 2)
        viewer.next()
        positions = []
        for payload, kind in ((b"one", Opcode.TEXT), (b"\xff\0", Opcode.BINARY), (b"", Opcode.TEXT), ("é".encode(), Opcode.TEXT)):
            viewer.client.send_frame(payload, kind)
            assert viewer.message() == payload
            positions.append(viewer.position or "")
        events = [listener.next() for _ in range(4)]
        assert [event.position for event in events] == positions
        assert [event.kind for event in events] == ["message", "binary", "message", "message"]
        assert b64decode(events[1].data) == b"\xff\0"
        assert [events[index].data for index in (0, 2, 3)] == ["one", "", "é"]


def test_lines_of_a_message(talk: Server) -> None:
    """A message of several lines is one event. Its line ends arrive as LF, and its text cannot create a field."""
    with listen(talk) as listener, talk.connect() as publisher:
        wait_for_viewers(talk, 2)
        publish(publisher, "a\nb\r\nc\rd\n", "\n\n", "id: x\n\nevent: lost\ndata: 9", ": no comment", "\ufeffno mark")
        assert listener.data(5) == ["a\nb\nc\nd\n", "\n\n", "id: x\n\nevent: lost\ndata: 9", ": no comment", "\ufeffno mark"]


def test_answer(talk: Server) -> None:
    """The response has headers that prevent caching and buffering, and it ends with its connection."""
    with listen(talk) as listener:
        names = ("Content-Type", "Cache-Control", "X-Accel-Buffering", "Connection", "Content-Length", "Transfer-Encoding")
        values = [listener.head.value(name) for name in names]
        assert values == ["text/event-stream", "no-cache, no-transform", "no", "close", None, None]


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/events", []),
        ("/events?x=y", [("Accept", "text/html")]),
        ("/", SSE),
        ("/any/path", [("Accept", "text/html, Text/Event-Stream;q=0.9")]),
    ],
)
def test_request(broadcast: Broadcast, version: str, path: str, headers: list[tuple[str, str]]) -> None:
    """A request for /events, or for any path with the type in Accept, gets an event stream."""
    server = broadcast("--input=exchange")
    with listen(server, path, headers=headers, version=version) as listener, server.connect() as publisher:
        publish(publisher, "one")
        assert listener.data() == ["one"]


@pytest.mark.parametrize("headers", [[], [("Accept", "*/*")], [("Accept", "text/html, application/xml;q=0.9")]])
def test_other_requests(talk: Server, headers: list[tuple[str, str]]) -> None:
    """Any other request gets the page."""
    assert talk.get("/", headers=headers).value("Content-Type") == "text/html; charset=utf-8"


def test_options(talk: Server) -> None:
    """OPTIONS lists GET for an event stream."""
    for headers in ([], SSE):
        answer = talk.request("OPTIONS", "/events", headers=headers)
        assert (answer.status, answer.value("Allow")) == (204, "GET, OPTIONS")


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT"])
@pytest.mark.parametrize("headers", [[], SSE])
def test_other_methods(talk: Server, method: str, headers: list[tuple[str, str]]) -> None:
    """The server answers any method but GET with 405 at once, and stays healthy."""
    answer = talk.request(method, "/events", headers=headers, body=b"x" if method in ("POST", "PUT") else b"")
    assert (answer.status, answer.value("Allow")) == (405, "GET, OPTIONS")
    assert status(talk)["viewers"] == 0


@pytest.mark.parametrize("way", ["Last-Event-ID", "since", "both"])
def test_resume(talk: Server, way: str) -> None:
    """A client that reconnects with its last id gets exactly the messages that it missed. The header takes precedence, since a browser
    updates it."""
    with talk.connect() as publisher:
        wait_for_viewers(talk, 1)
        with listen(talk) as listener:
            wait_for_viewers(talk, 2)
            publish(publisher, "one", "two")
            first, second = listener.next(), listener.next()
        publish(publisher, "three")
        headers = [("Last-Event-ID", second.position)] if way != "since" else []
        path = "/events" + {"Last-Event-ID": "", "since": f"?since={second.position}", "both": f"?since={first.position}"}[way]
        with listen(talk, path, headers=headers) as again:
            publish(publisher, "four")
            assert again.data(2) == ["three", "four"]


def test_resume_before_any_message(talk: Server) -> None:
    """A client that has received no message yet also has an id to reconnect with."""
    with talk.connect() as publisher:
        with listen(talk) as listener, listen(talk) as other:
            wait_for_viewers(talk, 3)
            publish(publisher, "one")
            assert other.data() == ["one"]
            retry, block = (listener.stream.read_until(b"\n\n").decode() for _ in range(2))
        # The retry time varies, so that the clients of a server do not all reconnect at the same moment.
        assert re.fullmatch(r"retry: \d{3,4}\n\n", retry)
        assert block.startswith("id: ")
        with listen(talk, headers=[("Last-Event-ID", block[4:-2])]) as again:
            assert again.data() == ["one"]


def test_lost(broadcast: Broadcast) -> None:
    """Before the next message, a reconnecting client gets an event `lost` with the number of lost messages, or `?` if it is unknown."""
    server = broadcast("--input=exchange", "--history=2", "--queue=0")
    with server.connect() as publisher:
        publish(publisher, *"0123456")
        mark, end = split(status(server)["position"])
        with listen(server, headers=[("Last-Event-ID", f"{mark}-1")]) as listener:
            assert listener.next() == Event("lost", "4", f"{mark}-{end - 2}")
            assert listener.data(2) == ["5", "6"]
        with listen(server, headers=[("Last-Event-ID", "of-elsewhere-1")]) as listener:
            assert listener.next() == Event("lost", "?", f"{mark}-{end - 2}")
            assert listener.data(2) == ["5", "6"]


def test_join(broadcast: Broadcast) -> None:
    """--join applies to event streams; an empty Last-Event-ID is no position."""
    server = broadcast("--input=exchange", "--join=last")
    with server.connect() as publisher:
        publish(publisher, "one", "two")
        for headers in ([], [("Last-Event-ID", "")]):
            with listen(server, headers=headers) as listener:
                assert listener.data() == ["two"]


def test_comments(broadcast: Broadcast) -> None:
    """A comment at the interval of --pingms keeps an idle stream alive."""
    server = broadcast("--pingms=50", "sh", "-c", "while sleep 0.5; do echo one; done")
    with listen(server) as listener:
        listener.stream.read_until(b"\n\n:\n\n")
        listener.stream.read_until(b":\n\n")
        assert listener.data() == ["one"]


def test_curl(broadcast: Broadcast, certificates: Certificates) -> None:
    """`curl -N` prints each message as it arrives, over TLS as well."""
    server = broadcast("--input=exchange", *certificates.server_flags, tls=certificates.context())
    url = f"https://localhost:{server.port}/events"
    words = ["curl", "-sSN", "--resolve", f"localhost:{server.port}:127.0.0.1", "--cacert", f"{certificates.folder}/ca.pem", url]
    curl = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert curl.stdout is not None
    try:
        with server.connect() as publisher:
            wait_for_viewers(server, 2)
            for text in ("one", "two"):
                publish(publisher, text)
                while (line := curl.stdout.readline()) != b"data: %b\n" % text.encode():
                    assert line, "curl has ended"
    finally:
        curl.kill()
        curl.wait()
        curl.stdout.close()
    wait_for_viewers(server, 0)


# Access


SAME, CROSS = ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")


@pytest.mark.parametrize(
    ("flags", "headers", "code"),
    [
        ([], [], 200),
        ([], [("Origin", "http://anywhere")], 200),
        (["--origin=good.example"], [("Origin", "https://good.example")], 200),
        (["--origin=good.example"], [("Origin", "https://bad.example")], 403),
        (["--origin=good.example"], [], 403),
        (["--origin=127.0.0.1"], [SAME], 200),
        (["--sameorigin"], [SAME], 200),
        (["--sameorigin"], [CROSS], 403),
        (["--sameorigin"], [("Sec-Fetch-Site", "same-site")], 403),
        (["--sameorigin"], [], 403),
        (["--sameorigin"], [("Origin", "http://bad.example"), SAME], 403),
        (["--sameorigin"], [("Origin", "null")], 403),
        (["--origin=127.0.0.1"], [("Referer", "http://127.0.0.1/page.html?x")], 200),
        (["--origin=127.0.0.1"], [("Referer", "http://bad.example/")], 403),
        (["--origin=127.0.0.1"], [("Referer", "http://127.0.0.1/page.html"), CROSS], 403),
        (["--origin=127.0.0.1"], [("Referer", "http://127.0.0.1/page.html"), ("Origin", "http://bad.example")], 403),
    ],
)
def test_origins(broadcast: Broadcast, flags: list[str], headers: list[tuple[str, str]], code: int) -> None:
    """The rules for origins apply to event streams and /status. For its own origin, a browser sends no Origin but a same-origin header."""
    server = broadcast("--input=exchange", *flags)
    if code == 200:
        with listen(server, headers=headers):
            pass
        server.wait_for_log("DISCONNECT")
    else:
        assert server.get("/events", headers=headers).status == code
        assert "| CONNECT" not in server.log
    assert server.get("/status", headers=headers).status == code
    assert server.get("/wsbridge.js", headers=headers).status == 200


def test_same_origin_by_name(broadcast: Broadcast) -> None:
    """The page's own origin includes its port; another port is another origin."""
    server = broadcast("--input=exchange", "--sameorigin")
    with listen(server, headers=[("Origin", f"http://127.0.0.1:{server.port}")]):
        pass
    assert server.get("/events", headers=[("Origin", "http://127.0.0.1:1")]).status == 403


def test_cors_for_permitted_origins(broadcast: Broadcast) -> None:
    """A page with a permitted origin may read the stream, also across origins. Without an origin, the response has no CORS header."""
    server = broadcast("--input=exchange", "--origin=good.example")
    with listen(server, headers=[("Origin", "https://good.example")]) as listener:
        assert listener.head.value("Access-Control-Allow-Origin") == "https://good.example"
        assert "Origin" in (listener.head.value("Vary") or "")
    answer = server.get("/events", headers=[("Origin", "https://bad.example")])
    assert answer.value("Access-Control-Allow-Origin") is None


def test_cors_header_of_the_user(broadcast: Broadcast) -> None:
    """A CORS header from --header replaces the server's header."""
    server = broadcast("--input=exchange", "--header-http=Access-Control-Allow-Origin: *")
    with listen(server, headers=[("Origin", "https://a.example")]) as listener:
        assert listener.head.values("Access-Control-Allow-Origin") == ["*"]


def test_no_slot(broadcast: Broadcast) -> None:
    """If no slot is free, the server asks an event stream's client to retry later, and logs the reason. A free slot is used again."""
    server = broadcast("--input=exchange", "--maxclients=1")
    with listen(server):
        answer = server.get("/events")
        assert answer.status == 503
        assert answer.value("Retry-After") == "5"
        assert status(server)["counts"]["refused_503"] == 1
    wait_for_viewers(server, 0)
    with listen(server):
        assert status(server)["viewers"] == 1


def test_no_slot_for_a_browser(broadcast: Broadcast) -> None:
    """A browser's EventSource stops at any status but 200, so the server sends 200 with a retry time and closes the connection."""
    server = broadcast("--input=exchange", "--maxclients=1")
    with listen(server):
        answer = server.get("/events", headers=[("Accept", "text/event-stream")])
        assert answer.status == 200
        assert re.fullmatch(rb"retry: [2-8]\d{3}\n: no slot is free \(--maxclients\)\n\n", answer.body)
        assert answer.value("Content-Type") == "text/event-stream; charset=utf-8"
        assert status(server)["counts"]["refused_503"] == 1
        elsewhere = [("Accept", "text/event-stream"), ("Origin", "https://a.example")]
        # Without this header, a page of another origin could not read the response, and its EventSource would stop as well.
        assert server.get("/events", headers=elsewhere).values("Access-Control-Allow-Origin") == ["https://a.example"]


def test_refusals_are_logged(broadcast: Broadcast) -> None:
    """The log has each refused event stream, as it has each refused WebSocket."""
    server = broadcast("--input=exchange", "--sameorigin", "--maxclients=1")
    assert server.get("/events", headers=[CROSS]).status == 403
    with listen(server, headers=[SAME]):
        assert server.get("/events", headers=[SAME]).status == 503
    server.wait_for_log("--maxclients", 2)
    server.wait_for_log("Same origin", 2)


def test_data_after_the_request_is_ignored(talk: Server) -> None:
    """The server ignores data that a client sends after its request, even another request."""
    with open_stream(port=talk.port, **talk.where) as stream, talk.connect() as publisher:
        stream.send(request_bytes("GET", "/events", [("Host", "h")]) + request_bytes("GET", "/status", [("Host", "h")]))
        assert b" 200 OK" in stream.read_until(b"\r\n\r\n")
        stream.send(encode_frame(b"x") * 1000)
        publish(publisher, "one")
        stream.read_until(b"data: one\n\n")


def test_body_is_ignored(talk: Server) -> None:
    """The server also ignores the body of a request."""
    with open_stream(port=talk.port, **talk.where) as stream, talk.connect() as publisher:
        stream.send(request_bytes("GET", "/events", [("Host", "h"), ("Content-Length", "1000000")], b"x" * 1000))
        assert b" 200 OK" in stream.read_until(b"\r\n\r\n")
        stream.send(b"y" * 10_000)
        publish(publisher, "one")
        stream.read_until(b"data: one\n\n")


def test_second_request_of_a_connection(talk: Server) -> None:
    """A connection that has served other requests may become a stream."""
    with open_stream(port=talk.port, **talk.where) as stream, talk.connect() as publisher:
        stream.send(request_bytes("GET", "/status", [("Host", "h")]))
        assert read_response(stream).status == 200
        stream.send(request_bytes("GET", "/events", [("Host", "h")]))
        stream.read_until(b"\r\n\r\n")
        publish(publisher, "one")
        stream.read_until(b"data: one\n\n")


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_disconnect(talk: Server, how: str) -> None:
    """The server notices every kind of disconnect at once; a half-close counts as a disconnect."""
    with listen(talk) as listener, talk.connect() as other:
        wait_for_viewers(talk, 2)
        match how:
            case "close":
                listener.stream.close()
            case "reset" if "unix" not in talk.where:
                listener.stream.reset()
            case _:
                listener.stream.end_sending()
        wait_for_viewers(talk, 1)
        publish(other, "one")


def test_disconnect_while_receiving(talk: Server) -> None:
    """Clients that disconnect while they receive messages leave nothing behind."""
    before = talk.descriptors()
    with talk.connect() as publisher:
        wait_for_viewers(talk, 1)
        for _ in range(20):
            with listen(talk), listen(talk):
                for _ in range(5):
                    publisher.send_binary(b"x" * 50_000)
                    publisher.receive_binary()
        wait_for_viewers(talk, 1)
    wait_until(lambda: talk.descriptors() <= before, "all descriptors")
