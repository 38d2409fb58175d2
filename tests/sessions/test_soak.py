"""A short run of scripts/soak: sessions leave nothing behind, however they end."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.deadline import scaled
from tests.support.proc import TRANSPORTS
from tests.support.server import ROOT, environment


@pytest.mark.parametrize("transports", TRANSPORTS)
def test_nothing_is_left_behind(transports: str) -> None:
    """After hundreds of sessions, some with vanished clients, the children, descriptors and memory are as before."""
    words = (sys.executable, str(ROOT / "scripts" / "soak.py"), "--cycles=400", "--vanishing=60", f"--transports={transports}")
    ended = subprocess.run(words, env=environment({}), capture_output=True, text=True, timeout=scaled(120), check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
