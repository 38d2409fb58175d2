"""The steps from old to new settings for a list of running items, such as endpoints or listeners: a pure comparison."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """The steps from old settings to new settings."""

    kept: tuple[T, ...]
    changed: tuple[tuple[T, T], ...]
    """Old and new settings of items that stay at their place, or that have the same identity."""
    added: tuple[T, ...]
    removed: tuple[T, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return not (self.changed or self.added or self.removed)


def no_identity(_: object) -> Hashable:
    """Return None: the place alone identifies such an item."""
    return None


def make_plan(
    old: Sequence[T], new: Sequence[T], place: Callable[[T], Hashable], identity: Callable[[T], Hashable] = no_identity
) -> Plan[T]:
    """Return the steps. `place` returns the place of an item; a place holds at most one item.

    An old item changes into a new item of the same identity, preferably at the same place; otherwise into the new item at its place.
    """
    remaining, after = {place(item): item for item in old}, {place(item): item for item in new}
    before: dict[Hashable, T] = {}
    """The old item of each new place."""
    for key in after:
        if key in remaining and identity(remaining[key]) == identity(after[key]):
            before[key] = remaining.pop(key)
    by_identity = {identity(item): key for key, item in reversed(remaining.items()) if identity(item) is not None}
    for key, item in after.items():
        if key not in before and (elsewhere := by_identity.pop(identity(item), None)) is not None:
            before[key] = remaining.pop(elsewhere)
    for key in after:
        if key not in before and key in remaining:
            before[key] = remaining.pop(key)
    both = [(before[key], item) for key, item in after.items() if key in before]
    return Plan(
        kept=tuple(item for was, item in both if was == item),
        changed=tuple((was, item) for was, item in both if was != item),
        added=tuple(item for key, item in after.items() if key not in before),
        removed=tuple(remaining.values()),
    )
