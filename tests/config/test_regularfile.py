"""Files that a configuration names: regular files up to a limit, and an immediate error for each other type."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.config.otheruser import unprivileged
from wsbridge.config.regularfile import UnusableFile, read_regular

pytestmark = pytest.mark.timeout(60)
"""Timeout in seconds for opening the other end of a FIFO."""


def why(path: Path | str) -> str:
    with pytest.raises(UnusableFile) as caught:
        read_regular(str(path), limit=1024)
    return str(caught.value)


def test_content(tmp_path: Path) -> None:
    """A file within the limit is read, also through a link."""
    path = tmp_path / "file"
    for content in (b"", b"\0\xff", b"x" * 1024):
        path.write_bytes(content)
        assert read_regular(str(path), limit=1024) == content
    (tmp_path / "link").symlink_to(path)
    assert read_regular(str(tmp_path / "link"), limit=1024) == b"x" * 1024


@pytest.mark.parametrize(("limit", "shown"), [(1024, "1 KiB"), (64 * 1024, "64 KiB"), (1024 * 1024, "1 MiB")])
def test_longer_than_the_limit(tmp_path: Path, limit: int, shown: str) -> None:
    """A file that exceeds the limit by one byte is an error that names the limit."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * (limit + 1))
    with pytest.raises(UnusableFile, match=f"^longer than {shown}, the limit for such a file; shorten it, or name another file$"):
        read_regular(str(path), limit=limit)


def test_endless_file() -> None:
    """An endless device is not a regular file."""
    assert why("/dev/zero") == "a device, not a regular file; name a regular file"


def test_kinds(tmp_path: Path) -> None:
    """The error names a directory, a FIFO and a socket as such."""
    os.mkfifo(tmp_path / "fifo")
    assert why(tmp_path) == "a directory, not a regular file; name a regular file"
    assert why(tmp_path / "fifo") == "a FIFO, not a regular file; name a regular file"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        assert why(tmp_path / "socket") == "a socket, not a regular file; name a regular file"


def test_missing(tmp_path: Path) -> None:
    """A missing file, a file in a missing folder, a dangling link and an empty name have the same error."""
    (tmp_path / "dangling").symlink_to("nowhere")
    for path in (tmp_path / "missing", tmp_path / "no" / "file", tmp_path / "dangling", ""):
        assert why(path) == "no such file; create the file, or correct the name"


def test_permission(tmp_path: Path) -> None:
    """A file without read permission and a file in an inaccessible folder have the same remedy."""
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.touch()
    path.chmod(0)
    with unprivileged(path.parent):
        assert why(path) == "permission denied; let the user that runs wsbridge read the file"
    path.chmod(0o644)
    path.parent.chmod(0)
    with unprivileged(tmp_path):
        assert why(path) == "permission denied; let the user that runs wsbridge read the file"
    path.parent.chmod(0o700)


def test_impossible_names(tmp_path: Path) -> None:
    """An impossible file name is an error like a missing file."""
    assert why("a\0b") == "no file can have this name; correct the name"
    assert why("\ud800") == "no file can have this name; correct the name"
    assert why("x" * 1000) == "file name too long; correct the name, or the file"
    (tmp_path / "loop").symlink_to("loop")
    assert why(tmp_path / "loop") == "too many levels of symbolic links; correct the name, or the file"
    (tmp_path / "file").touch()
    assert why(tmp_path / "file" / "below") == "not a directory; correct the name, or the file"
