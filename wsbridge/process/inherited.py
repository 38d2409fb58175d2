"""What a process inherits from its parent, and the parts of it that a server must not keep.

A disposition to ignore a signal, a signal mask, open descriptors, limits and children all survive exec. A parent that ignores
SIGCHLD would have the kernel discard the exit status of every program; a mask that blocks TERM would make a server
that no TERM ends. Descriptors and the limit of them are the spawner's matter; everything else is passed on as it is.
"""

from __future__ import annotations

import signal

DEFAULTED = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
"""The signals that a program starts with at their default, whatever this process or its parent ignores. nohup needs no exception: a
program is in a session of its own, without a terminal whose end would send it HUP."""


def take_defaults() -> None:
    """Put SIGCHLD to its default and clear the signal mask. Call it in the main thread, before there are others."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
