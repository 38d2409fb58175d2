"""The steps from old settings to new ones."""

from __future__ import annotations

from wsbridge.server.plan import Plan, make_plan


def first(text: str) -> str:
    """Return the place of a text: its first letter."""
    return text[0]


def test_each_step() -> None:
    """What is equal at its place is kept, what differs there is changed, and the rest is added or removed, in order."""
    assert make_plan(["a1", "b1", "c1", "d1"], ["e1", "a1", "b2", "d1"], first) == Plan(
        kept=("a1", "d1"), changed=(("b1", "b2"),), added=("e1",), removed=("c1",)
    )


def test_another_order_is_no_change() -> None:
    """The order of the settings has no meaning."""
    assert make_plan(["a1", "b1"], ["b1", "a1"], first).is_empty
    assert not make_plan(["a1"], [], first).is_empty
    assert not make_plan([], ["a1"], first).is_empty
    assert not make_plan(["a1"], ["a2"], first).is_empty
