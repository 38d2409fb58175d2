"""Starting a program: its inherited state, and the error if it cannot start."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.proc import SHORT_LADDER, Starter, descriptors, nothing_left, same_limits, which
from tests.support.server import children, command_line
from tests.support.tool import command
from wsbridge.errors import ConfigurationError, ProgramError
from wsbridge.framing import chunks
from wsbridge.process.inherited import DEFAULTED
from wsbridge.process.launch import Launcher
from wsbridge.process.spawn import Spawner, find_program, open_stdio
from wsbridge.process.terminal import PLAIN

STAT = "read pid name state parent group session terminal rest </proc/$$/stat; echo $pid $group $session"


@pytest.mark.parametrize("pty", [False, True], ids=["pipe", "pty"])
async def test_descriptors(start: Starter, pty: bool) -> None:
    """A program has only the descriptors 0, 1 and 2."""
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    try:
        running = start(*command("descriptors"), pty=pty)
        await running.ended()
    finally:
        for fd in others:
            os.close(fd)
    assert [line.split()[0] for line in running.output.messages] == [b"0", b"1", b"2"]


async def test_own_session_and_group(start: Starter) -> None:
    """A program leads its own session and its own process group."""
    running = start("sh", "-c", STAT)
    assert await running.line() == " ".join([str(running.child.group.pid)] * 3)


async def test_no_signal_is_blocked(start: Starter) -> None:
    """A program has an empty signal mask, and the default dispositions of SIGPIPE and SIGXFSZ."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        running = start("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    await running.ended()
    blocked, ignored = (int(line.split()[1], 16) for line in running.output.messages)
    assert blocked == 0
    assert [number.name for number in (signal.SIGPIPE, signal.SIGXFSZ) if ignored >> number - 1 & 1] == []


async def test_no_signal_is_ignored(start: Starter) -> None:
    """Whatever signals this process ignores, as a shell's background job or under nohup, a program ignores no signal."""
    numbers = sorted(DEFAULTED - {signal.SIGCHLD})
    before = [signal.signal(number, signal.SIG_IGN) or signal.SIG_DFL for number in numbers]
    try:
        running = start("grep", "SigIgn", "/proc/self/status")
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    mask = int((await running.line()).partition(":")[2], 16)
    assert [number for number in numbers if mask >> number - 1 & 1] == []


async def test_environment_is_exactly_the_given_one(start: Starter) -> None:
    """A program gets exactly the given environment, and nothing of the server's own."""
    running = start("env", environment={"B": "two words", "A": "é"})
    await running.ended()
    assert sorted(running.output.messages) == ["A=é".encode(), b"B=two words"]


async def test_argv0_is_the_resolved_path(start: Starter) -> None:
    """A program's argv[0] is the path where it was found. Its arguments are unchanged, also empty ones."""
    running = start("sh", "-c", r'tr "\0" "|" </proc/$$/cmdline; exit $?', "", " a  b ", "")
    assert await running.line() == f'{which("sh")}|-c|tr "\\0" "|" </proc/$$/cmdline; exit $?|| a  b ||'


async def test_directory(spawner: Spawner, tmp_path: Path) -> None:
    """A program starts in the given directory; the server's working directory does not change."""
    before = os.getcwd()
    stdio = open_stdio()
    spawned = spawner.spawn((which("pwd"), "-P"), {}, stdio, cwd=str(tmp_path))
    try:
        os.set_blocking(stdio.stdout, True)
        assert os.read(stdio.stdout, 4096).decode() == f"{os.path.realpath(tmp_path)}\n"  # noqa: ASYNC240
    finally:
        status = asyncio.get_running_loop().create_future()
        spawned.watch(status.set_result)
        assert await status == 0
        stdio.close_ours()
    assert os.getcwd() == before


def fail(spawner: Spawner, argv: tuple[str, ...], environment: dict[str, str]) -> None:
    """Start a program that cannot start; raises ProgramError."""
    stdio = open_stdio()
    try:
        spawner.spawn(argv, environment, stdio)
    finally:
        stdio.close_ours()


@pytest.fixture
def limited() -> Iterator[Spawner]:
    """A Spawner of a server that was started with a soft limit of 512 descriptors."""
    with same_limits():
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        spawner = Spawner()
        yield spawner
        os.close(spawner._home)


async def test_limit_of_descriptors(limited: Spawner) -> None:
    """The server raises its soft descriptor limit to the hard limit. A program gets the original limit, and may raise it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    starter = Starter(limited)
    running = starter("sh", "-c", "ulimit -Sn; ulimit -Hn")
    await running.ended()
    await starter.close()
    assert running.output.messages == [b"512", str(hard).encode()]
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


def make_file(path: Path, text: str, mode: int = 0o755) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("echo no first line\n", 0o755, ["first line", "#!"]),
        ("#!/no/such/interpreter\n", 0o755, ["interpreter"]),
        ("#!/bin/sh\n", 0o644, ["permission denied"]),
    ],
    ids=["no-shebang", "no-interpreter", "not-executable"],
)
def test_error_if_a_program_cannot_start(spawner: Spawner, tmp_path: Path, text: str, mode: int, words: list[str]) -> None:
    """If a program cannot start, the error has its path and the likely cause, and no descriptor stays open."""
    if os.geteuid() == 0 and not mode & 0o111:
        mode = 0  # even root may not execute a file without execute permission
    path = make_file(tmp_path / "program", text, mode)
    before = descriptors()
    with pytest.raises(ProgramError) as caught:
        fail(spawner, (path,), {})
    assert descriptors() == before
    assert str(caught.value).startswith(f"Could not launch process {path}: ")
    assert [word for word in words if word not in str(caught.value).lower()] == []


@pytest.mark.parametrize("what", ["argument", "environment"])
def test_arguments_too_long(spawner: Spawner, what: str) -> None:
    """Arguments and an environment beyond the kernel's limit are an error that says so."""
    long = "x" * 200_000
    argv, environment = (("/bin/true", long), {}) if what == "argument" else (("/bin/true",), {"LONG": long})
    with pytest.raises(ProgramError, match="longer than the system allows"):
        fail(spawner, argv, environment)


@pytest.mark.parametrize("pty", [False, True], ids=["pipe", "pty"])
async def test_no_descriptors_left(start: Starter, pty: bool) -> None:
    """If descriptors run out at any point of the start, the program does not start, and the error states the reason."""
    launcher = Launcher(start.spawner, start.descendants, SHORT_LADDER, loop=asyncio.get_running_loop())
    decoder, encoder = chunks.Decoder(), chunks.Encoder()
    before = descriptors()
    with few_descriptors() as spare:
        for _ in range(7):
            with pytest.raises(ProgramError, match=r"too many open files.*ulimit"):
                launcher.launch(("/bin/cat",), {}, decoder=decoder, encoder=encoder, fields={}, pty=PLAIN if pty else None)
            os.close(spare.pop())
    assert descriptors() == before
    assert [pid for pid in children(os.getpid()) if command_line(pid) == "/bin/cat"] == []


@contextmanager
def few_descriptors() -> Iterator[list[int]]:
    """Use up all descriptors of this process. Closing one of the yielded descriptors leaves room for one."""
    spare: list[int] = []
    with same_limits():
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors()) + 10, hard))
        try:
            with suppress(OSError):
                while True:
                    spare.append(os.open(os.devnull, os.O_RDONLY))
            yield spare
        finally:
            for fd in spare:
                os.close(fd)


def test_command_is_searched_in_path(tmp_path: Path) -> None:
    """A COMMAND without a slash is the first executable file of that name in PATH. A COMMAND with a slash is unchanged."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    make_file(first / "tool", "", 0o644)
    (first / "other").mkdir()
    for name in ("tool", "other"):
        make_file(second / name, "#!/bin/sh\n")
    path = f"{first}:{second}"
    assert find_program("tool", path) == str(second / "tool")
    assert find_program("other", path) == str(second / "other")
    assert find_program(f"{first}/../second/tool", "") == f"{first}/../second/tool"


def test_command_through_a_relative_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server refuses a COMMAND that it finds through `.` in PATH; the error suggests the correct form."""
    make_file(tmp_path / "tool", "#!/bin/sh\n")
    monkeypatch.chdir(tmp_path)
    for path in (".", ""):
        with pytest.raises(ConfigurationError, match=r"\./tool"):
            find_program("tool", f"{path}:/bin")


def test_missing_command_is_explained(tmp_path: Path) -> None:
    """The server refuses a COMMAND that is missing, a directory or not executable; the error states which."""
    make_file(tmp_path / "plain", "", 0o644)
    for word, words in (("none", "no such file"), (".", "directory"), ("plain", "chmod")):
        with pytest.raises(ConfigurationError, match=words):
            find_program(f"{tmp_path}/{word}", "")
    for word in ("no-such-command", "", "-"):
        with pytest.raises(ConfigurationError, match=f"unable to locate specified <command> '{word}' in OS path"):
            find_program(word, "/bin:/usr/bin")


def test_invalid_words_and_variables(spawner: Spawner) -> None:
    """An argument or variable that the kernel cannot represent is an error like any other, and leaves no descriptor."""
    with nothing_left():
        for argv, environment in ((("/bin/true", "a\0b"), {}), (("/bin/true",), {"A": "b\0"}), (("/bin/true",), {"A=": "b"})):
            with pytest.raises(ProgramError, match="Could not launch process /bin/true"):
                fail(spawner, argv, environment)
