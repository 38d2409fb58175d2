"""A program that is kept running: what it prints is handed on, what is written reaches it, and its end is not the end."""

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
    """Decides as its base does, and takes its time a hundred times as fast."""

    def __init__(self, policy: Restart, *, faster: float = 100) -> None:
        super().__init__(policy)
        self.faster = faster
        self.decided: list[tuple[int, float | None]] = []

    def after(self, status: int, ran: float) -> float | None:
        pause = super().after(status, ran)
        self.decided.append((status, pause))
        return pause / self.faster if pause is not None else None


class Kept:
    """A supervisor under way: what its program prints is in `output`; `writer` is who writes to its stdin."""

    def __init__(self, start: Starter, argv: Sequence[object], **options: Any) -> None:
        # Held up from the start: to run is to let it go.
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
        """Wait for so many messages; return all."""
        await until(lambda: len(self.output.messages) >= count, f"{count} messages of the program")
        return [message.decode() for message in self.output.messages]

    async def over(self) -> None:
        """Wait until it is not kept any more."""
        await until(self.task.done, "the end of the keeping")
        await self.task

    async def stop(self) -> None:
        self.supervisor.stop()
        await self.over()


Keep = Callable[..., Kept]


@pytest.fixture
async def keep(spawner: Spawner, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Keep]:
    """Keeps programs: `keep("cat", reads=True)`; nothing of them is left when the test is over."""
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


# What it prints, and its end


async def test_kept_running(keep: Keep) -> None:
    """A program that ends is started again, and what each run prints follows what the one before has printed."""
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
    """`--restart` decides by how the program ended; all that it printed is handed on either way."""
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
    """A program that keeps ending at once is started again after pauses that grow."""
    kept = keep("false", restarts=Quick(Restart.ALWAYS, faster=1000))
    await until(lambda: len(kept.restarts.decided) >= 6, "six ends")
    assert kept.restarts.decided[:6] == [(1, 0.5), (1, 1), (1, 2), (1, 4), (1, 8), (1, 16)]


async def test_program_that_cannot_be_started(keep: Keep, caplog: pytest.LogCaptureFixture) -> None:
    """A program that cannot be started is tried again as one that ends at once, and the log says why."""
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
    """The log says how the program ended and what becomes of it."""
    kept = keep("sh", "-c", "exit 3", restarts=Quick(Restart.ALWAYS, faster=1000))
    await until(lambda: len(kept.restarts.decided) >= 2, "two ends")
    await kept.stop()
    never = keep("sh", "-c", "exit 4", restart=Restart.NEVER)
    await never.over()
    assert "exit 3; restarting the program in 0.0005 s" in caplog.text
    assert "exit 4; not restarting the program" in caplog.text


async def test_no_false_word_of_a_closed_stdout(keep: Keep, caplog: pytest.LogCaptureFixture) -> None:
    """A program that simply ends is not said to have closed its stdout, though that ends a moment before it does."""
    kept = keep(*python("print('x')"), restarts=Quick(Restart.ALWAYS, faster=100_000), ladder=PATIENT)
    await kept.lines(25)
    await until(lambda: len(kept.restarts.decided) >= 25, "25 ends")
    assert "closed its stdout" not in caplog.text


async def test_slow_exit_is_its_own(keep: Keep) -> None:
    """A program whose end takes a moment, after its stdout was closed by it, still ends with its own status."""
    kept = keep("sh", "-c", "exec >&-; sleep 0.2; exit 0", restart=Restart.ON_FAILURE, ladder=PATIENT)
    await kept.over()
    assert kept.restarts.decided == [(0, None)]


async def test_last_line_without_a_newline(keep: Keep) -> None:
    """The last words of each run are handed on, also without an end of line, and not joined to those of the next."""
    kept = keep("printf", "one")
    assert (await kept.lines(2))[:2] == ["one", "one"]


async def test_last_line_while_others_hold_stdout(keep: Keep) -> None:
    """What a program had begun is handed on though somebody who has left its group holds its stdout open for ever."""
    kept = keep("sh", "-c", "setsid sleep 1000 & echo $!; printf 'whole\\nhalf'", restart=Restart.NEVER)
    pid = int((await kept.lines(1))[0])
    with mortal(pid):
        await kept.over()
        assert (await kept.lines(3))[1:] == ["whole", "half"]


# Others that hold its stdout


async def test_grandchild_that_holds_stdout(keep: Keep) -> None:
    """A grandchild that holds stdout open is waited for no longer than --drainms, and ended; then the program is started again."""
    kept = keep("sh", "-c", "sleep 1000 & echo $!", drain_seconds=0.1)
    grandchild = int((await kept.lines(1))[0])
    with mortal(grandchild):
        await kept.lines(2)
        assert not is_alive(grandchild)


async def test_last_words_of_a_grandchild(keep: Keep, fifo: str) -> None:
    """What a grandchild prints while it is waited for is handed on before the next run."""
    kept = keep("sh", "-c", f"(read line <{fifo}; echo heir) & echo parent", drain_seconds=1000, restart=Restart.NEVER)
    assert await kept.lines(1) == ["parent"]
    tell(Path(fifo), "go on")
    await kept.over()
    assert await kept.lines(2) == ["parent", "heir"]


# A stdout that is closed


@pytest.mark.parametrize("policy", Restart)
async def test_closed_stdout(keep: Keep, tmp_path: Path, policy: Restart, caplog: pytest.LogCaptureFixture) -> None:
    """A program that closes its stdout and lives on has nothing more to say: it is ended by the ladder, and the policy decides."""
    kept = keep(*command("witness", tmp_path / "record", "TERM", "stdout"), restart=policy)
    await until(lambda: kept.restarts.decided, "its end")
    assert [event for event, _ in recorded(tmp_path / "record")][:3] == ["eof", "INT", "TERM"]
    assert "closed its stdout" in caplog.text


async def test_closed_stdout_is_a_failure(keep: Keep) -> None:
    """One that closed its stdout has failed, however politely it goes when it is ended."""
    kept = keep("sh", "-c", "exec >&-; read line; exit 0", restart=Restart.ON_FAILURE, ladder=PATIENT)
    await until(lambda: kept.restarts.decided, "its end")
    assert kept.restarts.decided[0] == (1, 0.5)


async def test_closed_stdout_of_one_that_reads(keep: Keep, tmp_path: Path) -> None:
    """A program that is written to may live on without a stdout, for what it is told."""
    said = tmp_path / "said"
    kept = keep("sh", "-c", f"echo ready; exec >&-; while read line; do echo $line >>{said}; [ $line = end ] && exit 0; done", reads=True)
    await kept.lines(1)
    await turns()
    kept.say(b"one", b"two")
    await until(lambda: said.exists() and said.read_text() == "one\ntwo\n", "what it was told")
    kept.say(b"end")
    await until(lambda: kept.restarts.decided, "its end")
    assert kept.restarts.decided[0] == (0, 0.5)


# Faults of its framing


async def test_message_too_long(keep: Keep, caplog: pytest.LogCaptureFixture) -> None:
    """A message over --maxline is the end of a run and is counted; what came before it is handed on, nothing of it is."""
    kept = keep("sh", "-c", f"echo before; exec {sys.executable} -c \"print('x' * 1000); input()\"", limit=100)
    assert (await kept.lines(2))[:2] == ["before", "before"]
    assert kept.metrics.messages_too_long >= 1
    assert "1009" in caplog.text


async def test_fault_begins_no_drain(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that the supervisor ends for a fault begins no drain, which would end that of the next run."""
    begun: list[object] = []

    class Recorded(Drain):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            begun.append(self)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(supervisors, "Drain", Recorded)
    # The leader ends at the first signal, and another process still holds stdout open then.
    script = "(trap '' INT TERM; exec sleep 1000) & echo no record; exec sleep 1000"
    kept = keep("sh", "-c", script, framing="json", restart=Restart.NEVER, drain_seconds=1000)
    await kept.over()
    assert begun == []


async def test_flood_without_an_end(keep: Keep) -> None:
    """A program that writes for ever without a newline is ended each time that it passes the limit."""
    kept = keep(*command("endless"), limit=1 << 20)
    await until(lambda: kept.metrics.messages_too_long >= 2, "two ends")
    assert kept.output.messages == []


@pytest.mark.parametrize("policy", [Restart.ALWAYS, Restart.ON_FAILURE])
async def test_fault_is_a_failure(keep: Keep, policy: Restart) -> None:
    """A program that was ended for a fault of its own has failed, however politely it then went."""
    kept = keep("sh", "-c", "echo no record; cat; exit 0", framing="json", restart=policy, ladder=PATIENT)
    await until(lambda: kept.restarts.decided, "its end")
    assert kept.restarts.decided[0][1] == 0.5


async def test_asking_to_close(keep: Keep) -> None:
    """A program that asks for the end in JSON is ended and, as any that has ended, started again."""
    record = '{"type":"message","text":"a"}\\n{"type":"close","code":4000,"reason":"enough"}\\n'
    kept = keep("sh", "-c", f"printf '{record}'; cat", framing="json")
    assert (await kept.lines(2))[:2] == ["a", "a"]


@pytest.mark.parametrize(("code", "status"), [(1000, 0), (4000, -9)])
async def test_asking_for_a_normal_end(keep: Keep, code: int, status: int, caplog: pytest.LogCaptureFixture) -> None:
    """One that asks for a normal end has not failed, though it had to be ended; with any other code it has."""
    record = f'{{"type":"close","code":{code},"reason":"so"}}\\n'
    kept = keep("sh", "-c", f"printf '{record}'; exec sleep 1000", framing="json", restart=Restart.ON_FAILURE, ladder=AT_ONCE)
    await until(lambda: kept.restarts.decided, "its end")
    assert kept.restarts.decided[0][0] == status
    [level] = [entry.levelno for entry in caplog.records if f"ending the program: {code} so" in entry.getMessage()][:1]
    assert level == (logging.INFO if code == 1000 else logging.ERROR)


# Its stdin


async def test_written(keep: Keep) -> None:
    """What is written reaches its stdin, and what it answers is handed on."""
    kept = keep("cat", reads=True)
    await until(lambda: not kept.writer.paused, "the program")
    kept.say(b"one", b"two")
    assert await kept.lines(2) == ["one", "two"]
    await kept.stop()
    assert kept.metrics.discarded_in == 0


async def test_stdin_is_open_and_silent(keep: Keep, tmp_path: Path) -> None:
    """Until it is to end nothing happens to its stdin."""
    kept = keep(*command("witness", tmp_path / "record", "eof"))
    await kept.lines(1)
    await turns(200)
    assert recorded(tmp_path / "record") == []
    await kept.stop()
    assert [event for event, _ in recorded(tmp_path / "record")] == ["eof"]


async def test_program_that_does_not_read(keep: Keep) -> None:
    """Whoever writes to a program that does not read is held up, and goes on when it reads."""
    kept = keep("sh", "-c", "echo ready; read line; cat >/dev/null", reads=True)
    await kept.lines(1)
    line = b"x" * 1000
    kept.say(*[line] * 1000)
    await until(lambda: kept.writer.paused is False, "room again")


async def test_held_up_between_children(keep: Keep) -> None:
    """Between two children whoever writes is held up, and goes on with the next one."""
    kept = keep("sh", "-c", "echo run; read line; exit 0", reads=True, restarts=Quick(Restart.ALWAYS, faster=5))
    await kept.lines(1)
    assert not kept.writer.paused
    kept.say(b"end")
    await until(lambda: kept.writer.paused, "the time between two children")
    await kept.lines(2)
    assert not kept.writer.paused


async def test_first_word_of_each_between_children_is_kept(keep: Keep) -> None:
    """What is written between two children reaches the next: who writes is held up from its next message on, not before."""
    kept = keep("sh", "-c", "read line; echo $line", reads=True, restarts=Quick(Restart.ALWAYS, faster=5))
    await until(lambda: not kept.writer.paused, "the program")
    kept.say(b"one")
    await until(lambda: kept.writer.paused, "the time between two children")
    kept.say(b"two")
    assert (await kept.lines(2))[:2] == ["one", "two"]
    assert kept.metrics.discarded_in == 0


async def test_held_up_by_what_has_waited(keep: Keep, tmp_path: Path) -> None:
    """What has waited for a program, and is more than it takes, holds up who writes, like anything else that it does not take."""
    script = f"mkdir {tmp_path / 'ran'} && exit; echo ready; exec sleep 1000"
    kept = keep("sh", "-c", script, reads=True, restarts=Quick(Restart.ALWAYS, faster=5))
    await until(lambda: kept.restarts.decided and kept.writer.paused, "the time between two children")
    kept.say(*[b"x" * 1000] * 200)
    await kept.lines(1)
    await turns()
    assert kept.writer.paused


async def test_written_while_others_hold_stdout(keep: Keep, fifo: str) -> None:
    """What is written when a program has exited is for the next, though there is still something to come of the last."""
    kept = keep("sh", "-c", f"read line; echo $line; [ $line = two ] || (read go) <{fifo} &", reads=True, drain_seconds=1000)
    await until(lambda: not kept.writer.paused, "the program")
    kept.say(b"one")
    await until(lambda: kept.writer.paused, "its exit")
    kept.say(b"two")
    tell(Path(fifo), "go on")
    assert (await kept.lines(2))[:2] == ["one", "two"]
    assert kept.metrics.discarded_in == 0


async def test_first_words_of_all(keep: Keep) -> None:
    """What is written before the first child is there reaches it: a bus brings its history when it is opened."""
    kept = keep("cat", reads=True)
    kept.say(b"one", b"two")
    await until(lambda: not kept.writer.paused, "the program")
    kept.say(b"three")
    assert await kept.lines(3) == ["one", "two", "three"]


async def test_successor(keep: Keep) -> None:
    """Another program takes over the source and what waits: it gets the messages first, and the old one pauses the source no more."""
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
    """A program whose successor reads something else keeps what waits for it, and hands on nothing."""
    old = keep("cat", reads=True)
    old.say(b"a")
    assert old.supervisor.leave(Memory()) == []
    assert await old.lines(1) == ["a"]


async def test_nobody_waits_for_one_that_is_given_up(keep: Keep) -> None:
    """When it is not started again nobody is held up any more: what is written is discarded, and counted."""
    kept = keep("true", reads=True, restart=Restart.NEVER)
    await kept.over()
    assert not kept.writer.paused
    kept.say(b"one", b"two")
    assert kept.metrics.discarded_in == 2


async def test_closed_stdin(keep: Keep) -> None:
    """What a program does not take that has closed its stdin is discarded, and counted when it ends."""
    kept = keep("sh", "-c", "exec <&-; echo ready; sleep 1000", reads=True)
    await kept.lines(1)
    kept.say(b"one")
    kept.say(b"two", b"three")
    assert not kept.writer.paused
    await kept.stop()
    assert kept.metrics.discarded_in == 3


# Pause and resume


async def test_paused_across_restarts(keep: Keep) -> None:
    """While it is paused nothing is handed on, of this run or the next, and nothing is lost."""
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


async def test_paused_between_two_runs(keep: Keep) -> None:
    """Who pauses between two runs has paused the next one."""
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


async def test_last_words_wait_for_room(keep: Keep) -> None:
    """What a program printed before it ended waits for room however long that lasts; it is not started again before."""
    kept = keep("sh", "-c", "seq 5000; exit 3", drain_seconds=0.02)
    kept.supervisor.pause()
    begun = asyncio.get_running_loop().time()
    await until(lambda: asyncio.get_running_loop().time() - begun > 0.3, "many times what is granted to heirs")
    assert kept.restarts.decided == []
    kept.supervisor.resume()
    assert len(await kept.lines(5000)) >= 5000


# Its end


@pytest.mark.parametrize("until_event", ["eof", "INT", "TERM", "KILL"])
async def test_stop(keep: Keep, tmp_path: Path, until_event: str) -> None:
    """To stop is to close stdin and then to climb down the ladder; it is not started again."""
    kept = keep(*command("witness", tmp_path / "record", until_event))
    pid = int((await kept.lines(1))[0])
    await kept.stop()
    assert not is_alive(pid)
    assert kept.restarts.decided == []
    steps = ["eof", "INT", "TERM"]
    assert [event for event, _ in recorded(tmp_path / "record")] == steps[: [*steps, "KILL"].index(until_event) + 1]


async def test_last_words(keep: Keep) -> None:
    """What a program says when it is made to end is handed on, all of it."""
    kept = keep("sh", "-c", "echo ready; cat; seq 20000; echo bye", ladder=PATIENT)
    await kept.lines(1)
    await kept.stop()
    assert await kept.lines(20_002) == ["ready", *[str(number) for number in range(1, 20_001)], "bye"]


async def test_stopped_within_a_record(keep: Keep, caplog: pytest.LogCaptureFixture) -> None:
    """That a program was stopped in the middle of a record is no fault of its own."""
    kept = keep("sh", "-c", """echo '{"type":"message","text":"a"}'; printf '{"type"'; exec sleep 1000""", framing="json", ladder=AT_ONCE)
    await kept.lines(1)
    await turns()
    await kept.stop()
    assert "ending the program" not in caplog.text


async def test_stop_between_two_runs(keep: Keep) -> None:
    """To stop does not wait for the next run."""
    kept = keep("false", restarts=Quick(Restart.ALWAYS, faster=0.001))
    await until(lambda: kept.restarts.decided, "its end")
    await kept.stop()
    assert len(kept.restarts.decided) == 1


async def test_stop_before_it_has_begun(keep: Keep) -> None:
    """One that is stopped at once is never started."""
    kept = keep("echo", "x")
    await kept.stop()
    await kept.stop()
    assert kept.output.messages == []


async def test_kill(keep: Keep, tmp_path: Path) -> None:
    """To kill is not to wait for the ladder."""
    kept = keep(*command("witness", tmp_path / "record"), ladder=PATIENT)
    pid = int((await kept.lines(1))[0])
    kept.supervisor.stop()
    await turns()
    assert not kept.task.done()
    kept.supervisor.kill()
    await kept.over()
    assert not is_alive(pid)


async def test_program_and_its_children_end(keep: Keep) -> None:
    """Nothing of a program is left, neither its children."""
    kept = keep("sh", "-c", "sleep 1000 & echo $!; wait", ladder=SHORT)
    grandchild = int((await kept.lines(1))[0])
    with mortal(grandchild):
        await kept.stop()
        assert not is_alive(grandchild)
