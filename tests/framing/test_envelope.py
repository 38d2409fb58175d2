"""The envelopes of `--passstderr`: two streams in one, with the bytes of Go's JSON encoder."""

from __future__ import annotations

import json

import pytest

from tests.support.decoding import Outcome, decode
from wsbridge.errors import MessageTooLong
from wsbridge.flow import Kind
from wsbridge.framing.envelope import Decoder


def stdout() -> Decoder:
    return Decoder("stdout", limit=20)


def stderr() -> Decoder:
    return Decoder("stderr", limit=20)


@pytest.mark.parametrize(
    ("line", "data"),
    [
        (b"x", "x"),
        (b"", ""),
        (b" a\tb ", r" a\tb "),
        (b'"\\', r"\"\\"),
        (b"<b>&</b>", r"\u003cb\u003e\u0026\u003c/b\u003e"),
        ("\u2028\u2029".encode(), r"\u2028\u2029"),
        ("é€😀".encode(), "é€😀"),
        (b"\x00\x1b[0m", r"\u0000\u001b[0m"),
        (b"a\rb", r"a\rb"),
        (b"\x7f'/", "\x7f'/"),
    ],
)
def test_bytes_of_an_envelope(line: bytes, data: str) -> None:
    """The keys are in this order, without spaces; `<`, `>`, `&` and U+2028/9 are escaped, other non-ASCII characters are not."""
    sent = '{"stream":"stdout","data":"' + data + '"}'
    assert json.loads(sent) == {"stream": "stdout", "data": line.decode()}
    assert decode(stdout, line + b"\n", tail=b"more\n") == Outcome([(Kind.TEXT, sent.encode())])


def test_envelope_names_the_stream() -> None:
    """Each envelope names the stream of its line."""
    assert decode(stderr, b"oops\r\n") == Outcome([(Kind.TEXT, b'{"stream":"stderr","data":"oops"}')])


@pytest.mark.parametrize(("line", "data"), [(b"caf\xe9", "caf�"), (b"\xff\xfe", "��")])
def test_text_that_is_not_utf8(line: bytes, data: str) -> None:
    """Bytes that are not UTF-8 become U+FFFD."""
    ((kind, message),) = decode(stderr, line + b"\n").delivered
    assert (kind, json.loads(message)) == (Kind.TEXT, {"stream": "stderr", "data": data})


def test_last_line_without_its_end() -> None:
    """An unterminated last line is delivered."""
    assert decode(stdout, b"a\nb").delivered[1:] == [(Kind.TEXT, b'{"stream":"stdout","data":"b"}')]


def test_limit() -> None:
    """The limit applies to the line; a longer line is an error after the lines before it."""
    assert len(decode(stdout, b"x" * 20 + b"\n").delivered) == 1
    assert decode(stdout, b"a\n" + b"x" * 21 + b"\n") == Outcome([(Kind.TEXT, b'{"stream":"stdout","data":"a"}')], MessageTooLong)
