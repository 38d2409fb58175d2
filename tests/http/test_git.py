"""Smart HTTP with a real git and its own CGI program."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.deadline import scaled
from tests.support.site import Serve, write_script

DEADLINE = 120.0
"""Timeout in seconds for one command of git, with a large margin for a busy machine."""


@pytest.fixture
def git(tmp_path: Path) -> Git:
    return Git(tmp_path)


class Git:
    """git with its own home directory."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *words: str, cwd: Path) -> str:
        own = {"HOME": str(self.home), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
        options = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "core.compression=0", "-c", "init.defaultBranch=main")
        done = subprocess.run(
            ["git", *options, *words], cwd=cwd, env=os.environ | own, capture_output=True, text=True, timeout=scaled(DEADLINE), check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_clone_and_push(serve: Serve, git: Git, tmp_path: Path) -> None:
    """git clones a repository, and pushes 20 MiB in chunks, through git http-backend."""
    git("init", "-q", "--bare", "served.git", cwd=tmp_path)
    git("config", "http.receivepack", "true", cwd=tmp_path / "served.git")
    (tmp_path / "cgi").mkdir()
    write_script(tmp_path / "cgi" / "git", f"export GIT_PROJECT_ROOT={tmp_path} GIT_HTTP_EXPORT_ALL=1 REMOTE_USER=n\nexec git http-backend")
    server = serve(f"--cgidir={tmp_path / 'cgi'}")
    url = f"http://127.0.0.1:{server.port}/git/served.git"

    work = tmp_path / "work"
    git("clone", "-q", url, str(work), cwd=tmp_path)
    (work / "large").write_bytes(os.urandom(20 << 20))
    for number in range(30):
        (work / f"small{number}").write_text(f"{number}\n")
    git("add", ".", cwd=work)
    git("commit", "-q", "-m", "all", cwd=work)
    git("push", "-q", "origin", "HEAD:main", cwd=work)
    assert "Transfer-Encoding" not in server.log

    again = tmp_path / "again"
    git("clone", "-q", url, str(again), cwd=tmp_path)
    assert (again / "large").read_bytes() == (work / "large").read_bytes()
    (again / "small0").write_text("changed\n")
    git("commit", "-q", "-am", "more", cwd=again)
    git("push", "-q", cwd=again)
    git("pull", "-q", "origin", "main", cwd=work)
    assert (work / "small0").read_text() == "changed\n"
