"""A cache for the results of pure functions: most clients of a server send the same text."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

Answer = TypeVar("Answer")

ENTRIES = 256
MAX_LENGTH = 256
"""Characters. A longer argument is not cached, so that clients cannot fill the memory of the server."""


def remembered(function: Callable[[str], Answer]) -> Callable[[str], Answer]:
    """Cache the last results of a function that depends only on its argument. Exceptions are not cached."""
    known = lru_cache(maxsize=ENTRIES)(function)

    @wraps(function)
    def answer(text: str) -> Answer:
        return known(text) if len(text) <= MAX_LENGTH else function(text)

    return answer
