"""The framing `json`: one JSON object on each line, in both directions."""

from __future__ import annotations

import json

import pytest

from tests.support.decoding import Outcome, decode
from wsbridge.errors import MessageTooLong, ProgramError
from wsbridge.flow import Batch, End, Kind
from wsbridge.framing import make_framing

LIMIT = 200
A = b'{"type":"message","text":"a"}\n'

records, _ = make_framing("json", limit=LIMIT)


@pytest.mark.parametrize(
    ("printed", "messages"),
    [
        (A, [(Kind.TEXT, b"a")]),
        (A + A, [(Kind.TEXT, b"a")] * 2),
        (b'{"type":"message","text":""}\n', [(Kind.TEXT, b"")]),
        (b'{"type":"message","base64":"AP8="}\n', [(Kind.BINARY, b"\x00\xff")]),
        (b'{"type":"message","base64":""}\n', [(Kind.BINARY, b"")]),
        (b'{"text":"a","type":"message"}\r\n', [(Kind.TEXT, b"a")]),
        (b' { "type" : "message" , "text" : "a" } \n', [(Kind.TEXT, b"a")]),
        (b'{"type":"message","text":"\\u00e9\\n\\u0000\\ud83d\\ude00"}\n', [(Kind.TEXT, "é\n\0😀".encode())]),
        ('{"type":"message","text":"é😀"}\n'.encode(), [(Kind.TEXT, "é😀".encode())]),
        (b"\n\r\n  \n" + A + b"\n", [(Kind.TEXT, b"a")]),
        (A + b'{"type":"message","base64":"AA=="}\n' + A, [(Kind.TEXT, b"a"), (Kind.BINARY, b"\x00"), (Kind.TEXT, b"a")]),
        (A.rstrip(), [(Kind.TEXT, b"a")]),
    ],
)
def test_messages(printed: bytes, messages: list[tuple[Kind, bytes]]) -> None:
    """`text` is a text message, `base64` a binary one; empty lines are skipped; the last line needs no newline."""
    assert decode(records, printed) == Outcome(messages)


def test_tail() -> None:
    """A record is delivered as soon as its line is complete."""
    assert decode(records, A, tail=b'{"type":') == Outcome([(Kind.TEXT, b"a")])


@pytest.mark.parametrize(
    ("printed", "text"),
    [(b'{"type":"message","text":"\xff"}\n', "�"), (b'{"type":"message","text":"\xc3"}\n', "�")],
)
def test_text_that_is_not_utf8(printed: bytes, text: str) -> None:
    """Bytes in a record that are not UTF-8 become U+FFFD."""
    assert decode(records, printed) == Outcome([(Kind.TEXT, text.encode())])


@pytest.mark.parametrize(
    ("record", "close"),
    [
        (b'{"type":"close","code":1000,"reason":"done"}\n', ("close", 1000, "done")),
        (b'{"type":"close","code":4321}\n', ("close", 4321, "")),
        (b'{"type":"close","code":3000,"reason":""}\n', ("close", 3000, "")),
        (b'{"type":"close","code":4999,"reason":"\\u00e9"}\n', ("close", 4999, "é")),
        (b'{"type":"close","code":1011,"reason":"' + b"x" * 123 + b'"}\n', ("close", 1011, "x" * 123)),
        (b'{"type":"close","code":1000}', ("close", 1000, "")),
    ],
)
def test_close(record: bytes, close: tuple[str, int, str]) -> None:
    """A close record closes the session with its code and reason, after the messages before it."""
    assert decode(records, A + record) == Outcome([(Kind.TEXT, b"a"), close])


@pytest.mark.parametrize("after", [A, b"no record\n", b'{"type":"close","code":4000}\n', b"x" * (LIMIT + 50), b"x" * (LIMIT + 50) + b"\n"])
def test_bytes_after_a_close(after: bytes) -> None:
    """Bytes after a close record are ignored."""
    assert decode(records, A + b'{"type":"close","code":1000}\n' + after, tail=A) == Outcome([(Kind.TEXT, b"a"), ("close", 1000, "")])


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"{",
        b"[]",
        b'"text"',
        b"1",
        b"null",
        b"{}",
        b'{"text":"a"}',
        b'{"type":"message"}',
        b'{"type":"message","text":"a","base64":"AA=="}',
        b'{"type":"message","text":1}',
        b'{"type":"message","text":["a"]}',
        b'{"type":"message","base64":"A"}',
        b'{"type":"message","base64":"AA"}',
        b'{"type":"message","base64":"AA==AA=="}',
        b'{"type":"message","base64":"A-__"}',
        b'{"type":"message","base64":"AA\\n=="}',
        '{"type":"message","base64":"é"}'.encode(),
        b'{"type":"open"}',
        b'{"type":"else"}',
        b'{"type":7}',
        b'{"type":"message","text":"a"} x',
        b'{"type":"message","text":"a"}{"type":"message","text":"b"}',
        b'{"type":"close","code":"1000"}',
        b'{"type":"close","code":1000.5}',
        b'{"type":"close","code":true}',
        b'{"type":"close","code":1000,"reason":7}',
    ],
)
def test_invalid_record(line: bytes) -> None:
    """Any other line is an error of the program: earlier messages are delivered, and later ones are not."""
    assert decode(records, A + line + b"\n" + A, tail=A) == Outcome([(Kind.TEXT, b"a")], ProgramError)


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65536, 10**30])
def test_close_codes_that_may_not_be_sent(code: int) -> None:
    """A program cannot close with a code that no endpoint may send."""
    assert decode(records, A + b'{"type":"close","code":%d}\n' % code) == Outcome([(Kind.TEXT, b"a")], ProgramError)


@pytest.mark.parametrize("reason", ["x" * 124, "é" * 62])
def test_reason_too_long(reason: str) -> None:
    """A reason of more than 123 bytes does not fit into a close frame."""
    record = json.dumps({"type": "close", "code": 1000, "reason": reason}, ensure_ascii=False).encode()
    assert decode(records, record + b"\n") == Outcome([], ProgramError)


@pytest.mark.parametrize("escape", [rb"\ud800", rb"\udfff", rb"\udc00\ud800", rb"a\ud83d!"])
def test_half_of_a_surrogate_pair(escape: bytes) -> None:
    """Text with half of a surrogate pair is rejected or replaced by U+FFFD: it cannot be UTF-8."""
    outcome = decode(records, A + b'{"type":"message","text":"%s"}\n' % escape)
    replaced = json.loads(b'"%s"' % escape).encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    assert outcome in (Outcome([(Kind.TEXT, b"a")], ProgramError), Outcome([(Kind.TEXT, b"a"), (Kind.TEXT, replaced)]))


def test_error_names_the_line() -> None:
    """The log line gives the number of the invalid line; empty lines count."""
    assert "line 4 " in decode(records, A + b"\n" + A + b"oops\n").words


def test_limit() -> None:
    """A line of exactly the limit is valid, one byte more is an error, and earlier messages are delivered."""
    text = b"x" * (LIMIT - len(b'{"type":"message","text":""}'))
    line = b'{"type":"message","text":"%s"}\n'
    assert decode(records, line % text) == Outcome([(Kind.TEXT, text)])
    assert decode(records, A + line % (text + b"x")) == Outcome([(Kind.TEXT, b"a")], MessageTooLong)


def test_first_fault_counts() -> None:
    """An invalid record before a line that is too long determines the error of the session."""
    assert decode(records, A + b"oops\n" + b"x" * (LIMIT + 9)) == Outcome([(Kind.TEXT, b"a")], ProgramError)


@pytest.mark.parametrize(
    ("batch", "written"),
    [
        (Batch(Kind.TEXT, [b"a"]), [{"type": "message", "text": "a"}]),
        (Batch(Kind.TEXT, [b"", 'é\n"\\\0'.encode()]), [{"type": "message", "text": ""}, {"type": "message", "text": 'é\n"\\\0'}]),
        (Batch(Kind.TEXT, [bytearray(b"a")]), [{"type": "message", "text": "a"}]),
        (Batch(Kind.BINARY, [b"\x00\xff", b""]), [{"type": "message", "base64": "AP8="}, {"type": "message", "base64": ""}]),
    ],
)
def test_to_the_program(batch: Batch, written: list[dict[str, str]]) -> None:
    """Each message is one object on one line, without further keys."""
    _, encoder = make_framing("json", limit=0)
    lines = encoder.encode(batch).split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == written


def test_close_to_the_program() -> None:
    """The program receives the close code of the client, including 1005 and 1006."""
    _, encoder = make_framing("json", limit=0)
    ends = [End(1000, "bye"), End(1005), End(1006), End(4000, 'é"\n')]
    lines = b"".join(map(encoder.closing, ends)).split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == [{"type": "close", "code": end.code, "reason": end.reason} for end in ends]


class Name(str):
    """A string subclass, as a library may use for the names of headers."""


@pytest.mark.parametrize(
    "details",
    [{}, {"url": "http://h/", "headers": [["X-A", "1"]], "subprotocol": None}, {"path": "/é\n"}, {"headers": [[Name("X-A"), Name("1")]]}],
)
def test_opening_to_the_program(details: dict[str, object]) -> None:
    """The first line describes the request to the program, for any class of strings."""
    _, encoder = make_framing("json", limit=0)
    line = encoder.opening(lambda: details)
    assert (json.loads(line), line.count(b"\n"), line[-1:]) == ({"type": "open", **details}, 1, b"\n")


def test_opening_with_invalid_text() -> None:
    """For any bytes in the client's request, the opening is a line of JSON in UTF-8."""
    _, encoder = make_framing("json", limit=0)
    line = encoder.opening(lambda: {"url": b"http://h/?q=\xff".decode("utf-8", "surrogateescape")})
    assert json.loads(line.decode("utf-8"))["type"] == "open"
