"""Opens files that a user names, whatever their type."""

from __future__ import annotations

import os


def open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting, as the opener of `open`: opening a FIFO would block until another process writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)
