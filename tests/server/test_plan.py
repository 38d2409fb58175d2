"""The steps from old settings to new ones."""

from __future__ import annotations

from wsbridge.server.plan import Plan, make_plan


def first(text: str) -> str:
    """Return the place of a text: its first letter."""
    return text[0]


def test_each_step() -> None:
    """An item that is equal at its place is kept, and an item that differs is changed. Others are added or removed, in order."""
    assert make_plan(["a1", "b1", "c1", "d1"], ["e1", "a1", "b2", "d1"], first) == Plan(
        kept=("a1", "d1"), changed=(("b1", "b2"),), added=("e1",), removed=("c1",)
    )


def test_identity() -> None:
    """An item of the same identity may move, but its place is preferred. An item without identity replaces any item at its place."""

    def identity(text: str) -> str | None:
        return text[1] if text[1].isupper() else None

    def plan(old: list[str], new: list[str]) -> Plan[str]:
        return make_plan(old, new, first, identity)

    assert plan(["aX", "b1"], ["b1", "cX"]) == Plan(kept=("b1",), changed=(("aX", "cX"),), added=(), removed=())
    assert plan(["aX"], ["a1", "cX"]) == Plan(kept=(), changed=(("aX", "cX"),), added=("a1",), removed=())
    assert plan(["aX", "b1"], ["a1", "bX"]) == Plan(kept=(), changed=(("aX", "bX"),), added=("a1",), removed=("b1",))
    assert plan(["aX", "bY"], ["aY", "bX"]) == Plan(kept=(), changed=(("bY", "aY"), ("aX", "bX")), added=(), removed=())
    assert plan(["aX", "bX"], ["bX", "cX"]) == Plan(kept=("bX",), changed=(("aX", "cX"),), added=(), removed=())
    assert plan(["aX", "bX"], ["cX"]) == Plan(kept=(), changed=(("aX", "cX"),), added=(), removed=("bX",))
    assert plan(["aX"], ["aY"]) == Plan(kept=(), changed=(("aX", "aY"),), added=(), removed=())
    assert plan(["a1"], ["b1"]) == Plan(kept=(), changed=(), added=("b1",), removed=("a1",))


def test_another_order_is_no_change() -> None:
    """The order of the settings has no meaning."""
    assert make_plan(["a1", "b1"], ["b1", "a1"], first).is_empty
    assert not make_plan(["a1"], [], first).is_empty
    assert not make_plan([], ["a1"], first).is_empty
    assert not make_plan(["a1"], ["a2"], first).is_empty
