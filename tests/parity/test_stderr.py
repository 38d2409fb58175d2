"""A program's stderr: the server logs it, or sends it to the client with --passstderr (cases 34-36)."""

from __future__ import annotations

import pytest

from tests.parity.conftest import Starter
from tests.support.tool import command


@pytest.mark.case(34)
def test_stderr_is_logged(bridge: Starter) -> None:
    """Stderr never reaches the client; the log has each line of it as an ERROR line of category stderr."""
    server = bridge("sh", "-c", "echo one >&2; echo two words >&2; echo out; exec cat")
    with server.connect() as client:
        assert client.receive_text() == "out"
        for words in ("one", "two words"):
            server.wait_for_log(rf"^\w{{3}}, .* \| ERROR  \| stderr     \| url:'.*' id:'\d+' .*\| {words}$")
        client.send_text("and nothing else")
        assert client.receive_text() == "and nothing else"


@pytest.mark.case(35)
@pytest.mark.parametrize("end", ["\n", ""], ids=["terminated", "unterminated"])
def test_long_stderr_line_is_logged(wsbridge: Starter, end: str) -> None:
    """The server logs a stderr line of 100 KB without stalling the program, and also a last line without a newline."""
    server = wsbridge(*command("stderr", 100_000, end))
    with server.connect() as client:
        assert client.receive_text() == "done"
    server.wait_for_log(r"\| DISCONNECT")
    assert server.log.count("Q") == 100_000


@pytest.mark.case(36)
def test_passstderr_wraps_both_streams(wsbridge: Starter) -> None:
    """--passstderr sends each line as JSON in Go's encoding, with the stream's name; the log still has the stderr lines."""
    server = wsbridge("--passstderr", "sh", "-c", r"""printf 'out <&> "ü"\t\\\n'; read line; printf 'err or\n' >&2; exec cat""")
    with server.connect() as client:
        assert client.receive_text() == r'{"stream":"stdout","data":"out \u003c\u0026\u003e \"ü\"\t\\"}'
        client.send_text("go on")
        assert client.receive_text() == r'{"stream":"stderr","data":"err or"}'
    server.wait_for_log(r"\| ERROR  \| stderr     \| .*\| err")


@pytest.mark.case(36)
def test_passstderr_excludes_binary(wsbridge: Starter) -> None:
    """--passstderr with --binary is a usage error: exit status 1, and the message names both flags."""
    ended = wsbridge.run("--port=0", "--passstderr", "--binary", "cat")
    assert ended.returncode == 1
    assert "--passstderr" in ended.stderr
    assert "--binary" in ended.stderr
