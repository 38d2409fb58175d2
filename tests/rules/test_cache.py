"""A cache of answers for short arguments: it holds a limited number of answers, and no failures."""

from __future__ import annotations

import pytest

from wsbridge.rules.cache import ENTRIES, MAX_LENGTH, remembered


def test_cached_answers() -> None:
    """The cache computes an answer once, unless the argument is long, the call has failed, or the answer has expired."""
    asked: list[str] = []

    @remembered
    def length(text: str) -> int:
        """Count."""
        asked.append(text)
        if not text:
            raise ValueError("nothing to count")
        return len(text)

    longest, longer = "x" * MAX_LENGTH, "x" * (MAX_LENGTH + 1)
    for _ in range(2):
        assert [length(text) for text in ("a", longest, longer)] == [1, MAX_LENGTH, MAX_LENGTH + 1]
        with pytest.raises(ValueError, match="nothing"):
            length("")
    assert asked == ["a", longest, longer, "", longer, ""]
    for number in range(ENTRIES):
        length(f"entry {number}")
    length("a")
    assert asked.count("a") == 2
    assert length.__doc__ == "Count."
