"""Two streams in one, in the bytes of Go's JSON encoder: what `--passstderr` sends."""

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
    """Keys in this order, no spaces, `<`, `>`, `&` and U+2028/9 escaped, other non-ASCII as it is."""
    sent = '{"stream":"stdout","data":"' + data + '"}'
    assert json.loads(sent) == {"stream": "stdout", "data": line.decode()}
    assert decode(stdout, line + b"\n", tail=b"more\n") == Outcome([(Kind.TEXT, sent.encode())])


def test_stderr_names_itself() -> None:
    """Each line says which stream it was printed on."""
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
    """The limit is of the line; a longer one is an error, after the lines before it."""
    assert len(decode(stdout, b"x" * 20 + b"\n").delivered) == 1
    assert decode(stdout, b"a\n" + b"x" * 21 + b"\n") == Outcome([(Kind.TEXT, b'{"stream":"stdout","data":"a"}')], MessageTooLong)
