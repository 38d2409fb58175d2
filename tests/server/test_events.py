"""The channel as an event stream: what a browser's EventSource reads, and curl."""

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
    """Each message is an event with its position as id; a binary one is in base64, an empty one is one all the same."""
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
    """A message of several lines is one event; whatever ends its lines arrives as LF, and nothing in it can be a field of its own."""
    with listen(talk) as listener, talk.connect() as publisher:
        wait_for_viewers(talk, 2)
        publish(publisher, "a\nb\r\nc\rd\n", "\n\n", "id: x\n\nevent: lost\ndata: 9", ": no comment", "\ufeffno mark")
        assert listener.data(5) == ["a\nb\nc\nd\n", "\n\n", "id: x\n\nevent: lost\ndata: 9", ": no comment", "\ufeffno mark"]


def test_answer(talk: Server) -> None:
    """The answer is one that nothing on the way keeps or holds back, and that ends with its connection."""
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
def test_asking(broadcast: Broadcast, version: str, path: str, headers: list[tuple[str, str]]) -> None:
    """An event stream is what is asked for at /events, or with its type in Accept at any path."""
    server = broadcast("--input=exchange")
    with listen(server, path, headers=headers, version=version) as listener, server.connect() as publisher:
        publish(publisher, "one")
        assert listener.data() == ["one"]


@pytest.mark.parametrize("headers", [[], [("Accept", "*/*")], [("Accept", "text/html, application/xml;q=0.9")]])
def test_not_asking(talk: Server, headers: list[tuple[str, str]]) -> None:
    """Whoever does not ask for it gets the page."""
    assert talk.get("/", headers=headers).value("Content-Type") == "text/html; charset=utf-8"


def test_options(talk: Server) -> None:
    """OPTIONS says that an event stream is asked for with GET."""
    for headers in ([], SSE):
        answer = talk.request("OPTIONS", "/events", headers=headers)
        assert (answer.status, answer.value("Allow")) == (204, "GET, OPTIONS")


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT"])
@pytest.mark.parametrize("headers", [[], SSE])
def test_other_methods(talk: Server, method: str, headers: list[tuple[str, str]]) -> None:
    """An event stream is asked for with GET; any other method is answered 405 at once, and the server is none the worse."""
    answer = talk.request(method, "/events", headers=headers, body=b"x" if method in ("POST", "PUT") else b"")
    assert (answer.status, answer.value("Allow")) == (405, "GET, OPTIONS")
    assert status(talk)["viewers"] == 0


@pytest.mark.parametrize("way", ["Last-Event-ID", "since", "both"])
def test_resuming(talk: Server, way: str) -> None:
    """Who comes back with the last id gets exactly what he missed; the header, which a browser sends by itself, is the newer word."""
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


def test_resuming_before_any_message(talk: Server) -> None:
    """Also who has had no message yet has an id to come back with."""
    with talk.connect() as publisher:
        with listen(talk) as listener, listen(talk) as other:
            wait_for_viewers(talk, 3)
            publish(publisher, "one")
            assert other.data() == ["one"]
            retry, block = (listener.stream.read_until(b"\n\n").decode() for _ in range(2))
        # When to come back differs, so that those who lose a server do not all come back at once.
        assert re.fullmatch(r"retry: \d{3,4}\n\n", retry)
        assert block.startswith("id: ")
        with listen(talk, headers=[("Last-Event-ID", block[4:-2])]) as again:
            assert again.data() == ["one"]


def test_lost(broadcast: Broadcast) -> None:
    """What is lost to one who comes back is an event `lost` before the next message, with how many, or `?` where nobody knows."""
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


def test_joining(broadcast: Broadcast) -> None:
    """--join holds for event streams, an empty Last-Event-ID is none."""
    server = broadcast("--input=exchange", "--join=last")
    with server.connect() as publisher:
        publish(publisher, "one", "two")
        for headers in ([], [("Last-Event-ID", "")]):
            with listen(server, headers=headers) as listener:
                assert listener.data() == ["two"]


def test_comments(broadcast: Broadcast) -> None:
    """A comment now and then keeps an idle stream alive, as often as --pingms says."""
    server = broadcast("--pingms=50", "sh", "-c", "while sleep 0.5; do echo one; done")
    with listen(server) as listener:
        listener.stream.read_until(b"\n\n:\n\n")
        listener.stream.read_until(b":\n\n")
        assert listener.data() == ["one"]


def test_curl(broadcast: Broadcast, certificates: Certificates) -> None:
    """`curl -N` shows each message as it comes, over TLS as well."""
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


# Who may


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
    """The rules for origins hold for event streams and /status; to its own origin a browser names none, but says that it is the same."""
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
    """The page's own origin is the same, with its port; another port is not."""
    server = broadcast("--input=exchange", "--sameorigin")
    with listen(server, headers=[("Origin", f"http://127.0.0.1:{server.port}")]):
        pass
    assert server.get("/events", headers=[("Origin", "http://127.0.0.1:1")]).status == 403


def test_pages_of_elsewhere_may_read(broadcast: Broadcast) -> None:
    """A page whose origin may connect may read the stream, also when that is not the server's own; without an origin nothing is said."""
    server = broadcast("--input=exchange", "--origin=good.example")
    with listen(server, headers=[("Origin", "https://good.example")]) as listener:
        assert listener.head.value("Access-Control-Allow-Origin") == "https://good.example"
        assert "Origin" in (listener.head.value("Vary") or "")
    answer = server.get("/events", headers=[("Origin", "https://bad.example")])
    assert answer.value("Access-Control-Allow-Origin") is None


def test_header_of_ones_own(broadcast: Broadcast) -> None:
    """Who says by --header who may read has said it."""
    server = broadcast("--input=exchange", "--header-http=Access-Control-Allow-Origin: *")
    with listen(server, headers=[("Origin", "https://a.example")]) as listener:
        assert listener.head.values("Access-Control-Allow-Origin") == ["*"]


def test_no_slot(broadcast: Broadcast) -> None:
    """An event stream for which there is no slot is told to come again, and the log says why; a slot that is free again is taken."""
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
    """A browser's EventSource would end for good at any status but 200: it is told to come back, and the connection ends."""
    server = broadcast("--input=exchange", "--maxclients=1")
    with listen(server):
        answer = server.get("/events", headers=[("Accept", "text/event-stream")])
        assert answer.status == 200
        assert re.fullmatch(rb"retry: [2-8]\d{3}\n: no slot is free \(--maxclients\)\n\n", answer.body)
        assert answer.value("Content-Type") == "text/event-stream; charset=utf-8"
        assert status(server)["counts"]["refused_503"] == 1
        elsewhere = [("Accept", "text/event-stream"), ("Origin", "https://a.example")]
        # Without it, a page of elsewhere could not read this, and its EventSource would end all the same.
        assert server.get("/events", headers=elsewhere).values("Access-Control-Allow-Origin") == ["https://a.example"]


def test_refusals_are_logged(broadcast: Broadcast) -> None:
    """Whoever is turned away from an event stream is in the log, as from a WebSocket."""
    server = broadcast("--input=exchange", "--sameorigin", "--maxclients=1")
    assert server.get("/events", headers=[CROSS]).status == 403
    with listen(server, headers=[SAME]):
        assert server.get("/events", headers=[SAME]).status == 503
    server.wait_for_log("--maxclients", 2)
    server.wait_for_log("Same origin", 2)


def test_early_words_do_not_matter(talk: Server) -> None:
    """What a client sends behind its request has no meaning, be it another: it is passed over."""
    with open_stream(port=talk.port, **talk.where) as stream, talk.connect() as publisher:
        stream.send(request_bytes("GET", "/events", [("Host", "h")]) + request_bytes("GET", "/status", [("Host", "h")]))
        assert b" 200 OK" in stream.read_until(b"\r\n\r\n")
        stream.send(encode_frame(b"x") * 1000)
        publish(publisher, "one")
        stream.read_until(b"data: one\n\n")


def test_body(talk: Server) -> None:
    """Nor does the body of a request."""
    with open_stream(port=talk.port, **talk.where) as stream, talk.connect() as publisher:
        stream.send(request_bytes("GET", "/events", [("Host", "h"), ("Content-Length", "1000000")], b"x" * 1000))
        assert b" 200 OK" in stream.read_until(b"\r\n\r\n")
        stream.send(b"y" * 10_000)
        publish(publisher, "one")
        stream.read_until(b"data: one\n\n")


def test_second_request_of_a_connection(talk: Server) -> None:
    """A connection that served something else before may become a stream."""
    with open_stream(port=talk.port, **talk.where) as stream, talk.connect() as publisher:
        stream.send(request_bytes("GET", "/status", [("Host", "h")]))
        assert read_response(stream).status == 200
        stream.send(request_bytes("GET", "/events", [("Host", "h")]))
        stream.read_until(b"\r\n\r\n")
        publish(publisher, "one")
        stream.read_until(b"data: one\n\n")


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_leaving(talk: Server, how: str) -> None:
    """A client that goes, in whatever way, is noticed at once; one that closes its half has gone."""
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


def test_leaving_while_much_is_said(talk: Server) -> None:
    """Clients that go in the middle of what they are sent leave nothing behind."""
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
