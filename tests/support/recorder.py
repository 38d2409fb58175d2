"""A pytest plugin for `scripts/test.py`: it records the running tests.

Each process of the run writes one file in the folder that the variable RUN_RECORDS names: the current test, and its start time. The
watcher reads these files from outside, so that it also sees a process that is stopped or hangs in C.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.workermanage import NodeManager

FOLDER = "RUN_RECORDS"
"""The variable that names the folder of the records."""

FAILED = "failed"
"""The file that lists failed tests, a line each, as they fail."""


def pytest_configure(config: pytest.Config) -> None:
    # The watcher ends a worker that does not exit: xdist would kill it after 10 s without a message.
    NodeManager.EXIT_TIMEOUT = 3600
    config.pluginmanager.register(Recorder(Path(os.environ[FOLDER]), is_worker=hasattr(config, "workerinput")))


class Recorder:
    """Records the current activity of this process."""

    def __init__(self, folder: Path, *, is_worker: bool) -> None:
        self._folder = folder
        self._is_worker = is_worker
        self._test = ""
        self._note("start")

    def _note(self, phase: str) -> None:
        """Replace this process's record atomically."""
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
        """Add a failure to the list; a worker's failure arrives in its report."""
        if report.failed and not self._is_worker:
            with (self._folder / FAILED).open("a") as failed:
                failed.write(f"{report.nodeid}\n")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Iterator[None]:
        self._note("exit")
        yield
        if self._is_worker:
            # Its process stays alive without work until the whole run has ended.
            self._note("idle")
