"""Remembering answers: most clients of a server say the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

Answer = TypeVar("Answer")

ENTRIES = 256
LONGEST = 256
"""Characters: what is longer is not remembered, so that clients cannot fill our memory."""


def remembered(function: Callable[[str], Answer]) -> Callable[[str], Answer]:
    """Remember the last answers of a function that depends on nothing but its argument. What it raises is not remembered."""
    known = lru_cache(maxsize=ENTRIES)(function)

    @wraps(function)
    def answer(text: str) -> Answer:
        return known(text) if len(text) <= LONGEST else function(text)

    return answer
