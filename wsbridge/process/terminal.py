"""The terminal that is a program's stdout with `--pty`: raw, and by default one on which programs print what they print to a pipe.

Programs that write to a terminal do not hold back their lines, but many also print differently: `ls` in columns, `ps` cut
to the width, `git log` through a pager. A program learns of a terminal from the kernel, and of its width from the kernel or from
COLUMNS, and programs differ in which they ask first. The default makes use of that.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import tty
from collections.abc import Mapping

from wsbridge.settings import TerminalSize

PLAIN = TerminalSize(2, 0)
"""The size that stands for none. GNU and busybox `ls` print one column in 2; without rows, procps takes no notice of the columns."""
PLAIN_ENVIRONMENT: Mapping[str, str] = {
    # What `ps`, systemd's tools, git and Python ask first; busybox takes nothing above.
    "COLUMNS": "29999",
    "MANWIDTH": "80",
    "PAGER": "cat",
    # A name with a blank, without quotes around it.
    "QUOTING_STYLE": "literal",
    # No colours, no movements of the cursor. With LS_COLORS or COLORTERM `ls --color=auto` does not ask what TERM can.
    "TERM": "dumb",
    "COLORTERM": "",
    "LS_COLORS": "",
}


def open_terminal(size: TerminalSize) -> tuple[int, int]:
    """Open a terminal in raw mode: no echo, no LF made to CR LF. Return our end and the program's; it controls no process."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, 0, 0))
    return ours, theirs


def terminal_environment(size: TerminalSize | None) -> Mapping[str, str]:
    """Return the variables that go with a terminal; none with a size that the user has set, and none without a terminal."""
    return PLAIN_ENVIRONMENT if size == PLAIN else {}
