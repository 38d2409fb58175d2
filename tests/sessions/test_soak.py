"""A small run of scripts/soak: nothing is left of sessions, however they end."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.deadline import scaled
from tests.support.proc import TRANSPORTS
from tests.support.server import ROOT, environment


@pytest.mark.parametrize("transports", TRANSPORTS)
def test_nothing_is_left(transports: str) -> None:
    """After some hundred sessions, and some whose clients vanished without a close, children, descriptors and memory are as before."""
    words = (sys.executable, str(ROOT / "scripts" / "soak.py"), "--cycles=400", "--vanishing=60", f"--transports={transports}")
    ended = subprocess.run(words, env=environment({}), capture_output=True, text=True, timeout=scaled(120), check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
