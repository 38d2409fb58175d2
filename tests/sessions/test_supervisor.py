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

from tests.support.proc import LONG_LADDER, SHORT_LADDER, Starter, adopting, no_callback_fails, nothing_left, python, turns, until
from tests.support.server import is_alive, mortal, write_to_fifo
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


class Supervised:
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

    def write(self, *lines: bytes) -> None:
        self.supervisor.write(Batch(Kind.TEXT, list(lines)))

    async def lines(self, count: int) -> list[str]:
        """Wait for `count` messages; return all."""
        await until(lambda: len(self.output.messages) >= count, f"{count} messages of the program")
        return [message.decode() for message in self.output.messages]

    async def over(self) -> None:
        """Wait until the supervisor has ended."""
        await until(self.task.done, "the end of the supervisor")
        await self.task

    async def stop(self) -> None:
        self.supervisor.stop()
        await self.over()


Supervise = Callable[..., Supervised]


@pytest.fixture
async def supervise(spawner: Spawner, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Supervise]:
    """Starts supervisors: `supervise("cat", reads=True)`. After the test, nothing of them remains."""
    caplog.set_level(logging.INFO, "wsbridge")
    with nothing_left(), adopting(), no_callback_fails():
        starter, supervisors = Starter(spawner), []

        def start(*argv: object, **options: Any) -> Supervised:
            supervisors.append(Supervised(starter, argv, **options))
            return supervisors[-1]

        yield start
        for one in supervisors:
            one.supervisor.kill()
            await one.over()
        await starter.close()


# Output and restart


async def test_restart(supervise: Supervise) -> None:
    """The supervisor restarts a program that exits, and the output of each run follows the output of the previous run."""
    supervised = supervise("sh", "-c", "seq 1000")
    assert (await supervised.lines(3000))[:3000] == [str(number) for number in range(1, 1001)] * 3
    await supervised.stop()
    assert supervised.metrics.program_restarts >= 2


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
async def test_policies(supervise: Supervise, policy: Restart, script: str, status: int, again: bool) -> None:
    """`--restart` decides by the program's exit status; all output is passed on in any case."""
    supervised = supervise("sh", "-c", f"echo run; {script}", restart=policy)
    if again:
        await until(lambda: supervised.metrics.program_restarts >= 2, "two new starts")
        await supervised.stop()
    else:
        await supervised.over()
        assert await supervised.lines(1) == ["run"]
        assert supervised.metrics.program_restarts == 0
    assert supervised.restarts.decided[0][0] == status


async def test_growing_pauses(supervise: Supervise) -> None:
    """The supervisor restarts a program that keeps exiting at once, after growing pauses."""
    supervised = supervise("false", restarts=Quick(Restart.ALWAYS, faster=1000))
    await until(lambda: len(supervised.restarts.decided) >= 6, "six ends")
    assert supervised.restarts.decided[:6] == [(1, 0.5), (1, 1), (1, 2), (1, 4), (1, 8), (1, 16)]


async def test_program_that_cannot_start(supervise: Supervise, caplog: pytest.LogCaptureFixture) -> None:
    """A program that cannot start is retried like a program that exits at once, and the log states the reason."""
    tries = []

    def launch() -> Child:
        tries.append(1)
        raise ProgramError("there is no such program")

    supervised = supervise(launch=launch)
    await until(lambda: len(tries) >= 3, "three tries")
    assert supervised.metrics.launch_failures >= 3
    assert supervised.restarts.decided[0] == (126, 0.5)
    assert "there is no such program" in caplog.text


async def test_log(supervise: Supervise, caplog: pytest.LogCaptureFixture) -> None:
    """The log has the program's exit status and the supervisor's decision."""
    supervised = supervise("sh", "-c", "exit 3", restarts=Quick(Restart.ALWAYS, faster=1000))
    await until(lambda: len(supervised.restarts.decided) >= 2, "two ends")
    await supervised.stop()
    never = supervise("sh", "-c", "exit 4", restart=Restart.NEVER)
    await never.over()
    assert "exit 3; restarting the program in 0.0005 s" in caplog.text
    assert "exit 4; not restarting the program" in caplog.text


async def test_exit_is_not_logged_as_a_closed_stdout(supervise: Supervise, caplog: pytest.LogCaptureFixture) -> None:
    """An ordinary exit is not logged as a closed stdout, although stdout closes a moment before."""
    supervised = supervise(*python("print('x')"), restarts=Quick(Restart.ALWAYS, faster=100_000), ladder=LONG_LADDER)
    await supervised.lines(25)
    await until(lambda: len(supervised.restarts.decided) >= 25, "25 ends")
    assert "closed its stdout" not in caplog.text


async def test_slow_exit_keeps_its_status(supervise: Supervise) -> None:
    """A program that exits a moment after it closed its stdout still ends with its own status."""
    supervised = supervise("sh", "-c", "exec >&-; sleep 0.2; exit 0", restart=Restart.ON_FAILURE, ladder=LONG_LADDER)
    await supervised.over()
    assert supervised.restarts.decided == [(0, None)]


async def test_last_line_without_a_newline(supervise: Supervise) -> None:
    """An unterminated last line of a run is passed on, and is not joined to the first line of the next run."""
    supervised = supervise("printf", "one")
    assert (await supervised.lines(2))[:2] == ["one", "one"]


async def test_last_line_while_a_process_holds_stdout(supervise: Supervise) -> None:
    """An unterminated last line is passed on, although a process outside the group holds stdout open for ever."""
    supervised = supervise("sh", "-c", "setsid sleep 1000 & echo $!; printf 'whole\\nhalf'", restart=Restart.NEVER)
    pid = int((await supervised.lines(1))[0])
    with mortal(pid):
        await supervised.over()
        assert (await supervised.lines(3))[1:] == ["whole", "half"]


# Other processes that hold stdout


async def test_grandchild_that_holds_stdout(supervise: Supervise) -> None:
    """The supervisor waits at most --drainms for a grandchild that holds stdout open, and ends it. Then it restarts the program."""
    supervised = supervise("sh", "-c", "sleep 1000 & echo $!", drain_seconds=0.1)
    grandchild = int((await supervised.lines(1))[0])
    with mortal(grandchild):
        await supervised.lines(2)
        assert not is_alive(grandchild)


async def test_output_of_a_grandchild_during_the_drain(supervise: Supervise, fifo: str) -> None:
    """Output of a grandchild during the drain is passed on before the next run."""
    supervised = supervise("sh", "-c", f"(read line <{fifo}; echo heir) & echo parent", drain_seconds=1000, restart=Restart.NEVER)
    assert await supervised.lines(1) == ["parent"]
    write_to_fifo(Path(fifo), "go on")
    await supervised.over()
    assert await supervised.lines(2) == ["parent", "heir"]


# A closed stdout


@pytest.mark.parametrize("policy", Restart)
async def test_closed_stdout(supervise: Supervise, tmp_path: Path, policy: Restart, caplog: pytest.LogCaptureFixture) -> None:
    """A program that closes its stdout and continues has no more output: the ladder ends it, and the policy decides."""
    supervised = supervise(*command("witness", tmp_path / "record", "TERM", "stdout"), restart=policy)
    await until(lambda: supervised.restarts.decided, "its end")
    assert [event for event, _ in recorded(tmp_path / "record")][:3] == ["eof", "INT", "TERM"]
    assert "closed its stdout" in caplog.text


async def test_closed_stdout_is_a_failure(supervise: Supervise) -> None:
    """A program that closed its stdout counts as failed, even if it then exits with 0."""
    supervised = supervise("sh", "-c", "exec >&-; read line; exit 0", restart=Restart.ON_FAILURE, ladder=LONG_LADDER)
    await until(lambda: supervised.restarts.decided, "its end")
    assert supervised.restarts.decided[0] == (1, 0.5)


async def test_closed_stdout_of_a_program_that_reads(supervise: Supervise, tmp_path: Path) -> None:
    """A program that reads its input may continue without a stdout."""
    said = tmp_path / "said"
    supervised = supervise(
        "sh", "-c", f"echo ready; exec >&-; while read line; do echo $line >>{said}; [ $line = end ] && exit 0; done", reads=True
    )
    await supervised.lines(1)
    await turns()
    supervised.write(b"one", b"two")
    await until(lambda: said.exists() and said.read_text() == "one\ntwo\n", "what it was told")
    supervised.write(b"end")
    await until(lambda: supervised.restarts.decided, "its end")
    assert supervised.restarts.decided[0] == (0, 0.5)


# Framing errors


async def test_message_too_long(supervise: Supervise, caplog: pytest.LogCaptureFixture) -> None:
    """A message over --maxline ends a run and is counted. Earlier messages are passed on, but no part of this one."""
    supervised = supervise("sh", "-c", f"echo before; exec {sys.executable} -c \"print('x' * 1000); input()\"", limit=100)
    assert (await supervised.lines(2))[:2] == ["before", "before"]
    assert supervised.metrics.messages_too_long >= 1
    assert "1009" in caplog.text


async def test_framing_error_begins_no_drain(supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is ended for a framing error causes no drain, which would end the drain of the next run."""
    begun: list[object] = []

    class Recorded(Drain):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            begun.append(self)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(supervisors, "Drain", Recorded)
    # The leader exits at the first signal, while another process still holds stdout open.
    script = "(trap '' INT TERM; exec sleep 1000) & echo no record; exec sleep 1000"
    supervised = supervise("sh", "-c", script, framing="json", restart=Restart.NEVER, drain_seconds=1000)
    await supervised.over()
    assert begun == []


async def test_flood_without_a_newline(supervise: Supervise) -> None:
    """The supervisor ends a program that prints endlessly without a newline, each time it exceeds the limit."""
    supervised = supervise(*command("endless"), limit=1 << 20)
    await until(lambda: supervised.metrics.messages_too_long >= 2, "two ends")
    assert supervised.output.messages == []


@pytest.mark.parametrize("policy", [Restart.ALWAYS, Restart.ON_FAILURE])
async def test_framing_error_is_a_failure(supervise: Supervise, policy: Restart) -> None:
    """A program that is ended for a framing error counts as failed, even if it then exits with 0."""
    supervised = supervise("sh", "-c", "echo no record; cat; exit 0", framing="json", restart=policy, ladder=LONG_LADDER)
    await until(lambda: supervised.restarts.decided, "its end")
    assert supervised.restarts.decided[0][1] == 0.5


async def test_close_record(supervise: Supervise) -> None:
    """The supervisor ends a program that sends a close record in JSON, and restarts it like a program that exits."""
    record = '{"type":"message","text":"a"}\\n{"type":"close","code":4000,"reason":"enough"}\\n'
    supervised = supervise("sh", "-c", f"printf '{record}'; cat", framing="json")
    assert (await supervised.lines(2))[:2] == ["a", "a"]


@pytest.mark.parametrize(("code", "status"), [(1000, 0), (4000, -9)])
async def test_close_record_with_a_normal_code(supervise: Supervise, code: int, status: int, caplog: pytest.LogCaptureFixture) -> None:
    """A close record with a normal code is no failure, although the program had to be ended; any other code is a failure."""
    record = f'{{"type":"close","code":{code},"reason":"so"}}\\n'
    supervised = supervise("sh", "-c", f"printf '{record}'; exec sleep 1000", framing="json", restart=Restart.ON_FAILURE, ladder=AT_ONCE)
    await until(lambda: supervised.restarts.decided, "its end")
    assert supervised.restarts.decided[0][0] == status
    [level] = [entry.levelno for entry in caplog.records if f"ending the program: {code} so" in entry.getMessage()][:1]
    assert level == (logging.INFO if code == 1000 else logging.ERROR)


async def test_fault_of_an_earlier_run(supervise: Supervise, tmp_path: Path) -> None:
    """A framing error decides only about its own run."""
    script = f"mkdir {tmp_path / 'ran'} || exit 0; echo no record; cat"
    supervised = supervise("sh", "-c", script, framing="json", restart=Restart.ON_FAILURE)
    await supervised.over()
    assert supervised.restarts.decided == [(1, 0.5), (0, None)]


async def test_close_record_without_a_reason(supervise: Supervise) -> None:
    """A close record with a normal code and no reason is an end without a failure, too."""
    script = """echo '{"type":"close","code":1000}'; exec sleep 1000"""
    supervised = supervise("sh", "-c", script, framing="json", restart=Restart.ON_FAILURE, ladder=AT_ONCE)
    await until(lambda: supervised.restarts.decided, "its end")
    assert supervised.restarts.decided == [(0, None)]


# Input


async def test_input(supervise: Supervise) -> None:
    """Written messages reach the program's stdin, and its answers are passed on."""
    supervised = supervise("cat", reads=True)
    await until(lambda: not supervised.writer.paused, "the program")
    supervised.write(b"one", b"two")
    assert await supervised.lines(2) == ["one", "two"]
    await supervised.stop()
    assert supervised.metrics.discarded_in == 0


async def test_stdin_is_open_and_silent(supervise: Supervise, tmp_path: Path) -> None:
    """Until the shutdown, the supervisor neither writes to an unused stdin nor closes it."""
    supervised = supervise(*command("witness", tmp_path / "record", "eof"))
    await supervised.lines(1)
    await turns(200)
    assert recorded(tmp_path / "record") == []
    await supervised.stop()
    assert [event for event, _ in recorded(tmp_path / "record")] == ["eof"]


async def test_program_that_does_not_read(supervise: Supervise) -> None:
    """A source that writes to a program that does not read is paused, and resumed when the program reads."""
    supervised = supervise("sh", "-c", "echo ready; read line; cat >/dev/null", reads=True)
    await supervised.lines(1)
    line = b"x" * 1000
    supervised.write(*[line] * 1000)
    assert supervised.writer.paused
    await until(lambda: supervised.writer.paused is False, "room again")


async def test_paused_between_two_runs(supervise: Supervise) -> None:
    """Between two runs, the source is paused; the next run resumes it."""
    supervised = supervise("sh", "-c", "echo run; read line; exit 0", reads=True, restarts=Quick(Restart.ALWAYS, faster=5))
    await supervised.lines(1)
    assert not supervised.writer.paused
    supervised.write(b"end")
    await until(lambda: supervised.writer.paused, "the time between two children")
    await supervised.lines(2)
    assert not supervised.writer.paused


async def test_message_between_two_runs_is_kept(supervise: Supervise) -> None:
    """A message between two runs reaches the next run: the source may send one message before it is paused."""
    supervised = supervise("sh", "-c", "read line; echo $line", reads=True, restarts=Quick(Restart.ALWAYS, faster=5))
    await until(lambda: not supervised.writer.paused, "the program")
    supervised.write(b"one")
    await until(lambda: supervised.writer.paused, "the time between two children")
    supervised.write(b"two")
    assert (await supervised.lines(2))[:2] == ["one", "two"]
    assert supervised.metrics.discarded_in == 0


async def test_pending_messages_pause_the_source(supervise: Supervise, tmp_path: Path) -> None:
    """Pending messages that exceed the program's capacity pause the source like any others."""
    script = f"mkdir {tmp_path / 'ran'} && exit; echo ready; exec sleep 1000"
    supervised = supervise("sh", "-c", script, reads=True, restarts=Quick(Restart.ALWAYS, faster=5))
    await until(lambda: supervised.restarts.decided and supervised.writer.paused, "the time between two children")
    supervised.write(*[b"x" * 1000] * 200)
    await supervised.lines(1)
    await turns()
    assert supervised.writer.paused


async def test_message_while_a_process_holds_stdout(supervise: Supervise, fifo: str) -> None:
    """A message after the program's exit is for the next run, although the output of the last run may continue."""
    supervised = supervise("sh", "-c", f"read line; echo $line; [ $line = two ] || (read go) <{fifo} &", reads=True, drain_seconds=1000)
    await until(lambda: not supervised.writer.paused, "the program")
    supervised.write(b"one")
    await until(lambda: supervised.writer.paused, "its exit")
    supervised.write(b"two")
    write_to_fifo(Path(fifo), "go on")
    assert (await supervised.lines(2))[:2] == ["one", "two"]
    assert supervised.metrics.discarded_in == 0


async def test_message_before_the_first_run(supervise: Supervise) -> None:
    """A message before the first run reaches it, because a bus delivers its history when it opens."""
    supervised = supervise("cat", reads=True)
    supervised.write(b"one", b"two")
    await until(lambda: not supervised.writer.paused, "the program")
    supervised.write(b"three")
    assert await supervised.lines(3) == ["one", "two", "three"]


async def test_successor(supervise: Supervise) -> None:
    """A successor takes over the source and the pending messages: it gets these first, and the old program no longer pauses the source."""
    old, new = supervise("cat", reads=True), supervise("cat", reads=True)
    old.write(b"a")
    waiting = old.supervisor.leave(old.writer)
    new.writer.resume()
    new.supervisor.join(new.writer, waiting)
    assert new.writer.paused
    new.write(b"b")
    assert await new.lines(2) == ["a", "b"]
    assert not new.writer.paused
    old.writer.resume()
    await old.stop()
    assert not old.writer.paused
    assert old.output.messages == []


async def test_successor_of_a_running_program(supervise: Supervise) -> None:
    """A running program that has a successor no longer pauses the source."""
    old = supervise("sh", "-c", "echo ready; exec sleep 1000", reads=True)
    await old.lines(1)
    old.supervisor.leave(old.writer)
    old.write(b"x" * 1_000_000)
    assert not old.writer.paused


async def test_successor_with_another_source(supervise: Supervise) -> None:
    """A program whose successor has another source keeps its pending messages, and passes none on."""
    old = supervise("cat", reads=True)
    old.write(b"a")
    assert old.supervisor.leave(Memory()) == []
    assert await old.lines(1) == ["a"]


async def test_ended_supervisor_discards_messages(supervise: Supervise) -> None:
    """If the program is not restarted, the source is resumed; messages are discarded and counted."""
    supervised = supervise("true", reads=True, restart=Restart.NEVER)
    await supervised.over()
    assert not supervised.writer.paused
    supervised.write(b"one", b"two")
    assert supervised.metrics.discarded_in == 2


async def test_closed_stdin(supervise: Supervise) -> None:
    """Messages for a program that has closed its stdin are discarded, and counted when it exits."""
    supervised = supervise("sh", "-c", "exec <&-; echo ready; sleep 1000", reads=True)
    await supervised.lines(1)
    supervised.write(b"one")
    supervised.write(b"two", b"three")
    assert not supervised.writer.paused
    await supervised.stop()
    assert supervised.metrics.discarded_in == 3


# Pause and resume


async def test_pause_of_a_running_program(supervise: Supervise) -> None:
    """While the output of a running program is paused, nothing is passed on."""
    supervised = supervise("yes")
    await supervised.lines(1)
    supervised.supervisor.pause()
    count = len(supervised.output.messages)
    await turns(200)
    assert len(supervised.output.messages) == count
    supervised.supervisor.resume()
    await supervised.lines(count + 1)


async def test_paused_across_restarts(supervise: Supervise) -> None:
    """While the output is paused, nothing of this or the next run is passed on, and nothing is lost."""
    supervised = supervise("seq", 50_000)
    supervised.supervisor.pause()
    await turns(200)
    assert supervised.output.messages == []
    supervised.supervisor.resume()
    first = await supervised.lines(50_000)
    supervised.supervisor.pause()
    count = len(supervised.output.messages)
    await turns(200)
    assert len(supervised.output.messages) == count
    supervised.supervisor.resume()
    assert (await supervised.lines(100_000))[:100_000] == first[:50_000] * 2


async def test_output_is_paused_between_two_runs(supervise: Supervise) -> None:
    """A pause between two runs applies to the next run."""
    supervised = supervise("sh", "-c", "echo run; read line", reads=True, restarts=Quick(Restart.ALWAYS, faster=5))
    await supervised.lines(1)
    supervised.write(b"end")
    await until(lambda: supervised.writer.paused, "the time between two children")
    supervised.supervisor.pause()
    await until(lambda: not supervised.writer.paused, "the next run")
    await turns(200)
    assert supervised.output.messages == [b"run"]
    supervised.supervisor.resume()
    await supervised.lines(2)


async def test_last_output_waits_for_room(supervise: Supervise) -> None:
    """Output from before the exit waits for room, however long that takes. The program is not restarted before."""
    supervised = supervise("sh", "-c", "seq 5000; exit 3", drain_seconds=0.02)
    supervised.supervisor.pause()
    begun = asyncio.get_running_loop().time()
    await until(lambda: asyncio.get_running_loop().time() - begun > 0.3, "many times what is granted to heirs")
    assert supervised.restarts.decided == []
    supervised.supervisor.resume()
    assert len(await supervised.lines(5000)) >= 5000


# Shutdown


@pytest.mark.parametrize("until_event", ["eof", "INT", "TERM", "KILL"])
async def test_stop(supervise: Supervise, tmp_path: Path, until_event: str) -> None:
    """`stop` closes stdin and runs the ladder; the program is not restarted."""
    supervised = supervise(*command("witness", tmp_path / "record", until_event))
    pid = int((await supervised.lines(1))[0])
    await supervised.stop()
    assert not is_alive(pid)
    assert supervised.restarts.decided == []
    steps = ["eof", "INT", "TERM"]
    assert [event for event, _ in recorded(tmp_path / "record")] == steps[: [*steps, "KILL"].index(until_event) + 1]


async def test_last_output(supervise: Supervise) -> None:
    """All output that a program prints during its shutdown is passed on."""
    supervised = supervise("sh", "-c", "echo ready; cat; seq 20000; echo bye", ladder=LONG_LADDER)
    await supervised.lines(1)
    await supervised.stop()
    assert await supervised.lines(20_002) == ["ready", *[str(number) for number in range(1, 20_001)], "bye"]


async def test_stop_within_a_record(supervise: Supervise, caplog: pytest.LogCaptureFixture) -> None:
    """A program that is stopped in the middle of a record causes no framing error."""
    supervised = supervise(
        "sh", "-c", """echo '{"type":"message","text":"a"}'; printf '{"type"'; exec sleep 1000""", framing="json", ladder=AT_ONCE
    )
    await supervised.lines(1)
    await turns()
    await supervised.stop()
    assert "ending the program" not in caplog.text


async def test_stop_between_two_runs(supervise: Supervise) -> None:
    """`stop` does not wait for the next run."""
    supervised = supervise("false", restarts=Quick(Restart.ALWAYS, faster=0.001))
    await until(lambda: supervised.restarts.decided, "its end")
    await supervised.stop()
    assert len(supervised.restarts.decided) == 1


async def test_stop_before_the_start(supervise: Supervise) -> None:
    """If `stop` comes at once, the program never starts."""
    supervised = supervise("echo", "x")
    await supervised.stop()
    await supervised.stop()
    assert supervised.output.messages == []


async def test_kill(supervise: Supervise, tmp_path: Path) -> None:
    """`kill` does not wait for the ladder."""
    supervised = supervise(*command("witness", tmp_path / "record"), ladder=LONG_LADDER)
    pid = int((await supervised.lines(1))[0])
    supervised.supervisor.stop()
    await turns()
    assert not supervised.task.done()
    supervised.supervisor.kill()
    await supervised.over()
    assert not is_alive(pid)


async def test_program_and_its_children_end(supervise: Supervise) -> None:
    """Nothing of a program remains, including its child processes."""
    supervised = supervise("sh", "-c", "sleep 1000 & echo $!; wait", ladder=SHORT_LADDER)
    grandchild = int((await supervised.lines(1))[0])
    with mortal(grandchild):
        await supervised.stop()
        assert not is_alive(grandchild)
