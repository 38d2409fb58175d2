"""Repeats and gaps: hypothesis simulates a bus that repeats and drops bodies, and each new message counts exactly once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wsbridge.channel.dedup import Dedup, Verdict

SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=20)


@given(sizes=SIZES, data=st.data())
def test_any_drops_and_repeats(sizes: list[int], data: st.DataObject) -> None:
    """For any drops, and repeats from any earlier point, new messages and gaps together cover every message exactly once."""
    bodies = [(sum(sizes[:index]), size) for index, size in enumerate(sizes)]
    arriving: list[tuple[int, int]] = []
    for index, body in enumerate(bodies):
        if data.draw(st.booleans(), "delivered"):
            arriving.append(body)
        if arriving and data.draw(st.booleans(), "reconnect"):
            again = data.draw(st.integers(0, index), "from")
            arriving += [body for body in bodies[again : index + 1] if body[0] <= arriving[-1][0]]
    dedup = Dedup()
    told = arriving[0][0] if arriving else 0
    for first, count in arriving:
        verdict = dedup.check("p", first, count)
        if verdict is Verdict.REPEAT:
            assert first < told
        else:
            assert isinstance(verdict, int)
            assert told + verdict == first
            told = first + count


def test_producers_are_independent() -> None:
    """Each producer has its own numbers."""
    dedup = Dedup()
    assert dedup.check("a", 5, 2) == 0
    assert dedup.check("b", 0, 1) == 0
    assert dedup.check("a", 10, 1) == 3
    assert dedup.check("b", 0, 1) is Verdict.REPEAT
    assert dedup.check("b", 1, 1) == 0


def test_producers_are_forgotten() -> None:
    """The least recently active producer is forgotten, and counts as new when it returns."""
    dedup = Dedup(limit=2)
    for producer in ("a", "b", "a", "c"):
        dedup.check(producer, len(producer), 1)
    assert dedup.check("a", 0, 1) is Verdict.REPEAT
    assert dedup.check("b", 0, 1) == 0
