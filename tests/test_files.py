"""Files that a user names: opening a FIFO does not block, and other files open as with `open`."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from wsbridge.files import open_at_once

pytestmark = pytest.mark.timeout(60)
"""Seconds after which a wait for the other end of a FIFO counts as blocked."""


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def regular(tmp_path: Path) -> Path:
    path = tmp_path / "regular"
    path.write_bytes(b"content")
    return path


def test_fifo_without_a_writer(fifo: Path) -> None:
    """A FIFO without a writer opens at once, and is empty."""
    with open(fifo, "rb", opener=open_at_once) as file:
        assert file.read() == b""


def test_fifo_with_an_idle_writer(fifo: Path) -> None:
    """A read from a FIFO whose writer has written nothing returns at once; later data arrives."""
    with open(fifo, "rb", buffering=0, opener=open_at_once) as file, open(fifo, "wb", buffering=0, opener=open_at_once) as writer:
        assert file.read(10) is None
        writer.write(b"late")
        assert file.read(10) == b"late"


def test_fifo_without_a_reader(fifo: Path) -> None:
    """An open of a FIFO for writing fails at once if no process reads it."""
    with pytest.raises(OSError, match="No such device or address") as caught, open(fifo, "wb", buffering=0, opener=open_at_once):
        pass
    assert caught.value.errno == errno.ENXIO


def test_link_to_a_fifo(fifo: Path, tmp_path: Path) -> None:
    """A symbolic link to a FIFO opens at once, like the FIFO itself."""
    link = tmp_path / "link"
    link.symlink_to(fifo)
    with open(link, "rb", opener=open_at_once) as file:
        assert file.read() == b""


def test_regular_file(regular: Path) -> None:
    """A regular file is read whole, and its descriptor is not inherited."""
    with open(regular, "rb", opener=open_at_once) as file:
        assert file.read() == b"content"
        assert not os.get_inheritable(file.fileno())


def test_flags_of_the_caller(regular: Path) -> None:
    """The opener keeps the flags of the caller: read only, append, truncate, exclusive."""
    with open(regular, "rb", opener=open_at_once) as file, pytest.raises(OSError, match="Bad file descriptor"):
        os.write(file.fileno(), b"x")
    with open(regular, "ab", opener=open_at_once) as file:
        file.write(b" and more")
    assert regular.read_bytes() == b"content and more"
    with pytest.raises(FileExistsError), open(regular, "xb", opener=open_at_once):
        pass
    open(regular, "wb", opener=open_at_once).close()
    assert regular.read_bytes() == b""


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_descriptor(regular: Path, flags: int) -> None:
    """The opener returns a descriptor that does not block."""
    fd = open_at_once(str(regular), flags)
    try:
        assert not os.get_blocking(fd)
        assert os.read(fd, 100) == b"content"
    finally:
        os.close(fd)


@pytest.mark.parametrize("name", ["missing", "missing/file", "dangling"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    """A missing file raises the error of `open`, with the path that the user named."""
    (tmp_path / "dangling").symlink_to("nowhere")
    path = str(tmp_path / name)
    with pytest.raises(FileNotFoundError) as caught, open(path, "rb", opener=open_at_once):
        pass
    assert caught.value.filename == path


def test_path_through_a_file(regular: Path) -> None:
    """A path below a regular file raises the error of `open`."""
    with pytest.raises(NotADirectoryError), open(regular / "below", "rb", opener=open_at_once):
        pass


def test_directory(tmp_path: Path) -> None:
    """A directory raises the error of `open`."""
    with pytest.raises(IsADirectoryError), open(tmp_path, "rb", opener=open_at_once):
        pass


def test_unix_socket(tmp_path: Path) -> None:
    """Opening a Unix socket fails at once."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        with pytest.raises(OSError, match="No such device or address"), open(path, "rb", opener=open_at_once):
            pass


def test_device() -> None:
    """A character device opens like a file."""
    with open("/dev/null", "rb", opener=open_at_once) as file:
        assert file.read() == b""
