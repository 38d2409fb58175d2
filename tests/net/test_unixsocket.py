"""Permissions of the Unix socket: only its owner can connect, unless flags allow others. They are never wider, even for a moment."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.server import START_DEADLINE, run
from tests.support.site import Serve
from wsbridge.errors import ListenError
from wsbridge.net.unixsocket import UNCHANGED, bind_unix

NOBODY = 65534
IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="gives a file to another user")


def rights(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        ((), 0o600),
        (("--unixsocket-mode=666",), 0o666),
        (("--unixsocket-mode=0660",), 0o660),
        (("--unixsocket-mode=0o777",), 0o777),
        (("--unixsocket-mode=000",), 0),
        ((f"--unixsocket-group={os.getegid()}",), 0o660),
        ((f"--unixsocket-group={grp.getgrgid(os.getegid()).gr_name}", "--unixsocket-mode=620"), 0o620),
    ],
)
def test_mode(serve: Serve, tmp_path: Path, umask: int, flags: tuple[str, ...], mode: int) -> None:
    """The default mode is 600, or 660 with `--unixsocket-group`. The umask has no effect."""
    path = tmp_path / "s"
    masked = ("sh", "-c", f'umask {umask:o}; exec "$@"', "sh")
    server = serve(*flags, "cat", listen=(f"--unixsocket={path}",), unix=str(path), prefix=masked)
    assert rights(path) == (mode, os.geteuid(), os.getegid())
    if IS_ROOT or mode & 0o600 == 0o600:
        server.connect().drop()


@needs_root
def test_owner_and_group(serve: Serve, tmp_path: Path) -> None:
    """Flags set the owner and the group by name or number. Only the owner and the group's users can connect."""
    path = tmp_path / "s"
    nobody = pwd.getpwuid(NOBODY)
    group = grp.getgrgid(nobody.pw_gid).gr_name
    tmp_path.chmod(0o755)
    for flags, expected in (
        ((f"--unixsocket-owner={nobody.pw_name}",), (0o600, NOBODY, os.getegid())),
        ((f"--unixsocket-owner={NOBODY}", f"--unixsocket-group={group}"), (0o660, NOBODY, nobody.pw_gid)),
        ((f"--unixsocket-group={group}",), (0o660, 0, nobody.pw_gid)),
    ):
        server = serve(*flags, "cat", listen=(f"--unixsocket={path}",), unix=str(path))
        assert rights(path) == expected
        server.stop()


@needs_root
@pytest.mark.parametrize(("flags", "gets_in"), [((), False), (("--unixsocket-mode=666",), True), (("--unixsocket-group=nogroup",), True)])
def test_another_user(serve: Serve, tmp_path_factory: pytest.TempPathFactory, flags: tuple[str, ...], gets_in: bool) -> None:
    """A proxy that runs as another user can connect if the flags allow it."""
    folder = Path(tmp_path_factory.mktemp("open"))
    let_in(folder)
    path = folder / "s"
    serve(*flags, "cat", listen=(f"--unixsocket={path}",), unix=str(path))
    assert (as_nobody(lambda: socket.socket(socket.AF_UNIX).connect(str(path))) is None) is gets_in


def let_in(folder: Path) -> None:
    """Let every user reach the files in a folder of the tests."""
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o055)


def as_nobody(work: Callable[[], object]) -> str | None:
    """Call a function as the user nobody, in a child process; return the error message."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            work()
        except BaseException as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said or None


def test_no_moment_of_wider_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its creation on, the socket's file never has a permission that the final mode lacks."""
    path = tmp_path / "s"
    seen: list[int] = []
    chmod = os.chmod

    def watching(name: str, mode: int) -> None:
        seen.append(rights(path)[0])
        chmod(name, mode)

    monkeypatch.setattr(os, "chmod", watching)
    before = os.umask(0)
    try:
        sock, _ = bind_unix(str(path), mode=0o600)
        sock.close()
    finally:
        os.umask(before)
    assert (seen, rights(path)[0]) == ([0], 0o600)


@needs_root
def test_change_of_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """During a change, no user can connect that may connect neither before nor after. The value -1 restores the file's first owner or
    group."""
    path = tmp_path / "s"
    tmp_path.chmod(0o2755)
    os.chown(tmp_path, -1, NOBODY)
    sock, file = bind_unix(str(path), mode=0o660, group=0)
    seen: list[tuple[int, int, int]] = []

    def watching(call: Callable[..., None], *words: object) -> None:
        call(*words)
        seen.append(rights(path))

    for name in ("chmod", "chown"):
        monkeypatch.setattr(os, name, partial(watching, getattr(os, name)))
    file.give(mode=0o606, owner=NOBODY, group=UNCHANGED)
    assert seen == [(0o600, 0, 0), (0o600, NOBODY, NOBODY), (0o606, NOBODY, NOBODY)]
    file.give(mode=0o666, owner=UNCHANGED, group=UNCHANGED)
    assert rights(path) == (0o666, 0, NOBODY)
    sock.close()


@needs_root
def test_change_that_is_not_permitted(tmp_path: Path) -> None:
    """If the process may not set the owner and the group, the mode does not change either."""
    tmp_path.chmod(0o777)
    path = tmp_path / "s"
    let_in(tmp_path)

    def work() -> None:
        _, file = bind_unix(str(path), mode=0o660)
        file.give(mode=0o600, owner=UNCHANGED, group=0)

    said = as_nobody(work)
    assert said
    assert "cannot set the owner and group" in said
    assert rights(path) == (0o660, NOBODY, NOBODY)


def test_change_after_a_replacement(tmp_path: Path) -> None:
    """If another file has replaced the socket, it keeps its permissions, and the server does not remove it."""
    path = tmp_path / "s"
    sock, file = bind_unix(str(path), mode=0o600)
    path.rename(tmp_path / "moved")
    path.write_text("")
    path.chmod(0o644)
    with pytest.raises(ListenError, match="another file replaced the socket"):
        file.give(mode=0o666, owner=UNCHANGED, group=UNCHANGED)
    file.remove()
    assert rights(path)[0] == 0o644
    path.unlink()
    with pytest.raises(ListenError, match=r"cannot set the mode of .*: no such file or directory"):
        file.give(mode=0o666, owner=UNCHANGED, group=UNCHANGED)
    file.remove()
    sock.close()


def test_replacement_by_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a symbolic link replaces the socket before the server sets the mode, the link's target keeps its mode."""
    path, precious = tmp_path / "s", tmp_path / "precious"
    precious.write_text("")
    precious.chmod(0o600)
    bind = socket.socket.bind

    class Swapped(socket.socket):
        def bind(self, address: object) -> None:
            bind(self, address)  # type: ignore[arg-type]
            path.unlink()
            path.symlink_to(precious)

    monkeypatch.setattr(socket, "socket", Swapped)
    with pytest.raises(ListenError):
        bind_unix(str(path), mode=0o666)
    assert rights(precious)[0] == 0o600


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("--unixsocket-mode=888",), "write three octal digits, such as 660"),
        (("--unixsocket-mode=rw",), "write three octal digits, such as 660"),
        (("--unixsocket-mode=1777",), "write three octal digits, such as 660"),
        (("--unixsocket-mode=-1",), "write three octal digits, such as 660"),
        (("--unixsocket-owner=no-such-user",), "no such user"),
        (("--unixsocket-group=no-such-group",), "no such group"),
        (("--unixsocket-group=4294967295",), "no such group"),
        (("--unixsocket-owner=99999999999",), "no such user"),
    ],
)
def test_invalid_values(tmp_path: Path, words: tuple[str, ...], remedy: str) -> None:
    """With an invalid mode, user or group, the server exits with an error, and leaves no file."""
    ended = run(f"--unixsocket={tmp_path}/s", *words, "cat", timeout=START_DEADLINE)
    assert ended.returncode == 1
    assert words[0] in ended.stderr
    assert remedy in ended.stderr
    assert not list(tmp_path.iterdir())


def test_rights_without_a_socket() -> None:
    """The flags for the socket's permissions require the socket's flag."""
    ended = run("--unixsocket-mode=660", "--port=0", "cat", timeout=START_DEADLINE)
    assert (ended.returncode, "--unixsocket-mode needs --unixsocket" in ended.stderr) == (1, True)


@needs_root
def test_group_that_is_not_permitted(tmp_path: Path) -> None:
    """If the user may not set the socket's group, the error states the requirement, and no file stays."""
    tmp_path.chmod(0o777)
    path = tmp_path / "s"
    let_in(tmp_path)
    said = as_nobody(lambda: bind_unix(str(path), mode=0o660, group=0))
    assert said
    assert "operation not permitted; run the server as root" in said
    assert not path.exists()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_address_in_use(serve: Serve, tmp_path: Path, kind: str) -> None:
    """The error for an address in use has the words that scripts search for, and the exit status is 3."""
    path = str(tmp_path / "s")
    if kind == "unix":
        server = serve("cat", listen=(f"--unixsocket={path}",), unix=path)
        words = (f"--unixsocket={path}",)
        server.wait_for_log(f"Starting WebSocket server   : unix socket at {path}$")
    else:
        server = serve("cat")
        words = ("--address=127.0.0.1", f"--port={server.port}")
    ended = run(*words, "cat", timeout=START_DEADLINE)
    assert (ended.returncode, "address already in use" in ended.stdout) == (3, True)
