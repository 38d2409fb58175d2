"""The terminal that is a program's stdout with `--pty`: raw, and by default set up for the same output as to a pipe.

Programs do not buffer lines that they write to a terminal, but many also print differently. `ls` prints in columns, `ps` cuts
lines to the width, and `git log` uses a pager. A program detects a terminal through the kernel. It reads the width from the
kernel or from COLUMNS, and programs differ in which source they read first. The default settings use that difference.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import tty
from collections.abc import Mapping

from wsbridge.settings import PLAIN, TerminalSize

PLAIN_ENVIRONMENT: Mapping[str, str] = {
    # `ps`, systemd's tools, git and Python read this first; busybox accepts no larger number.
    "COLUMNS": "29999",
    "MANWIDTH": "80",
    "PAGER": "cat",
    # `ls` prints a name that contains a blank, without quotes around it.
    "QUOTING_STYLE": "literal",
    # No colours, no cursor movement. With LS_COLORS or COLORTERM, `ls --color=auto` does not check what TERM supports.
    "TERM": "dumb",
    "COLORTERM": "",
    "LS_COLORS": "",
}


def open_terminal(size: TerminalSize) -> tuple[int, int]:
    """Open a terminal in raw mode: no echo, no conversion of LF to CR LF. It controls no process.

    Return the server's end and the program's end.
    """
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, 0, 0))
    return ours, theirs


def terminal_environment(size: TerminalSize | None) -> Mapping[str, str]:
    """Return the variables that belong to a terminal; none for a size that the user has set, and none without a terminal."""
    # By identity: a user may set the same size.
    return PLAIN_ENVIRONMENT if size is PLAIN else {}
