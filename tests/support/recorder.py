"""A pytest plugin for `scripts/test.py`: it records what runs, and lets a run go on when a worker process dies.

Each process of the run keeps one file in the folder that the variable RUN_RECORDS names: which test it runs, and since when.
The watcher reads these files from outside, so that it also sees a process that is stopped or hangs in C.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import NodeManager

FOLDER = "RUN_RECORDS"
"""The variable that names the folder of the records."""

FAILED = "failed"
"""The file that lists failed tests, a line each, as they fail."""


def pytest_configure(config: pytest.Config) -> None:
    # A worker that does not exit is the watcher's to end: xdist would kill it after 10 s without a word.
    NodeManager.EXIT_TIMEOUT = 3600
    config.pluginmanager.register(Recorder(Path(os.environ[FOLDER]), is_worker=hasattr(config, "workerinput")))


class Recorder:
    """Writes what this process does now."""

    def __init__(self, folder: Path, *, is_worker: bool) -> None:
        self._folder = folder
        self._is_worker = is_worker
        self._test = ""
        self._note("start")

    def _note(self, phase: str) -> None:
        """Replace this process's record, so that a reader never sees half of one."""
        record = {"phase": phase, "test": self._test, "since": time.monotonic()}
        draft = self._folder / f"{os.getpid()}.draft"
        draft.write_text(json.dumps(record))
        draft.replace(self._folder / f"{os.getpid()}.json")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._test = item.nodeid
        self._note("test")
        try:
            return (yield)
        finally:
            self._note("between")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._collect_failure(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._collect_failure(report)

    def _collect_failure(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Add a failure to the list; a worker's failure comes by its report."""
        if report.failed and not self._is_worker:
            with (self._folder / FAILED).open("a") as failed:
                failed.write(f"{report.nodeid}\n")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self._note("exit")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return Files(config, log) if config.getvalue("dist") == "loadfile" else None


class Files(LoadFileScheduling):
    """A file of tests goes to one worker; when a worker dies, others run what is left of its files.

    xdist's own gives the fatal test to another worker, and the finished files too, which no worker can finish again:
    then the run never ends.
    """

    def remove_node(self, node: Any) -> str | None:
        files = self.assigned_work[node]
        fatal = next((test for file in files.values() for test, is_done in file.items() if not is_done), None)
        for file in files.values():
            if fatal in file:
                file[fatal] = True
        for name in [name for name, file in files.items() if all(file.values())]:
            del files[name]
        super().remove_node(node)
        return fatal

    def _reschedule(self, node: Any) -> None:
        """Give a worker its next file; one that has just taken the place of a dead worker may not have collected the tests yet."""
        if node in self.registered_collections:
            super()._reschedule(node)
