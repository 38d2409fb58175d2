"""The detection of changed files."""

from __future__ import annotations

import os
from pathlib import Path

from wsbridge.server.watch import Found, Stamp, Watch, stamp_of

NOTHING, CHANGING, CHANGED = Found.NOTHING, Found.CHANGING, Found.CHANGED


def test_change_is_complete() -> None:
    """A change counts when two consecutive checks find the same state. Until it is accepted, each further check reports it."""
    files: dict[str, Stamp] = {"a": Stamp(1, 1, 1)}
    watch = Watch(["a", "b"], stamp=files.get)
    assert watch.check() is NOTHING
    files["a"] = Stamp(1, 0, 2)
    assert watch.check() is CHANGING
    files["a"] = Stamp(1, 5, 3)
    assert [watch.check() for _ in range(3)] == [CHANGING, CHANGED, CHANGED]
    watch.record()
    assert watch.check() is NOTHING
    del files["a"]
    files["b"] = Stamp(2, 1, 1)
    assert [watch.check() for _ in range(2)] == [CHANGING, CHANGED]


def test_change_that_is_undone() -> None:
    """A file that was missing for a moment and is unchanged does not count as changed."""
    files: dict[str, Stamp] = {"a": Stamp(1, 1, 1)}
    watch = Watch(["a"], stamp=files.get)
    kept = files.pop("a")
    assert watch.check() is CHANGING
    files["a"] = kept
    assert watch.check() is NOTHING


def test_other_files() -> None:
    """The set of watched files may change. A change of a file that stays in the set counts, whenever it happened."""
    files: dict[str, Stamp] = {"a": Stamp(1, 1, 1), "b": Stamp(2, 1, 1)}
    watch = Watch(["a"], stamp=files.get)
    watch.record()
    files["a"] = Stamp(1, 1, 2)
    watch.follow(["b", "c"], all_of_before=True)
    assert [watch.check() for _ in range(2)] == [CHANGING, CHANGED]
    watch.record()
    watch.follow(["b"])
    files["a"] = Stamp(1, 1, 3)
    assert watch.check() is NOTHING
    files["b"] = Stamp(2, 2, 2)
    assert watch.check() is CHANGING


def test_stamp(tmp_path: Path) -> None:
    """A file that is written, replaced or removed has another stamp, and a folder that gains a file as well."""
    file, new = tmp_path / "file", tmp_path / "new"
    assert stamp_of(str(file)) is None
    before = stamp_of(str(tmp_path))
    file.write_text("a")
    stamps = [stamp_of(str(file))]
    file.write_text("ab")
    stamps.append(stamp_of(str(file)))
    new.write_text("ab")
    os.replace(new, file)
    stamps.append(stamp_of(str(file)))
    assert len(set(stamps)) == 3
    os.utime(tmp_path, ns=(0, 0))
    assert stamp_of(str(tmp_path)) != before
