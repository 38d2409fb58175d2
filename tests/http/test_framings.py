"""The framings from client to program and back."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.client import Close, Message, Opcode
from tests.support.server import Server, wait_for_exit
from tests.support.site import Serve, assert_sound

TEXTS = ["", "hello", "two\nlines\n", "\r\n", " é \t", "x" * 200_000, '{"type":"close"}', ""]
BINARIES = [b"", b"\x00\x01\xff\n", bytes(range(256)) * 1000]


def served_with(framing: str, *words: str) -> Iterator[Server]:
    with Server(f"--framing={framing}", *words) as server:
        yield server
    assert_sound(server)


@pytest.fixture(scope="module")
def prefixed() -> Iterator[Server]:
    yield from served_with("prefixed", "cat")


@pytest.fixture(scope="module")
def nul() -> Iterator[Server]:
    yield from served_with("nul", "cat")


@pytest.fixture(scope="module")
def records() -> Iterator[Server]:
    """A program that returns the records of messages, and prints all other records on stderr."""
    program = r"""while IFS= read -r line; do
                      case $line in *'"type":"message"'*) printf '%s\n' "$line" ;; *) printf '%s\n' "$line" >&2 ;; esac
                  done"""
    yield from served_with("json", "sh", "-c", program)


def test_prefixed_keeps_boundaries_and_kinds(prefixed: Server) -> None:
    """With the framing prefixed, boundaries and kinds survive in both directions."""
    with prefixed.connect() as client:
        sent = [Message(Opcode.TEXT, text.encode()) for text in TEXTS] + [Message(Opcode.BINARY, data) for data in BINARIES]
        for message in (*sent, *reversed(sent)):
            client.send_frame(message.data, message.kind)
            assert client.receive() == message
        client.send_fragments([b"in ", b"three ", b"parts"])
        assert client.receive_text() == "in three parts"


def test_prefixed_bytes(serve: Serve) -> None:
    """The length covers only the payload, in 4 bytes; the kind is the opcode, in one byte."""
    server = serve("--framing=prefixed", "sh", "-c", r"""printf '\0\0\0\3\1abc\0\0\0\2\2\0\377'; head -c 8 | od -An -tx1 >&2""")
    with server.connect() as client:
        assert client.receive() == Message(Opcode.TEXT, b"abc")
        assert client.receive() == Message(Opcode.BINARY, b"\x00\xff")
        client.send_text("xyz")
        server.wait_for_log("00 00 00 03 01 78 79 7a")


def test_prefixed_end_in_a_message(serve: Serve) -> None:
    """A stream that ends within a message is an error: the server never delivers a partial message."""
    server = serve("--framing=prefixed", "sh", "-c", r"""printf '\0\0\0\1\1a\0\0\0\5\1abc'""")
    with server.connect() as client:
        messages, close = client.receive_until_close()
        assert [message.data for message in messages] == [b"a"]
        assert close.code == 1011


def test_nul_keeps_lines_together(nul: Server) -> None:
    """With the framing nul, a message ends with NUL and may contain newlines, in both directions."""
    with nul.connect() as client:
        for text in TEXTS:
            client.send_text(text)
            assert client.receive_text() == text
        client.send_binary(b"as it ")
        client.send_text("is")
        assert client.receive_text() == "as it is"


def test_nul_of_a_program(serve: Serve, tmp_path: Path) -> None:
    """The output of programs for `xargs -0` becomes one message for each name."""
    for name in ("a b", "c\nd", "é"):
        (tmp_path / name).touch()
    server = serve("--framing=nul", "find", str(tmp_path), "-type", "f", "-print0")
    with server.connect() as client:
        assert sorted(client.receive_lines()) == sorted(str(tmp_path / name) for name in ("a b", "c\nd", "é"))


def test_records_of_messages(records: Server) -> None:
    """With the framing json, a message is a record in both directions: text unchanged, binary in base64."""
    with records.connect() as client:
        for text in TEXTS:
            client.send_text(text)
            assert client.receive_text() == text
        for data in BINARIES:
            client.send_binary(data)
            assert client.receive_binary() == data


def told(server: Server, kind: str, path: str) -> dict[str, object]:
    """Return the record of a kind that the program at this path received."""
    found = server.wait_for_log(rf"url:'[^']*{path}[^']*'.*\| (\{{\"type\":\"{kind}\".*)$")
    return dict(json.loads(found[1]))


def test_opening_record(records: Server) -> None:
    """The first record describes the request: its id, address, headers and subprotocol, as in the log and the variables."""
    with records.connect("/opening/a%20b?x=1", headers=[("Host", "example.com"), ("X-Two", "1"), ("X-Two", "2")]) as client:
        opening = told(records, "open", "/opening/")
        port = client.stream.sock.getsockname()[1]
        assert opening["path"] == "/opening/a b"
        assert opening["query"] == "x=1"
        assert opening["url"] == "http://example.com/opening/a%20b?x=1"
        assert opening["remote"] == {"address": "127.0.0.1", "port": str(port)}
        assert [pair for pair in opening["headers"] if pair[0].lower() == "x-two"] == [["X-Two", "1"], ["X-Two", "2"]]  # type: ignore[attr-defined]
        records.wait_for_log(rf"url:'[^']*/opening/[^']*' id:'{opening['id']}'")


@pytest.mark.parametrize(
    ("path", "sent", "record"),
    [
        ("/normal", (1000, "bye"), {"code": 1000, "reason": "bye"}),
        ("/own", (4321, ""), {"code": 4321, "reason": ""}),
        ("/none", (None, ""), {"code": 1005, "reason": ""}),
        ("/gone", None, {"code": 1006}),
    ],
)
def test_closing_record(records: Server, path: str, sent: tuple[int | None, str] | None, record: dict[str, object]) -> None:
    """The last record reports how the client left: 1005 stands for no code, 1006 for no close frame."""
    with records.connect(path) as client:
        told(records, "open", path)
        if sent is None:
            client.drop()
        else:
            client.send_close(*sent)
        closing = told(records, "close", path)
        assert {name: closing[name] for name in record} == record


def test_program_closes(serve: Serve) -> None:
    """A close record ends the session with its code and reason; the server ignores later output."""
    script = r"""read opening; read line; echo '{"type":"message","text":"last"}'; echo '{"type":"close","code":4007,"reason":"süß"}'
                 echo '{"type":"message","text":"late"}'; echo $$ >&2; cat >&2"""
    server = serve("--framing=json", "--closems=60000", "sh", "-c", script)
    with server.connect() as client:
        client.send_text("end it")
        messages, close = client.receive_until_close()
        assert [message.data for message in messages] == [b"last"]
        assert close == Close(4007, "süß")
        client.wait_for_end()
    pid = int(server.wait_for_log(r"stderr .*\| (\d+)$")[1])
    wait_for_exit(pid)


@pytest.mark.parametrize("record", ['{"type":"close","code":1006}', '{"type":"close","code":7}', "nonsense", '{"type":"message"}', "[]"])
def test_invalid_record(serve: Serve, record: str) -> None:
    """An invalid record, or one with an invalid close code, ends the session with 1011; the log gives the line and the reason."""
    server = serve("--framing=json", "sh", "-c", """echo '{"type":"message","text":"first"}'; echo "$1"; exec cat""", "sh", record)
    with server.connect() as client:
        messages, close = client.receive_until_close()
        assert [message.data for message in messages] == [b"first"]
        assert close.code == 1011
    server.wait_for_log(r"\| ERROR .*line 2")


def test_shutdown_record(serve: Serve, tmp_path: Path) -> None:
    """A program with the framing json receives notice of a shutdown."""
    script = """read opening; echo '{"type":"message","text":"ready"}'; cat >"$0" """
    server = serve("--framing=json", "--closems=60000", "sh", "-c", script, str(tmp_path / "told"))
    with server.connect() as client:
        assert client.receive_text() == "ready"
        server.send_signal(signal.SIGTERM)
        assert client.receive_close().code == 1001
        assert server.wait() == 0
    assert json.loads((tmp_path / "told").read_text())["code"] == 1001
