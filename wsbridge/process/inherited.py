"""The state that a process inherits from its parent, and that a server must reset in part.

Ignored signals, the signal mask, open descriptors, limits and children all survive exec. If a parent ignored
SIGCHLD, the kernel would discard the exit status of every program. If a mask blocked TERM, no TERM would end the server. The
spawner handles descriptors and their limit; all other state is passed on unchanged.
"""

from __future__ import annotations

import signal

DEFAULTED = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
"""The signals that are at their default when a program starts, even if this process or its parent ignores them. nohup needs no
exception: a program has its own session, without a terminal whose hangup would send it HUP."""


def reset_signals() -> None:
    """Reset SIGCHLD to its default, and clear the signal mask. Call this in the main thread, before it starts other threads."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
