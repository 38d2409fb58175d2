"""Binary mode: the server passes bytes unchanged, and also accepts text frames (cases 12-16)."""

from __future__ import annotations

import os

import pytest

from tests.parity.conftest import Starter
from tests.support.client import Message, Opcode, encode_frame
from tests.support.tool import command


def line(data: bytes) -> bytes:
    """The line that the tool `reads` prints when a read() returned these bytes."""
    return data.hex().encode() + b"\n"


@pytest.mark.case(12)
def test_bytes_are_echoed_exactly(bridge: Starter) -> None:
    """Any bytes come back as a binary message, unchanged."""
    data = bytes([0x00, 0x01, 0x02, 0xFF, 0xFE, 0xFD])
    with bridge("--binary", "cat").connect() as client:
        client.send_binary(data)
        assert client.receive() == Message(Opcode.BINARY, data)


@pytest.mark.case(13)
def test_large_message_comes_back_whole(wsbridge: Starter) -> None:
    """A message of 2 MiB passes through a program and back without a deadlock."""
    data = os.urandom(2 << 20)
    with wsbridge("--binary", "--maxframesize=0", "cat").connect() as client, client.sending(encode_frame(data, Opcode.BINARY)):
        assert client.receive_bytes(len(data)) == data


@pytest.mark.case(14)
def test_nothing_is_appended(bridge: Starter) -> None:
    """In binary mode, a message reaches stdin unchanged."""
    with bridge("--binary", *command("reads")).connect() as client:
        for data in (b"abc", b"no newline", b"ends in one\n"):
            client.send_binary(data)
            assert client.receive_bytes(len(line(data))) == line(data)


@pytest.mark.case(15)
def test_text_frame_in_binary_mode(wsbridge: Starter) -> None:
    """In binary mode, the server passes a text message's bytes to the program without a newline."""
    with wsbridge("--binary", *command("reads")).connect() as client:
        client.send_text("abc")
        assert client.receive_bytes(7) == line(b"abc")
        client.send_binary(b"def")
        assert client.receive_bytes(7) == line(b"def")


@pytest.mark.case(16)
def test_binary_frame_in_text_mode(bridge: Starter) -> None:
    """In text mode, the server passes a binary message's bytes to the program unchanged, without a newline."""
    with bridge(*command("reads")).connect() as client:
        client.send_binary(b"a\0b")
        assert client.receive_text() == "610062"
        client.send_text("c")
        assert client.receive_text() == "630a"
