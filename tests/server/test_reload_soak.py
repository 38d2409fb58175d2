"""A short run of scripts/reload-soak: reloads leave nothing behind, and clients of unchanged endpoints notice nothing."""

from __future__ import annotations

import subprocess
import sys

from tests.support.deadline import scaled
from tests.support.server import ROOT, environment


def test_reloads_leave_nothing_behind() -> None:
    """After twenty reloads under load, no message is lost or duplicated, and children, descriptors and memory are as before."""
    words = (sys.executable, str(ROOT / "scripts" / "reload_soak.py"), "--sessions=20", "--viewers=5", "--changes=20", "--late=60")
    ended = subprocess.run(words, env=environment({}), capture_output=True, text=True, timeout=scaled(120), check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
