"""The supervisor of a program: it passes on the output, writes the input, and restarts the program when it exits."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.proc import PATIENT, SHORT, Starter, adopting, no_callback_fails, nothing_left, python, turns, until
from tests.support.server import is_alive, mortal, tell
from tests.support.tool import command, recorded
from wsbridge.errors import ProgramError
from wsbridge.flow import Batch, Kind, Memory
from wsbridge.metrics import Metrics
from wsbridge.process.child import Child
from wsbridge.process.spawn import Spawner
from wsbridge.process.termination import Step
from wsbridge.rules.restarts import Restart, Restarts
from wsbridge.sessions import supervisor as supervisors
from wsbridge.sessions.drain import Drain
from wsbridge.sessions.supervisor import Supervisor

AT_ONCE = (Step(0.05, signal.SIGKILL),)


class Quick(Restarts):
    """Decides like its base class, with pauses that are a hundred times shorter."""

    def __init__(self, policy: Restart, *, faster: float = 100) -> None:
        super().__init__(policy)
        self.faster = faster
        self.decided: list[tuple[int, float | None]] = []

    def after(self, status: int, ran: float) -> float | None:
        pause = super().after(status, ran)
        self.decided.append((status, pause))
        return pause / self.faster if pause is not None else None


class Kept:
    """A running supervisor: `output` has the program's output, `writer` is the source of its stdin."""

    def __init__(self, start: Starter, argv: Sequence[object], **options: Any) -> None:
        # The source is paused until the program runs.
        self.output, self.writer, self.metrics = Memory(), Memory(paused=True), Metrics()
        policy = options.pop("restart", Restart.ALWAYS)
        self.restarts = options.pop("restarts", None) or Quick(policy)
        self.supervisor = Supervisor(
            options.pop("launch", None) or (lambda: start.make(*argv, **options).child),
            self.output.write,
            reads=options.pop("reads", False),
            restarts=self.restarts,
            drain_seconds=options.pop("drain_seconds", 0.1),
            fields={"exchange": "x"},
            metrics=self.metrics,
            loop=asyncio.get_running_loop(),
        )
        self.supervisor.source = self.writer
        self.task = asyncio.create_task(self.supervisor.run(), name="the supervisor of a test")

    def say(self, *lines: bytes) -> None:
        self.supervisor.write(Batch(Kind.TEXT, list(lines)))

    async def lines(self, count: int) -> list[str]:
        """Wait for `count` messages; return all."""
        await until(lambda: len(self.output.messages) >= count, f"{count} messages of the program")
        return [message.decode() for message in self.output.messages]

    async def over(self) -> None:
        """Wait until the supervisor has ended."""
        await until(self.task.done, "the end of the keeping")
        await self.task

    async def stop(self) -> None:
        self.supervisor.stop()
        await self.over()


Keep = Callable[..., Kept]


@pytest.fixture
async def keep(spawner: Spawner, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Keep]:
    """Starts supervisors: `keep("cat", reads=True)`. After the test, nothing of them remains."""
    caplog.set_level(logging.INFO, "wsbridge")
    with nothing_left(), adopting(), no_callback_fails():
        starter, kept = Starter(spawner), []

        def start(*argv: object, **options: Any) -> Kept:
            kept.append(Kept(starter, argv, **options))
            return kept[-1]

        yield start
        for one in kept:
            one.supervisor.kill()
            await one.over()
        await starter.close()


# Output and restart


async def test_restart(keep: Keep) -> None:
    """A program that exits is restarted, and the output of each run follows the output of the previous run."""
    kept = keep("sh", "-c", "seq 1000")
    assert (await kept.lines(3000))[:3000] == [str(number) for number in range(1, 1001)] * 3
    await kept.stop()
    assert kept.metrics.program_restarts >= 2


@pytest.mark.parametrize(
    ("policy", "script", "status", "again"),
    [
        (Restart.ALWAYS, "exit 0", 0, True),
        (Restart.ALWAYS, "exit 3", 3, True),
        (Restart.ON_FAILURE, "exit 0", 0, False),
        (Restart.ON_FAILURE, "exit 3", 3, True),
        (Restart.ON_FAILURE, "kill -KILL $$", -9, True),
        (Restart.NEVER, "exit 0", 0, False),
        (Restart.NEVER, "exit 3", 3, False),
    ],
)
async def test_policies(keep: Keep, policy: Restart, script: str, status: int, again: bool) -> None:
    """`--restart` decides by the program's exit status; all output is passed on in any case."""
    kept = keep("sh", "-c", f"echo run; {script}", restart=policy)
    if again:
        await until(lambda: kept.metrics.program_restarts >= 2, "two new starts")
        await kept.stop()
    else:
        await kept.over()
        assert await kept.lines(1) == ["run"]
        assert kept.metrics.program_restarts == 0
    assert kept.restarts.decided[0][0] == status


async def test_growing_pauses(keep: Keep) -> None:
    """A program that keeps exiting at once is restarted after growing pauses."""
    kept = keep("false", restarts=Quick(Restart.ALWAYS, faster=1000))
    await until(lambda: len(kept.restarts.decided) >= 6, "six ends")
    assert kept.restarts.decided[:6] == [(1, 0.5), (1, 1), (1, 2), (1, 4), (1, 8), (1, 16)]


async def test_program_that_cannot_start(keep: Keep, caplog: pytest.LogCaptureFixture) -> None:
    """A program that cannot start is retried like a program that exits at once, and the log states the reason."""
    tries = []

    def launch() -> Child:
        tries.append(1)
        raise ProgramError("there is no such program")

    kept = keep(launch=launch)
    await until(lambda: len(tries) >= 3, "three tries")
    assert kept.metrics.launch_failures >= 3
    assert kept.restarts.decided[0] == (126, 0.5)
    assert "there is no such program" in caplog.text


async def test_log(keep: Keep, caplog: pytest.LogCaptureFixture) -> None:
    """The log has the program's exit status and the supervisor's decision."""
    kept = keep("sh", "-c", "exit 3", restarts=Quick(Restart.ALWAYS, faster=1000))
    await until(lambda: len(kept.restarts.decided) >= 2, "two ends")
    await kept.stop()
    never = keep("sh", "-c", "exit 4", restart=Restart.NEVER)
    await never.over()
    assert "exit 3; restarting the program in 0.0005 s" in caplog.text
    assert "exit 4; not restarting the program" in caplog.text


async def test_exit_is_not_logged_as_a_closed_stdout(keep: Keep, caplog: pytest.LogCaptureFixture) -> None:
    """An ordinary exit is not logged as a closed stdout, although stdout closes a moment before."""
    kept = keep(*python("print('x')"), restarts=Quick(Restart.ALWAYS, faster=100_000), ladder=PATIENT)
    await kept.lines(25)
    await until(lambda: len(kept.restarts.decided) >= 25, "25 ends")
    assert "closed its stdout" not in caplog.text


async def test_slow_exit_keeps_its_status(keep: Keep) -> None:
    """A program that exits a moment after it closed its stdout still ends with its own status."""
    kept = keep("sh", "-c", "exec >&-; sleep 0.2; exit 0", restart=Restart.ON_FAILURE, ladder=PATIENT)
    await kept.over()
    assert kept.restarts.decided == [(0, None)]


async def test_last_line_without_a_newline(keep: Keep) -> None:
    """An unterminated last line of a run is passed on, and is not joined to the first line of the next run."""
    kept = keep("printf", "one")
    assert (await kept.lines(2))[:2] == ["one", "one"]


async def test_last_line_while_a_process_holds_stdout(keep: Keep) -> None:
    """An unterminated last line is passed on, although a process outside the group holds stdout open for ever."""
    kept = keep("sh", "-c", "setsid sleep 1000 & echo $!; printf 'whole\\nhalf'", restart=Restart.NEVER)
    pid = int((await kept.lines(1))[0])
    with mortal(pid):
        await kept.over()
        assert (await kept.lines(3))[1:] == ["whole", "half"]


# Other processes that hold stdout


async def test_grandchild_that_holds_stdout(keep: Keep) -> None:
    """The supervisor waits at most --drainms for a grandchild that holds stdout open, and ends it. Then it restarts the program."""
    kept = keep("sh", "-c", "sleep 1000 & echo $!", drain_seconds=0.1)
    grandchild = int((await kept.lines(1))[0])
    with mortal(grandchild):
        await kept.lines(2)
        assert not is_alive(grandchild)


async def test_output_of_a_grandchild_during_the_drain(keep: Keep, fifo: str) -> None:
    """Output of a grandchild during the drain is passed on before the next run."""
    kept = keep("sh", "-c", f"(read line <{fifo}; echo heir) & echo parent", drain_seconds=1000, restart=Restart.NEVER)
    assert await kept.lines(1) == ["parent"]
    tell(Path(fifo), "go on")
    await kept.over()
    assert await kept.lines(2) == ["parent", "heir"]


# A closed stdout


@pytest.mark.parametrize("policy", Restart)
async def test_closed_stdout(keep: Keep, tmp_path: Path, policy: Restart, caplog: pytest.LogCaptureFixture) -> None:
    """A program that closes its stdout and continues has no more output: the ladder ends it, and the policy decides."""
    kept = keep(*command("witness", tmp_path / "record", "TERM", "stdout"), restart=policy)
    await until(lambda: kept.restarts.decided, "its end")
    assert [event for event, _ in recorded(tmp_path / "record")][:3] == ["eof", "INT", "TERM"]
    assert "closed its stdout" in caplog.text


async def test_closed_stdout_is_a_failure(keep: Keep) -> None:
    """A program that closed its stdout counts as failed, even if it then exits with 0."""
    kept = keep("sh", "-c", "exec >&-; read line; exit 0", restart=Restart.ON_FAILURE, ladder=PATIENT)
    await until(lambda: kept.restarts.decided, "its end")
    assert kept.restarts.decided[0] == (1, 0.5)


async def test_closed_stdout_of_a_program_that_reads(keep: Keep, tmp_path: Path) -> None:
    """A program that reads its input may continue without a stdout."""
    said = tmp_path / "said"
    kept = keep("sh", "-c", f"echo ready; exec >&-; while read line; do echo $line >>{said}; [ $line = end ] && exit 0; done", reads=True)
    await kept.lines(1)
    await turns()
    kept.say(b"one", b"two")
    await until(lambda: said.exists() and said.read_text() == "one\ntwo\n", "what it was told")
    kept.say(b"end")
    await until(lambda: kept.restarts.decided, "its end")
    assert kept.restarts.decided[0] == (0, 0.5)


# Framing errors


async def test_message_too_long(keep: Keep, caplog: pytest.LogCaptureFixture) -> None:
    """A message over --maxline ends a run and is counted. Earlier messages are passed on, but no part of this one."""
    kept = keep("sh", "-c", f"echo before; exec {sys.executable} -c \"print('x' * 1000); input()\"", limit=100)
    assert (await kept.lines(2))[:2] == ["before", "before"]
    assert kept.metrics.messages_too_long >= 1
    assert "1009" in caplog.text


async def test_framing_error_begins_no_drain(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is ended for a framing error causes no drain, which would end the drain of the next run."""
    begun: list[object] = []

    class Recorded(Drain):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            begun.append(self)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(supervisors, "Drain", Recorded)
    # The leader exits at the first signal, while another process still holds stdout open.
    script = "(trap '' INT TERM; exec sleep 1000) & echo no record; exec sleep 1000"
    kept = keep("sh", "-c", script, framing="json", restart=Restart.NEVER, drain_seconds=1000)
    await kept.over()
    assert begun == []


async def test_flood_without_a_newline(keep: Keep) -> None:
    """A program that prints endlessly without a newline is ended each time it exceeds the limit."""
    kept = keep(*command("endless"), limit=1 << 20)
    await until(lambda: kept.metrics.messages_too_long >= 2, "two ends")
    assert kept.output.messages == []


@pytest.mark.parametrize("policy", [Restart.ALWAYS, Restart.ON_FAILURE])
async def test_framing_error_is_a_failure(keep: Keep, policy: Restart) -> None:
    """A program that is ended for a framing error counts as failed, even if it then exits with 0."""
    kept = keep("sh", "-c", "echo no record; cat; exit 0", framing="json", restart=policy, ladder=PATIENT)
    await until(lambda: kept.restarts.decided, "its end")
    assert kept.restarts.decided[0][1] == 0.5


async def test_close_record(keep: Keep) -> None:
    """A program that sends a close record in JSON is ended, and restarted like any program that exits."""
    record = '{"type":"message","text":"a"}\\n{"type":"close","code":4000,"reason":"enough"}\\n'
    kept = keep("sh", "-c", f"printf '{record}'; cat", framing="json")
    assert (await kept.lines(2))[:2] == ["a", "a"]


@pytest.mark.parametrize(("code", "status"), [(1000, 0), (4000, -9)])
async def test_close_record_with_a_normal_code(keep: Keep, code: int, status: int, caplog: pytest.LogCaptureFixture) -> None:
    """A close record with a normal code is no failure, although the program had to be ended; any other code is a failure."""
    record = f'{{"type":"close","code":{code},"reason":"so"}}\\n'
    kept = keep("sh", "-c", f"printf '{record}'; exec sleep 1000", framing="json", restart=Restart.ON_FAILURE, ladder=AT_ONCE)
    await until(lambda: kept.restarts.decided, "its end")
    assert kept.restarts.decided[0][0] == status
    [level] = [entry.levelno for entry in caplog.records if f"ending the program: {code} so" in entry.getMessage()][:1]
    assert level == (logging.INFO if code == 1000 else logging.ERROR)


# Input


async def test_input(keep: Keep) -> None:
    """Written messages reach the program's stdin, and its answers are passed on."""
    kept = keep("cat", reads=True)
    await until(lambda: not kept.writer.paused, "the program")
    kept.say(b"one", b"two")
    assert await kept.lines(2) == ["one", "two"]
    await kept.stop()
    assert kept.metrics.discarded_in == 0


async def test_stdin_is_open_and_silent(keep: Keep, tmp_path: Path) -> None:
    """Until the shutdown, the supervisor neither writes to an unused stdin nor closes it."""
    kept = keep(*command("witness", tmp_path / "record", "eof"))
    await kept.lines(1)
    await turns(200)
    assert recorded(tmp_path / "record") == []
    await kept.stop()
    assert [event for event, _ in recorded(tmp_path / "record")] == ["eof"]


async def test_program_that_does_not_read(keep: Keep) -> None:
    """A source that writes to a program that does not read is paused, and resumed when the program reads."""
    kept = keep("sh", "-c", "echo ready; read line; cat >/dev/null", reads=True)
    await kept.lines(1)
    line = b"x" * 1000
    kept.say(*[line] * 1000)
    await until(lambda: kept.writer.paused is False, "room again")


async def test_paused_between_two_runs(keep: Keep) -> None:
    """Between two runs, the source is paused; the next run resumes it."""
    kept = keep("sh", "-c", "echo run; read line; exit 0", reads=True, restarts=Quick(Restart.ALWAYS, faster=5))
    await kept.lines(1)
    assert not kept.writer.paused
    kept.say(b"end")
    await until(lambda: kept.writer.paused, "the time between two children")
    await kept.lines(2)
    assert not kept.writer.paused


async def test_message_between_two_runs_is_kept(keep: Keep) -> None:
    """A message between two runs reaches the next run: the source may send one message before it is paused."""
    kept = keep("sh", "-c", "read line; echo $line", reads=True, restarts=Quick(Restart.ALWAYS, faster=5))
    await until(lambda: not kept.writer.paused, "the program")
    kept.say(b"one")
    await until(lambda: kept.writer.paused, "the time between two children")
    kept.say(b"two")
    assert (await kept.lines(2))[:2] == ["one", "two"]
    assert kept.metrics.discarded_in == 0


async def test_pending_messages_pause_the_source(keep: Keep, tmp_path: Path) -> None:
    """Pending messages that exceed the program's capacity pause the source like any others."""
    script = f"mkdir {tmp_path / 'ran'} && exit; echo ready; exec sleep 1000"
    kept = keep("sh", "-c", script, reads=True, restarts=Quick(Restart.ALWAYS, faster=5))
    await until(lambda: kept.restarts.decided and kept.writer.paused, "the time between two children")
    kept.say(*[b"x" * 1000] * 200)
    await kept.lines(1)
    await turns()
    assert kept.writer.paused


async def test_message_while_a_process_holds_stdout(keep: Keep, fifo: str) -> None:
    """A message after the program's exit is for the next run, although the output of the last run may continue."""
    kept = keep("sh", "-c", f"read line; echo $line; [ $line = two ] || (read go) <{fifo} &", reads=True, drain_seconds=1000)
    await until(lambda: not kept.writer.paused, "the program")
    kept.say(b"one")
    await until(lambda: kept.writer.paused, "its exit")
    kept.say(b"two")
    tell(Path(fifo), "go on")
    assert (await kept.lines(2))[:2] == ["one", "two"]
    assert kept.metrics.discarded_in == 0


async def test_message_before_the_first_run(keep: Keep) -> None:
    """A message before the first run reaches it, because a bus delivers its history when it opens."""
    kept = keep("cat", reads=True)
    kept.say(b"one", b"two")
    await until(lambda: not kept.writer.paused, "the program")
    kept.say(b"three")
    assert await kept.lines(3) == ["one", "two", "three"]


async def test_successor(keep: Keep) -> None:
    """A successor takes over the source and the pending messages: it gets these first, and the old program no longer pauses the source."""
    old, new = keep("cat", reads=True), keep("cat", reads=True)
    old.say(b"a")
    waiting = old.supervisor.leave(old.writer)
    new.writer.resume()
    new.supervisor.join(new.writer, waiting)
    assert new.writer.paused
    new.say(b"b")
    assert await new.lines(2) == ["a", "b"]
    assert not new.writer.paused
    old.writer.resume()
    await old.stop()
    assert not old.writer.paused
    assert old.output.messages == []


async def test_successor_with_another_source(keep: Keep) -> None:
    """A program whose successor has another source keeps its pending messages, and passes none on."""
    old = keep("cat", reads=True)
    old.say(b"a")
    assert old.supervisor.leave(Memory()) == []
    assert await old.lines(1) == ["a"]


async def test_ended_supervisor_discards_messages(keep: Keep) -> None:
    """If the program is not restarted, the source is resumed; messages are discarded and counted."""
    kept = keep("true", reads=True, restart=Restart.NEVER)
    await kept.over()
    assert not kept.writer.paused
    kept.say(b"one", b"two")
    assert kept.metrics.discarded_in == 2


async def test_closed_stdin(keep: Keep) -> None:
    """Messages for a program that has closed its stdin are discarded, and counted when it exits."""
    kept = keep("sh", "-c", "exec <&-; echo ready; sleep 1000", reads=True)
    await kept.lines(1)
    kept.say(b"one")
    kept.say(b"two", b"three")
    assert not kept.writer.paused
    await kept.stop()
    assert kept.metrics.discarded_in == 3


# Pause and resume


async def test_paused_across_restarts(keep: Keep) -> None:
    """While the output is paused, nothing of this or the next run is passed on, and nothing is lost."""
    kept = keep("seq", 50_000)
    kept.supervisor.pause()
    await turns(200)
    assert kept.output.messages == []
    kept.supervisor.resume()
    first = await kept.lines(50_000)
    kept.supervisor.pause()
    count = len(kept.output.messages)
    await turns(200)
    assert len(kept.output.messages) == count
    kept.supervisor.resume()
    assert (await kept.lines(100_000))[:100_000] == first[:50_000] * 2


async def test_output_is_paused_between_two_runs(keep: Keep) -> None:
    """A pause between two runs applies to the next run."""
    kept = keep("sh", "-c", "echo run; read line", reads=True, restarts=Quick(Restart.ALWAYS, faster=5))
    await kept.lines(1)
    kept.say(b"end")
    await until(lambda: kept.writer.paused, "the time between two children")
    kept.supervisor.pause()
    await until(lambda: not kept.writer.paused, "the next run")
    await turns(200)
    assert kept.output.messages == [b"run"]
    kept.supervisor.resume()
    await kept.lines(2)


async def test_last_output_waits_for_room(keep: Keep) -> None:
    """Output from before the exit waits for room, however long that takes. The program is not restarted before."""
    kept = keep("sh", "-c", "seq 5000; exit 3", drain_seconds=0.02)
    kept.supervisor.pause()
    begun = asyncio.get_running_loop().time()
    await until(lambda: asyncio.get_running_loop().time() - begun > 0.3, "many times what is granted to heirs")
    assert kept.restarts.decided == []
    kept.supervisor.resume()
    assert len(await kept.lines(5000)) >= 5000


# Shutdown


@pytest.mark.parametrize("until_event", ["eof", "INT", "TERM", "KILL"])
async def test_stop(keep: Keep, tmp_path: Path, until_event: str) -> None:
    """`stop` closes stdin and runs the ladder; the program is not restarted."""
    kept = keep(*command("witness", tmp_path / "record", until_event))
    pid = int((await kept.lines(1))[0])
    await kept.stop()
    assert not is_alive(pid)
    assert kept.restarts.decided == []
    steps = ["eof", "INT", "TERM"]
    assert [event for event, _ in recorded(tmp_path / "record")] == steps[: [*steps, "KILL"].index(until_event) + 1]


async def test_last_output(keep: Keep) -> None:
    """All output that a program prints during its shutdown is passed on."""
    kept = keep("sh", "-c", "echo ready; cat; seq 20000; echo bye", ladder=PATIENT)
    await kept.lines(1)
    await kept.stop()
    assert await kept.lines(20_002) == ["ready", *[str(number) for number in range(1, 20_001)], "bye"]


async def test_stop_within_a_record(keep: Keep, caplog: pytest.LogCaptureFixture) -> None:
    """A program that is stopped in the middle of a record causes no framing error."""
    kept = keep("sh", "-c", """echo '{"type":"message","text":"a"}'; printf '{"type"'; exec sleep 1000""", framing="json", ladder=AT_ONCE)
    await kept.lines(1)
    await turns()
    await kept.stop()
    assert "ending the program" not in caplog.text


async def test_stop_between_two_runs(keep: Keep) -> None:
    """`stop` does not wait for the next run."""
    kept = keep("false", restarts=Quick(Restart.ALWAYS, faster=0.001))
    await until(lambda: kept.restarts.decided, "its end")
    await kept.stop()
    assert len(kept.restarts.decided) == 1


async def test_stop_before_the_start(keep: Keep) -> None:
    """If `stop` comes at once, the program never starts."""
    kept = keep("echo", "x")
    await kept.stop()
    await kept.stop()
    assert kept.output.messages == []


async def test_kill(keep: Keep, tmp_path: Path) -> None:
    """`kill` does not wait for the ladder."""
    kept = keep(*command("witness", tmp_path / "record"), ladder=PATIENT)
    pid = int((await kept.lines(1))[0])
    kept.supervisor.stop()
    await turns()
    assert not kept.task.done()
    kept.supervisor.kill()
    await kept.over()
    assert not is_alive(pid)


async def test_program_and_its_children_end(keep: Keep) -> None:
    """Nothing of a program remains, including its child processes."""
    kept = keep("sh", "-c", "sleep 1000 & echo $!; wait", ladder=SHORT)
    grandchild = int((await kept.lines(1))[0])
    with mortal(grandchild):
        await kept.stop()
        assert not is_alive(grandchild)
