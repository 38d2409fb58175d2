"""The same signals for every test, from wherever they are run: a background job of a shell ignores some, and so would what it starts."""

from __future__ import annotations

import signal

for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)
