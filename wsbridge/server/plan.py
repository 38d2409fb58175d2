"""What a change of the settings means for a list of things that run, such as endpoints or listeners: a pure comparison."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """The steps from old settings to new ones."""

    kept: tuple[T, ...]
    changed: tuple[tuple[T, T], ...]
    """Old and new settings of things that stay at their place."""
    added: tuple[T, ...]
    removed: tuple[T, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return not (self.changed or self.added or self.removed)


def make_plan(old: Sequence[T], new: Sequence[T], place: Callable[[T], Hashable]) -> Plan[T]:
    """Return the steps. `place` returns the place of a thing: at one place, there is one thing at most."""
    before, after = {place(item): item for item in old}, {place(item): item for item in new}
    both = [(before[key], after[key]) for key in after if key in before]
    return Plan(
        kept=tuple(item for was, item in both if was == item),
        changed=tuple((was, item) for was, item in both if was != item),
        added=tuple(item for key, item in after.items() if key not in before),
        removed=tuple(item for key, item in before.items() if key not in after),
    )
