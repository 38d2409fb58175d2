"""The program that the server runs, and the form of its input and output."""

import re
from collections.abc import Iterator
from typing import Annotated, NamedTuple

from wsbridge.framing import FRAMINGS
from wsbridge.settings.declare import MEBIBYTE, Fault, Part, Seconds, Setting, Size, Unit

PTY_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
LARGEST = 65535


class TerminalSize(NamedTuple):
    """The size of a terminal; 0 stands for an unknown number."""

    columns: int
    rows: int


PLAIN = TerminalSize(2, 0)
"""The size that stands for no size. GNU and busybox `ls` print one column at a width of 2; without rows, procps ignores the columns."""


def parse_pty_size(text: str) -> TerminalSize:
    """Parse the size of a pseudo-terminal, such as `132x43`. Raises ValueError."""
    found = PTY_SIZE.fullmatch(text)
    if found is None or max(map(int, found.groups())) > LARGEST:
        raise ValueError(f"<pty_size>={text} is not a size; write columns and rows, such as 132x43")
    return TerminalSize(int(found[1]), int(found[2]))


def _check_pty_size(text: str) -> None:
    if text:
        parse_pty_size(text)


class ProgramSettings(Part, frozen=True, kw_only=True):
    """The program that the server runs, and the form of its input and output."""

    command: Annotated[
        tuple[str, ...],
        Setting(
            "Run this program: its path or its name in PATH, and its arguments",
            description=(
                "Run this program: its path, or its name in `PATH`, and its arguments. A path with a slash is relative to the file"
            ),
        ),
    ] = ()
    """With its first word resolved to a path."""
    scripts: Annotated[
        str,
        Setting(
            "Serve each script below this directory at its path, instead of <command>",
            "Serve every script below DIR, by path, instead of <command>",
            "Serve every script below this folder, by path, instead of `<command>`",
            flag="dir",
            metavar="DIR",
            place="folder",
        ),
    ] = ""
    framing: Annotated[
        str,
        Setting(
            "Encode messages on stdin and stdout as lines, chunks, nul, prefixed or json",
            (
                "Select the encoding of messages on stdin and stdout: `lines`, `chunks`, `nul`, `prefixed`, `json`; "
                "see [framings](framings.md)"
            ),
            flag="framing",
            metavar="NAME",
            choices=FRAMINGS,
        ),
    ] = "lines"
    max_program_message: Annotated[
        Size,
        Setting(
            "Close with 1009 when a message from the program exceeds this size, in bytes (0: no limit)",
            (
                "Limit a message from the program (0: no limit). A longer message ends the session with 1009. "
                "It has no effect on the framing `chunks`"
            ),
            flag="maxline",
            minimum=0,
        ),
    ] = 16 * MEBIBYTE
    pass_stderr: Annotated[
        bool,
        Setting(
            "Send stderr to the client as well: each line as JSON that names its stream",
            (
                'Send stderr to the client too. Each line of either stream becomes `{"stream":"stdout","data":"…"}` '
                'or `{"stream":"stderr","data":"…"}`. wsbridge still logs stderr'
            ),
            flag="passstderr",
        ),
    ] = False
    pty: Annotated[
        bool,
        Setting(
            "Connect the program's stdout to a pseudo-terminal, so that it does not buffer its output",
            (
                "Give the program a raw pseudo-terminal as stdout. stdin stays a pipe, and the pseudo-terminal is no "
                "process's controlling terminal. Programs print the same output as on a pipe, [with "
                "exceptions](../README.md#output-that-comes-late)"
            ),
            flag="pty",
        ),
    ] = False
    pty_size: Annotated[
        str,
        Setting(
            "Set the size of the pseudo-terminal; the program formats its output for that size",
            "With `<pty>`, set the size of the pseudo-terminal, such as `132x43`. The program then prints for a terminal of that size",
            flag="pty-size",
            metavar="COLSxROWS",
            needs="pty",
            check=_check_pty_size,
        ),
    ] = ""
    pass_environment: Annotated[
        tuple[str, ...],
        Setting(
            "Pass these variables of the server, separated by commas, to programs",
            (
                "Pass these variables of the server to programs, instead of the default variables; see [the "
                "environment of a program](environment.md)"
            ),
            flag="passenv",
            metavar="NAMES",
            has_commas=True,
        ),
    ] = ("PATH", "LD_LIBRARY_PATH")
    close_delay: Annotated[
        Seconds,
        Setting(
            "Add this time to each step that ends a program (close stdin, INT, TERM, KILL), in milliseconds",
            "Add this time to each step of [the ladder](sessions.md#the-ladder)",
            "Add this time to each step that ends a program: close stdin, INT, TERM, KILL",
            flag="closems",
            unit=Unit.UNSIGNED_MILLISECONDS,
            minimum=0,
            default_shown="0",
        ),
    ] = 0.0
    drain: Annotated[
        Seconds,
        Setting(
            "Wait this long for other processes that hold stdout open after the program exits, in milliseconds",
            "After the exit of a program or CGI script, wait this long for its other processes that hold its stdout open",
            flag="drainms",
            unit=Unit.MILLISECONDS,
            minimum=0,
        ),
    ] = 2.0

    @property
    def terminal(self) -> TerminalSize | None:
        """The size of the pseudo-terminal on stdout, `PLAIN` itself without a given size; None: stdout is a pipe."""
        if not self.pty:
            return None
        return parse_pty_size(self.pty_size) if self.pty_size else PLAIN

    def faults(self) -> Iterator[Fault]:
        if self.pass_stderr and self.framing != "lines":
            yield Fault(("pass_stderr",), f"<pass_stderr> cannot be used with <framing>={self.framing}: its JSON records are lines of text")
