"""The examples of a program on a WebSocket: count.sh, the greeters, chat.sh and environment.sh."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.client import Close
from tests.support.server import ROOT, Server

EXAMPLES = ROOT / "examples"
GREETERS = ("greeter.sh", "greeter.py", "greeter.pl", "greeter-awk.sh", "greeter.js", "greeter.c")
NAMES = ("Ada", "Zoë", "", "  two  spaces ", r"back\slash", "-n", "%s", "$(reboot)", '"quoted"', "Konrad Zuse " * 1000)


@pytest.mark.parametrize("greeter", GREETERS)
def test_greeter_answers_each_line_at_once(greeter: str, tmp_path: Path) -> None:
    """The greeter in each language answers each name before it receives the next, with the name unchanged."""
    with Server(runnable(greeter, tmp_path)) as server, server.connect() as client:
        for number, name in enumerate(NAMES, start=1):
            client.send_text(name)
            assert client.receive_text() == f"Hello, {name}! You are number {number}."


@pytest.mark.parametrize("awk", ["gawk", "mawk"])
def test_awk_greeter_runs_with_either_awk(awk: str, tmp_path: Path) -> None:
    """greeter-awk.sh answers at once whether `awk` is gawk or mawk."""
    program = shutil.which(awk)
    assert program, f"{awk} is not installed"
    (tmp_path / "awk").symlink_to(program)
    with Server(str(EXAMPLES / "greeter-awk.sh"), env={"PATH": f"{tmp_path}:/usr/bin:/bin"}) as server, server.connect() as client:
        for number, name in enumerate(("Ada", "Zoë"), start=1):
            client.send_text(name)
            assert client.receive_text() == f"Hello, {name}! You are number {number}."


def test_count_prints_one_to_ten() -> None:
    """count.sh sends 1 to 10, each as a message, and closes the connection with 1000."""
    with Server(str(EXAMPLES / "count.sh"), "10", "0") as server, server.connect() as client:
        messages, close = client.receive_until_close()
    assert [message.data.decode() for message in messages] == [str(number) for number in range(1, 11)]
    assert close == Close(1000)


def test_count_takes_a_limit_and_an_interval() -> None:
    """count.sh counts up to its first argument."""
    with Server(str(EXAMPLES / "count.sh"), "3", "0.01") as server, server.connect() as client:
        assert client.receive_lines() == ["1", "2", "3"]


def test_chat_remembers() -> None:
    """chat.sh remembers the visitor's name, the number and the count of guesses; binary search needs seven guesses."""
    with Server(str(EXAMPLES / "chat.sh")) as server, server.connect() as client:
        assert client.receive_text() == "Good day. What is your name?"
        client.send_text("Ada")
        assert client.receive_text().startswith("Ada, I am thinking of a number")

        secret, guesses = halve(client)
        assert client.receive_text().startswith("Ada, I am thinking of a number")
        assert 1 <= secret <= 100
        assert guesses <= 7

        client.send_text("bye")
        assert client.receive_text() == "Good-bye, Ada."
        assert client.receive_close() == Close(1000)


@pytest.mark.parametrize("guess", ["", "ten", "-1", "1.5", "0x10", "1000", "x[$(touch pwned)]", "a[`touch pwned`]", "1+1"])
def test_chat_accepts_only_numbers(guess: str, tmp_path: Path) -> None:
    """chat.sh passes only digits to the arithmetic of bash, which could otherwise run a command."""
    with Server(str(EXAMPLES / "chat.sh"), cwd=tmp_path) as server, server.connect() as client:
        client.send_text("Ada")
        for _ in range(2):
            client.receive_text()
        client.send_text(guess)
        assert client.receive_text() == "A number from 1 to 100, please."
    assert list(tmp_path.iterdir()) == []


def test_chat_reads_leading_zeros_as_decimals() -> None:
    """chat.sh accepts 08, which is not a valid octal number."""
    with Server(str(EXAMPLES / "chat.sh")) as server, server.connect() as client:
        client.send_text("Ada")
        for _ in range(2):
            client.receive_text()
        client.send_text("08")
        assert client.receive_text().startswith(("Higher", "Lower", "Yes"))


def test_two_chats_are_independent() -> None:
    """Each visitor of chat.sh has a separate process, and so a separate name."""
    with Server(str(EXAMPLES / "chat.sh")) as server, server.connect() as ada, server.connect() as zoe:
        ada.send_text("Ada")
        zoe.send_text("Zoë")
        for client, name in ((ada, "Ada"), (zoe, "Zoë")):
            client.receive_text()
            assert client.receive_text().startswith(f"{name}, I am thinking")


def test_environment_shows_the_query() -> None:
    """environment.sh decodes each parameter of QUERY_STRING, and shows invalid parameters unchanged."""
    with Server(str(EXAMPLES / "environment.sh")) as server:
        query = "name=Ada+Lovelace&city=K%C3%B6ln&empty=&bare&%zz=%5Cn&sum=1%2B1%3D2&cost=100%25"
        with server.connect(f"/some/path?{query}") as client:
            lines = client.receive_lines()
    assert lines[:7] == [
        'parameter name is "Ada Lovelace"',
        'parameter city is "Köln"',
        'parameter empty is ""',
        'parameter bare is ""',
        r'parameter %zz is "\n"',
        'parameter sum is "1+1=2"',
        'parameter cost is "100%"',
    ]
    assert f"QUERY_STRING={query}" in lines
    assert "PATH_INFO=/some/path" in lines
    assert "GATEWAY_INTERFACE=CGI/1.1" in lines


def test_environment_shows_only_passed_variables() -> None:
    """From the environment of the server, environment.sh receives only the variables in --passenv."""
    env = {"SHOWN": "yes", "HIDDEN": "no"}
    with Server("--passenv=SHOWN,PATH", str(EXAMPLES / "environment.sh"), env=env) as server, server.connect() as client:
        lines = client.receive_lines()
    assert "SHOWN=yes" in lines
    assert not [line for line in lines if line.startswith("HIDDEN=")]


def runnable(greeter: str, folder: Path) -> str:
    """Return the command that runs a greeter; compile the C greeter with the command in its header."""
    if greeter != "greeter.c":
        return str(EXAMPLES / greeter)
    build = "cc -O2 -o greeter greeter.c"
    assert build in (EXAMPLES / greeter).read_text()
    shutil.copy(EXAMPLES / greeter, folder)
    subprocess.run([*build.split(), "-Wall", "-Wextra", "-Werror"], cwd=folder, check=True)
    return str(folder / "greeter")


def halve(client) -> tuple[int, int]:
    """Find the number by binary search; return it, and the number of guesses that the program reports."""
    low, high = 1, 100
    for guesses in itertools.count(1):
        guess = (low + high) // 2
        client.send_text(str(guess))
        match client.receive_text():
            case "Higher.":
                low = guess + 1
            case "Lower.":
                high = guess - 1
            case answer:
                assert answer == f"Yes, {guess}! Guesses: {guesses}."
                return guess, guesses
    raise AssertionError
