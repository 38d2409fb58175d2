"""Text mode: a message is a line, a line is a message (cases 1-11)."""

from __future__ import annotations

import pytest

from tests.parity.conftest import Starter
from tests.support.client import Frame, Message, Opcode, encode_frame
from tests.support.server import memory_peak
from tests.support.tool import command

MIB = 1 << 20


def hexadecimal(text: str) -> str:
    return text.encode().hex()


@pytest.mark.case(1, 2, 3)
def test_message_reaches_stdin_as_a_line(bridge: Starter) -> None:
    """A text message reaches stdin at once, in one piece, followed by one newline. Newlines inside it are unchanged."""
    with bridge(*command("reads")).connect() as client:
        for text in ("abc", "a\nb", "", "ends in a newline\n", "nul \0, return \r", "ümläut ☃"):
            client.send_text(text)
            assert client.receive_text() == hexadecimal(text + "\n")


@pytest.mark.case(4)
def test_line_ending_is_removed(bridge: Starter) -> None:
    """The server removes one LF or CR LF from a line, and no more; an empty line is an empty message."""
    with bridge("printf", r"x\r\nx\r\r\n\n\r\na\rb\nend\n").connect() as client:
        assert client.receive_lines() == ["x", "x\r", "", "", "a\rb", "end"]


@pytest.mark.case(5)
def test_white_space_survives(bridge: Starter) -> None:
    """Spaces and tabs at the start and the end of a line are unchanged in both directions."""
    with bridge("cat").connect() as client:
        for text in ("  a b \t", "\t", " "):
            client.send_text(text)
            assert client.receive_text() == text


@pytest.mark.case(6)
def test_long_line_is_one_message(bridge: Starter) -> None:
    """The server delivers a line of 1 MiB as one message."""
    with bridge(*command("line", MIB)).connect() as client:
        assert client.receive() == Message(Opcode.TEXT, b"x" * MIB)


@pytest.mark.case(6)
def test_long_message_is_echoed(bridge: Starter) -> None:
    """A message of 500 KiB passes through a program and back."""
    text = "0123456789" * 51_200
    with bridge("cat").connect() as client:
        client.send_text(text)
        assert client.receive_text() == text


@pytest.mark.case(7)
def test_unterminated_last_line_is_delivered(wsbridge: Starter) -> None:
    """The server delivers a last line without a newline, also if it is the program's only output."""
    with wsbridge("printf", r"a\nb").connect() as client:
        assert client.receive_lines() == ["a", "b"]
    with wsbridge("printf", "alone").connect() as client:
        assert client.receive_lines() == ["alone"]


@pytest.mark.case(8)
def test_invalid_utf8_is_replaced(wsbridge: Starter) -> None:
    """The server replaces bytes that are not UTF-8 with U+FFFD, and the session continues."""
    with wsbridge("sh", "-c", r"printf 'a\377b\n\303\n'; exec cat").connect() as client:
        assert client.receive_text() == "a\ufffdb"
        assert client.receive_text() == "\ufffd"
        client.send_text("still here")
        assert client.receive_text() == "still here"


@pytest.mark.case(9)
def test_line_waits_for_its_newline(bridge: Starter) -> None:
    """The server does not send output without a newline until the newline appears."""
    server = bridge("sh", "-c", r"printf begun; echo written >&2; read line; printf ' and ended\n'; exec cat")
    with server.connect() as client:
        server.wait_for_log("written")
        client.send_ping(b"first")
        assert client.receive_frame() == Frame(Opcode.PONG, b"first")
        client.send_text("go on")
        assert client.receive_text() == "begun and ended"


@pytest.mark.case(10)
def test_endless_line_ends_the_session(wsbridge: Starter) -> None:
    """A line over the limit of 16 MiB ends the session with 1009. Memory stays bounded, also while the program prints more."""
    server = wsbridge("--closems=200", "sh", "-c", "trap '' INT TERM; exec \"$@\"", "sh", *command("endless"))
    with server.connect() as client:
        assert client.receive_close().code == 1009
        server.wait_for_log(r"\| DISCONNECT")
    assert memory_peak(server.pid) < 160 * MIB


@pytest.mark.case(10)
def test_output_without_a_client_is_bounded(wsbridge: Starter) -> None:
    """Output that a program prints after its client has disconnected does not fill the memory, also without a newline."""
    server = wsbridge("--closems=200", "sh", "-c", "echo ready; trap '' INT TERM; read line; exec \"$@\"", "sh", *command("endless"))
    with server.connect() as client:
        assert client.receive_text() == "ready"
        client.drop()
    server.wait_for_log(r"\| DISCONNECT")
    assert memory_peak(server.pid) < 160 * MIB


@pytest.mark.case(10)
def test_maxline_is_the_longest_line(wsbridge: Starter) -> None:
    """With --maxline=1000, the server sends a line of 1000 bytes; a longer line closes with 1009."""
    server = wsbridge("--maxline=1000", "sh", "-c", "printf '%01000d\n%01001d\n' 0 0; exec cat")
    with server.connect() as client:
        messages, close = client.receive_until_close()
    assert [len(message.data) for message in messages] == [1000]
    assert close.code == 1009


@pytest.mark.case(11)
def test_burst_comes_back_in_order(bridge: Starter) -> None:
    """200 messages that a client sends without a pause come back complete and in order."""
    texts = [f"message {number}" for number in range(200)]
    with bridge("cat").connect() as client:
        client.send_raw(b"".join(encode_frame(text.encode()) for text in texts))
        assert [client.receive_text() for _ in texts] == texts
