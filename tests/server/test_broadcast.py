"""A broadcast: one program and any number of subscribers. The tests cover its output, its input, its restarts and its shutdown."""

from __future__ import annotations

import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.server.conftest import V1, Broadcast, listen, status, view, wait_for_viewers
from tests.support.client import DEADLINE, Message, Opcode, open_stream, request_bytes
from tests.support.deadline import scaled
from tests.support.proc import TRANSPORTS, resident
from tests.support.server import Server, is_alive, memory_peak, wait_for_exit, wait_until, write_to_fifo
from tests.support.site import Certificates, write_script
from tests.support.tool import command, recorded

MIB = 1 << 20


def shell(script: str) -> tuple[str, str, str]:
    return ("sh", "-c", script)


def told(fifo: Path, script: str) -> tuple[str, str, str]:
    """A program that starts its work when the test says so, then stays."""
    return shell(f"read go <{fifo}; {script}; exec sleep 1000")


# From the program to all subscribers


def test_program_runs_without_subscribers(broadcast: Broadcast, tmp_path: Path) -> None:
    """The program runs from the start of the server, with or without subscribers."""
    started = tmp_path / "started"
    broadcast(*shell(f"echo early; echo >{started}; exec sleep 1000"))
    wait_until(started.exists, "the program")


@pytest.mark.parametrize("name", TRANSPORTS)
def test_every_subscriber_gets_every_message(broadcast: Broadcast, fifo: Path, name: str) -> None:
    """Each message reaches every subscriber, in order, over every protocol."""
    if name == "aiofastnet":
        pytest.importorskip("aiofastnet")
    server = broadcast(*told(fifo, "seq 3000"), env=TRANSPORTS[name])
    expected = [str(number) for number in range(1, 3001)]
    with server.connect() as plain, view(server) as viewer, listen(server) as listener:
        wait_for_viewers(server, 3)
        write_to_fifo(fifo, "go")
        assert [plain.receive_text() for _ in expected] == expected
        assert [message.decode() for message in viewer.messages(3000)] == expected
        assert listener.data(3000) == expected
        assert viewer.lost == 0


@pytest.mark.parametrize(
    ("flags", "printed", "messages"),
    [
        (["--framing=lines"], r"one\r\n\ntwo\n", [b"one", b"", b"two"]),
        (["--framing=nul"], r"one\ntwo\000\000", [b"one\ntwo", b""]),
        (["--framing=prefixed"], r"\000\000\000\003\001one\000\000\000\002\002\377\000", [b"one", b"\xff\x00"]),
        (["--framing=json"], r'{"type":"message","text":"one"}\n{"type":"message","base64":"/wA="}\n', [b"one", b"\xff\x00"]),
        (["--framing=chunks"], r"\377\000\n", [b"\xff\x00\n"]),
        (["--binary"], r"\377\000\n", [b"\xff\x00\n"]),
    ],
    ids=["lines", "nul", "prefixed", "json", "chunks", "binary"],
)
def test_framings(broadcast: Broadcast, fifo: Path, flags: list[str], printed: str, messages: list[bytes]) -> None:
    """Every framing works, binary messages included; a message that is not UTF-8 is binary."""
    server = broadcast(*flags, *told(fifo, f"printf {shlex.quote(printed)}"))
    with server.connect() as plain, view(server) as viewer, listen(server) as listener:
        wait_for_viewers(server, 3)
        write_to_fifo(fifo, "go")
        received = [plain.receive() for _ in messages]
        assert [message.data for message in received] == messages
        assert [message.kind is Opcode.BINARY for message in received] == [b"\xff" in message for message in messages]
        assert viewer.messages(len(messages)) == messages
        assert [listener.next().kind for _ in messages] == ["binary" if b"\xff" in message else "message" for message in messages]


@pytest.mark.parametrize("size", [1 << 17, 3 * MIB])
def test_long_message(broadcast: Broadcast, fifo: Path, size: int) -> None:
    """A message of any length up to --maxline reaches every subscriber, also if it is longer than --queue."""
    server = broadcast("--queue=1000", *told(fifo, shlex.join(["head", "-c", str(size), "/dev/zero"]) + " | tr '\\0' x; echo; echo end"))
    with server.connect() as plain, view(server) as viewer:
        wait_for_viewers(server, 2)
        write_to_fifo(fifo, "go")
        assert plain.receive_text() == "x" * size
        assert plain.receive_text() == "end"
        assert [len(message) for message in viewer.messages(2)] == [size, 3]


def test_environment(broadcast: Broadcast, fifo: Path) -> None:
    """The program has the server's own environment without the server's own variables, and no variables of a client."""
    ours = {"OF_OUR_OWN": "yes", "WSBRIDGE_MAXLINE": "1000", "LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
    server = broadcast(*told(fifo, "env; echo end"), env=ours)
    with server.connect() as plain:
        wait_for_viewers(server, 1)
        write_to_fifo(fifo, "go")
        found = []
        while not (found and found[-1] == "end"):
            found.append(plain.receive_text())
        assert "OF_OUR_OWN=yes" in found
        assert not any(line.startswith(("QUERY_STRING", "GATEWAY_INTERFACE", "WSBRIDGE_", "LISTEN_")) for line in found)


def test_stdin_is_open_and_silent(broadcast: Broadcast, tmp_path: Path) -> None:
    """The program's stdin is an open pipe without data until the server shuts down."""
    record = tmp_path / "record"
    server = broadcast(*command("witness", record, "eof"))
    wait_until(record.exists, "the program")
    with server.connect() as plain:
        plain.send_text("x")
        assert plain.receive_close().code == 1003
    assert recorded(record) == []
    server.stop()
    assert [event for event, _ in recorded(record)] == ["eof"]


def test_stderr(broadcast: Broadcast) -> None:
    """The server logs the program's stderr, and sends it to no client."""
    server = broadcast(*shell("echo oops >&2; exec sleep 1000"))
    server.wait_for_log("oops")
    assert status(server)["messages"] == 0


def test_terminal(broadcast: Broadcast, fifo: Path) -> None:
    """With --pty, a program that block-buffers its output on a pipe prints each line at once."""
    script = f"import sys; open({str(fifo)!r}).read(); print('now'); sys.stdin.read()"
    server = broadcast("--pty", sys.executable, "-S", "-c", script)
    with server.connect() as plain:
        wait_for_viewers(server, 1)
        write_to_fifo(fifo, "go")
        assert plain.receive_text() == "now"


# --through, --input and no program


def test_through(broadcast: Broadcast) -> None:
    """With --through, the program's stdin gets the exchange's messages, and the subscribers get its output, and nothing else."""
    server = broadcast("--through", "--input=exchange", *shell('while read -r line; do echo "<$line>"; done'))
    with server.connect() as one, view(server) as other:
        wait_for_viewers(server, 2)
        for text in ("a", "b"):
            one.send_text(text)
            assert one.receive_text() == f"<{text}>"
        assert other.messages(2) == [b"<a>", b"<b>"]


def test_gateway(talk: Server) -> None:
    """Without a program, the server is a gateway. With --input=exchange, a client's message reaches every client unchanged, including
    its sender."""
    with talk.connect() as one, talk.connect() as other, view(talk) as viewer:
        wait_for_viewers(talk, 3)
        one.send_text("two\nlines é")
        other.receive_text()
        other.send_binary(b"\xff\n\0")
        one.send_text("")
        expected = [(Opcode.TEXT, "two\nlines é".encode()), (Opcode.BINARY, b"\xff\n\0"), (Opcode.TEXT, b"")]
        assert one.receive() == Message(*expected[0])
        # The bus may deliver the later messages in another order, but in the same order to all.
        rest = [one.receive() for _ in range(2)]
        assert sorted(rest, key=lambda message: message.data) == [Message(*expected[2]), Message(*expected[1])]
        assert [other.receive() for _ in range(2)] == rest
        assert viewer.messages(3) == [expected[0][1], *[message.data for message in rest]]


def test_no_message_is_delayed(talk: Server) -> None:
    """Each message arrives when it is sent, not with the next message, over every kind of listener."""
    with talk.connect() as one, view(talk) as viewer, listen(talk) as listener:
        wait_for_viewers(talk, 3)
        for number in range(20):
            one.send_text(str(number))
            assert one.receive_text() == str(number)
            assert viewer.message() == b"%d" % number
            assert listener.data() == [str(number)]


def test_input_beside_a_publishing_program(broadcast: Broadcast, fifo: Path) -> None:
    """With --input=exchange, the program and the clients publish side by side."""
    server = broadcast("--input=exchange", *told(fifo, "echo program"))
    with server.connect() as one:
        one.send_text("browser")
        assert one.receive_text() == "browser"
        write_to_fifo(fifo, "go")
        assert one.receive_text() == "program"


def test_input_none(broadcast: Broadcast) -> None:
    """Without an input, the server closes a client that sends with 1003 and a reason. Other clients are not affected."""
    server = broadcast("sleep", 1000)
    with server.connect() as quiet, server.connect() as one, view(server) as other:
        one.send_text("")
        close = one.receive_close()
        assert close.code == 1003
        assert "--input" in close.reason
        other.client.send_binary(b"x")
        assert other.client.receive_close().code == 1003
        wait_for_viewers(server, 1)
        assert quiet.is_open()


def test_input_program(broadcast: Broadcast) -> None:
    """With --input=program, the clients' messages go to the program's stdin, in its framing."""
    server = broadcast("--input=program", *shell('while read -r line; do echo "<$line>"; done'))
    with server.connect() as one, view(server) as other:
        wait_for_viewers(server, 2)
        one.send_text("a")
        assert one.receive_text() == "<a>"
        other.client.send_text("b")
        assert one.receive_text() == "<b>"
        assert other.messages(2) == [b"<a>", b"<b>"]


def test_input_to_a_program_that_does_not_read(broadcast: Broadcast) -> None:
    """Clients that send more than the program reads are paused, in bounded memory, and still receive the program's output."""
    server = broadcast("--input=program", *command("ticks"))
    with server.connect() as one, server.connect() as other:
        before = resident(server.pid)
        with one.sending(b"".join(b"\x82\xfe\xff\xff\0\0\0\0" + b"x" * 65_535 for _ in range(400))) as thread:
            wait_until(lambda: int(other.receive_text()) > 60_000, "a full stdin")
            for _ in range(50):
                other.receive_text()
            assert thread.is_alive()
            assert resident(server.pid) - before < 8 * MIB


# Exit and restart


def test_restart(broadcast: Broadcast, fifo: Path) -> None:
    """The server restarts a program that exits, keeps the clients, and logs the exit status."""
    server = broadcast(*shell(f"read go <{fifo}; echo $go; exit 3"))
    with view(server) as viewer:
        wait_for_viewers(server, 1)
        assert (status(server)["program"], status(server)["program_exit"]) == ("running", None)
        for word in ("one", "two"):
            write_to_fifo(fifo, word)
            assert viewer.message() == word.encode()
        assert viewer.losses == []
        wait_until(lambda: status(server)["program"] == "waiting", "the program's end")
        assert status(server)["program_exit"] == "exit 3"
        server.wait_for_log(r"exit 3; restarting the program in 0\.5 s")
        server.wait_for_log(r"exit 3; restarting the program in 1 s")
        assert status(server)["counts"]["program_restarts"] == 2


@pytest.mark.parametrize(("policy", "code"), [("never", 3), ("never", 0), ("on-failure", 0)])
def test_no_restart(broadcast: Broadcast, fifo: Path, policy: str, code: int) -> None:
    """If the program is not restarted, the channel stays: clients stay, and new clients may connect."""
    server = broadcast(f"--restart={policy}", "--join=history", *shell(f"read go <{fifo}; echo last; exit {code}"))
    with server.connect() as plain:
        wait_for_viewers(server, 1)
        write_to_fifo(fifo, "go")
        assert plain.receive_text() == "last"
        server.wait_for_log(f"{'ERROR ' if code else 'INFO  '} .* exit {code}; not restarting the program")
        assert (status(server)["program"], status(server)["program_exit"]) == ("ended", f"exit {code}")
        assert plain.is_open()
        with server.connect() as late:
            assert late.receive_text() == "last"


def test_program_that_cannot_start(broadcast: Broadcast, tmp_path: Path) -> None:
    """If the program cannot start any more, the server retries, and the channel stays."""
    script = write_script(tmp_path / "script", "exec sleep 0.1")
    server = broadcast(script)
    with server.connect() as plain:
        script.unlink()
        server.wait_for_log("restarting the program in 1 s")
        assert plain.is_open()


def test_flood_without_newlines(broadcast: Broadcast) -> None:
    """The supervisor ends a program that prints endlessly without a newline at --maxline, and restarts it; no client is disconnected."""
    server = broadcast("--maxline=1000000", *command("endless"))
    with server.connect() as plain:
        server.wait_for_log("1009")
        server.wait_for_log("restarting the program in 1 s")
        assert plain.is_open()
        assert memory_peak(server.pid) < 100 * MIB


def test_gigabyte(broadcast: Broadcast, fifo: Path) -> None:
    """The output of a program that prints a gigabyte does not fill the memory; a subscriber gets the count of its lost messages."""
    # The subscriber reads nothing meanwhile, however long that takes.
    server = broadcast("--send-timeout=0", *told(fifo, "yes $(printf %0999d 7) | head -n 1000000; echo end"))
    with view(server) as viewer:
        before = resident(server.pid)
        write_to_fifo(fifo, "go")
        wait_until(lambda: status(server)["messages"] == 1_000_001, "a gigabyte", progress=lambda: status(server)["messages"])
        count = 1
        while viewer.message() != b"end":
            count += 1
        assert count + viewer.lost == 1_000_001
        assert memory_peak(server.pid) - before < 40 * MIB


@pytest.mark.parametrize("line", ["", "x"], ids=["empty", "tiny"])
def test_flood_of_tiny_lines(broadcast: Broadcast, line: str) -> None:
    """The memory does not grow, however short the lines of a flood are: the channel also drops empty messages."""
    server = broadcast("--queue=10000", "--history-bytes=10000", "yes", line)
    wait_until(lambda: status(server)["messages"] > 2_000_000, "the first millions", progress=lambda: status(server)["messages"])
    before = resident(server.pid)
    wait_until(lambda: status(server)["messages"] > 12_000_000, "the next millions", progress=lambda: status(server)["messages"])
    assert resident(server.pid) - before < 16 * MIB


def test_closed_stdout(broadcast: Broadcast, tmp_path: Path) -> None:
    """The supervisor ends and restarts a program that closes its stdout and continues."""
    record = tmp_path / "record"
    server = broadcast(*command("witness", record, "INT", "stdout"))
    server.wait_for_log("closed its stdout")
    server.wait_for_log("restarting the program in ")
    assert [event for event, _ in recorded(record)] == ["eof", "INT"]


def test_closed_stdout_of_a_program_that_reads(broadcast: Broadcast, tmp_path: Path) -> None:
    """With --input=program, a program without a stdout continues to read its input."""
    said = tmp_path / "said"
    server = broadcast("--input=program", *shell(f"exec >&-; while read -r line; do echo $line >>{said}; done"))
    with server.connect() as one:
        one.send_text("a")
        one.send_text("b")
        wait_until(lambda: said.exists() and said.read_text() == "a\nb\n", "what it was told")


def test_program_that_asks_to_close(broadcast: Broadcast, fifo: Path) -> None:
    """A close record in JSON ends the run of its program, not the channel: the clients stay."""
    records = '{"type":"message","text":"a"}\\n{"type":"close","code":4000,"reason":"enough"}\\n'
    server = broadcast("--framing=json", *shell(f"read go <{fifo}; printf '{records}'; exec sleep 1000"))
    with server.connect() as plain:
        wait_for_viewers(server, 1)
        write_to_fifo(fifo, "go")
        assert plain.receive_text() == "a"
        server.wait_for_log("4000 enough")
        write_to_fifo(fifo, "go")
        assert plain.receive_text() == "a"


def test_grandchild_that_holds_stdout(broadcast: Broadcast) -> None:
    """The supervisor restarts a program whose grandchild holds its stdout, and ends the grandchild."""
    server = broadcast("--drainms=100", "--join=last", *shell("sleep 1000 & echo $!"))
    with server.connect() as plain:
        grandchild = int(plain.receive_text())
        wait_for_exit(grandchild)
        assert int(plain.receive_text()) != grandchild


# Shutdown


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_shutdown(broadcast: Broadcast, how: signal.Signals) -> None:
    """At the shutdown, the program ends first. Its last output reaches all clients, which are then closed with 1001."""
    server = broadcast("--join=last", "--closems=60000", *shell("echo ready; cat; echo bye"))
    with server.connect() as plain, view(server) as viewer, listen(server) as listener:
        assert plain.receive_text() == "ready"
        assert viewer.message() == b"ready"
        assert listener.data() == ["ready"]
        server.send_signal(how)
        messages, close = plain.receive_until_close()
        assert [message.data for message in messages] == [b"bye"]
        assert close.code == 1001
        assert viewer.message() == b"bye"
        assert viewer.client.receive_close().code == 1001
        assert listener.data() == ["bye"]
        assert listener.stream.read_to_end() == b""
        assert server.wait() == 0


def test_shutdown_before_the_broker_answers() -> None:
    """TERM ends a server that still waits for its broker, at once and with status 0."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(scaled(DEADLINE))
        where = f"--broker=amqp://127.0.0.1:{silent.getsockname()[1]}/"
        words = [sys.executable, "-m", "wsbridge", "broadcast", "--port=0", "--exchange=temps", where, "cat"]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            try:
                with silent.accept()[0] as broker:
                    assert broker.recv(8).startswith(b"AMQP")
                    process.send_signal(signal.SIGTERM)
                    _, said = process.communicate(timeout=scaled(DEADLINE))
            finally:
                process.kill()
        assert process.returncode == 0
        assert b"ERROR" not in said


@pytest.mark.parametrize("name", TRANSPORTS)
def test_much_output_at_the_shutdown(broadcast: Broadcast, name: str) -> None:
    """The last output is delivered before the close, however long it is, to all clients that read."""
    if name == "aiofastnet":
        pytest.importorskip("aiofastnet")
    last_words = "seq -f %01000.0f 4000"
    flags = ("--queue=10000000", "--join=last", "--closems=5000")
    server = broadcast(*flags, *shell(f"echo ready; cat; {last_words}"), env=TRANSPORTS[name])
    with view(server) as viewer, server.connect() as plain:
        assert viewer.message() == b"ready"
        assert plain.receive_text() == "ready"
        server.send_signal(signal.SIGTERM)
        assert [int(plain.receive_text()) for _ in range(4000)] == list(range(1, 4001))
        assert [int(message) for message in viewer.messages(4000)] == list(range(1, 4001))
        assert [client.receive_close().code for client in (plain, viewer.client)] == [1001, 1001]


def test_stuck_client_does_not_delay_the_shutdown(broadcast: Broadcast) -> None:
    """A client that reads nothing delays the shutdown only shortly."""
    server = broadcast("--input=exchange")
    with server.connect(receive_buffer=4096), server.connect() as publisher:
        wait_for_viewers(server, 2)
        for _ in range(100):
            publisher.send_binary(b"x" * 100_000)
            publisher.receive_binary()
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0


def test_shutdown_of_a_program_that_ignores_eof(broadcast: Broadcast, tmp_path: Path) -> None:
    """The ladder ends a program that ignores EOF, by INT, TERM and KILL."""
    record = tmp_path / "record"
    server = broadcast(*command("witness", record))
    wait_until(record.exists, "the program")
    assert server.stop() == 0
    assert [event for event, _ in recorded(record)] == ["eof", "INT", "TERM"]


def test_second_signal(broadcast: Broadcast, tmp_path: Path) -> None:
    """A second signal ends the server at once."""
    record = tmp_path / "record"
    server = broadcast("--closems=60000", *command("witness", record))
    wait_until(record.exists, "the program")
    (program,) = [pid for pid in server.children() if "witness" in Path(f"/proc/{pid}/cmdline").read_text()]
    server.send_signal(signal.SIGTERM)
    wait_until(lambda: recorded(record), "the first step")
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not is_alive(program)


def test_shutdown_between_two_runs(broadcast: Broadcast) -> None:
    """The shutdown does not wait for the next run of the program."""
    server = broadcast("false")
    server.wait_for_log("restarting the program in 2 s")
    assert server.stop() == 0
    assert server.log.count("restarting the program in ") == 3


def test_killed_server(broadcast: Broadcast) -> None:
    """A server that is killed leaves no program behind."""
    server = broadcast("--join=last", *shell("echo $$; exec sleep 1000"))
    with server.connect() as plain:
        program = int(plain.receive_text())
        server.send_signal(signal.SIGKILL)
        wait_for_exit(program)


# Other URLs than the channel's


def test_times(broadcast: Broadcast) -> None:
    """With ?times=1, a client of wsbridge.v1 gets the publication time of each batch once, and the same time at each request."""
    server = broadcast("--input=exchange", "--join=history")
    before = time.time() * 1000
    with server.connect(subprotocols=(V1,)) as other:
        other.send_text("a")
        other.receive_text()
        assert other.receive_text().endswith("\na")
    told = []
    for _ in range(2):
        with server.connect("/?times=1", subprotocols=(V1,)) as client:
            at, stamp, message = (client.receive_text() for _ in range(3))
            assert (at[:4], stamp[:6], message[-2:]) == ("!at ", "!time ", "\na")
            told.append(int(stamp.removeprefix("!time ")))
    assert told[0] == told[1]
    assert before - 1 <= told[0] <= time.time() * 1000


def test_status(talk: Server) -> None:
    """/status has the number of subscribers, the position of the channel, and no broker."""
    with view(talk) as viewer:
        assert viewer.next().what == "at"
        viewer.client.send_text("a")
        assert viewer.message() == b"a"
        told = status(talk)
        assert (told["exchange"], told["viewers"], told["position"], told["broker"]) == ("talk", 1, viewer.position, None)
        answer = talk.get("/status")
        assert answer.value("Content-Type") == "application/json; charset=utf-8"
        assert answer.value("Cache-Control") == "no-store"
        assert (told["program"], told["program_exit"]) == (None, None)


def test_status_requests_of_pages_are_not_logged(broadcast: Broadcast) -> None:
    """Each open page requests /status every two seconds; the log has these requests only at a lower level."""
    for level, count in (("access", 0), ("trace", 2)):
        server = broadcast("--input=exchange", f"--loglevel={level}")
        for path in ("/status", "/wsbridge.js"):
            assert server.get(path).status == 200
        assert server.get("/").status == 200
        server.wait_for_log(r"\| http .* \| PAGE")
        assert server.log.count("| CHANNEL") == count


def test_one_cors_header(broadcast: Broadcast) -> None:
    """A browser accepts a single Access-Control-Allow-Origin, so the user's header replaces the server's."""
    server = broadcast("--input=exchange", "--header-http=Access-Control-Allow-Origin: https://a.example")
    for path in ("/status", "/wsbridge.js", "/wsbridge.mjs"):
        answer = server.get(path, headers=[("Origin", "https://a.example")])
        assert answer.values("Access-Control-Allow-Origin") == ["https://a.example"]


def test_files_scripts_and_page(broadcast: Broadcast, tmp_path: Path) -> None:
    """Files, CGI scripts and the page share the port; the page appears only where nothing else does."""
    public, scripts = tmp_path / "public", tmp_path / "cgi"
    public.mkdir()
    scripts.mkdir()
    (public / "index.html").write_text("<p>a page</p>\n")
    write_script(scripts / "hello", 'echo "Content-Type: text/plain"; echo; echo hello')
    server = broadcast(f"--staticdir={public}", f"--cgidir={scripts}", "--devconsole", "--input=exchange")
    assert server.get("/").body == b"<p>a page</p>\n"
    assert server.get("/hello").body == b"hello\n"
    assert b"<html" in server.get("/console").body.lower()
    assert server.get("/favicon.ico").value("Content-Type") == "image/svg+xml; charset=utf-8"
    assert server.get("/wsbridge.js").value("Content-Type") == "text/javascript; charset=utf-8"
    assert server.get("/wsbridge.mjs").status == 200
    with server.connect("/hello") as plain:
        plain.send_text("over a path of any name")
        assert plain.receive_text() == "over a path of any name"


def test_without_page_and_status(broadcast: Broadcast) -> None:
    """--no-page and --no-status disable the page and the status; the channel, its streams and its scripts stay."""
    server = broadcast("--input=exchange", "--no-page", "--no-status")
    assert [server.get(path).status for path in ("/", "/status", "/favicon.ico")] == [404, 404, 404]
    assert [server.get(path).status for path in ("/wsbridge.js", "/wsbridge.mjs")] == [200, 200]
    assert "Live channel" not in server.log
    with server.connect() as plain, listen(server) as listener:
        plain.send_text("here")
        assert listener.data() == ["here"]


def test_no_page(broadcast: Broadcast, tmp_path: Path) -> None:
    """Without the page, a directory has its listing at the root, and /status still works."""
    (tmp_path / "mine.txt").write_text("mine")
    server = broadcast("--input=exchange", "--no-page", f"--staticdir={tmp_path}")
    assert b"mine.txt" in server.get("/").body
    assert server.get("/status").status == 200


@pytest.mark.parametrize("path", ["/status", "/wsbridge.js", "/wsbridge.mjs"])
def test_other_methods(talk: Server, path: str) -> None:
    """The other URLs accept GET and HEAD; OPTIONS lists these methods."""
    assert talk.request("HEAD", path).status == 200
    answer = talk.request("DELETE", path)
    assert (answer.status, answer.value("Allow")) == (405, "GET, HEAD, OPTIONS")
    assert talk.request("OPTIONS", path).status == 204
    assert talk.request("PROPFIND", path).status == 501


def test_page(talk: Server) -> None:
    """The page of the channel is at the root, for GET, and at no other path."""
    assert b"<html" in talk.get("/").body.lower()
    assert talk.request("POST", "/").status == 405
    for path in ("/event", "/a/b"):
        assert talk.get(path).status == 404


def test_page_beside_files(broadcast: Broadcast, tmp_path: Path) -> None:
    """The page is at the root unless the files have an index; with --devconsole, it is also at every unused path."""
    (tmp_path / "mine.html").write_text("<p>mine</p>\n")
    server, console = (broadcast(f"--staticdir={tmp_path}", *more, "--input=exchange") for more in ((), ("--devconsole",)))
    assert b"live channel" in server.get("/").body.lower()
    assert server.get("/mine.html").body == b"<p>mine</p>\n"
    assert server.get("/other.html").status == 404
    assert b"live channel" in console.get("/other.html").body.lower()
    (tmp_path / "index.html").write_text("<p>index</p>\n")
    for one in (server, console):
        assert one.get("/").body == b"<p>index</p>\n"


def test_scripts_have_their_own_limit(broadcast: Broadcast, tmp_path: Path) -> None:
    """--maxclients limits subscribers and --maxforks limits CGI scripts; neither affects the other."""
    write_script(tmp_path / "hello", 'echo "Content-Type: text/plain"; echo; echo hello')
    write_script(tmp_path / "long", 'echo "Content-Type: text/plain"; echo; echo hello; exec sleep 1000')
    server = broadcast(f"--cgidir={tmp_path}", "--maxclients=1", "--maxforks=1", "--input=exchange")
    with server.connect() as plain:
        assert server.get("/hello").body == b"hello\n"
        with open_stream(port=server.port) as stream:
            stream.send(request_bytes("GET", "/long", [("Host", "localhost")]))
            stream.read_until(b"hello")
            assert server.get("/hello").status == 429
            assert server.refusal().status == 429
            plain.send_text("still here")
            assert plain.receive_text() == "still here"


def test_headers(broadcast: Broadcast) -> None:
    """--header, --header-ws and --header-http apply to upgrades, event streams and other responses."""
    server = broadcast("--header=X-All: 1", "--header-ws=X-Ws: 2", "--header-http=X-Http: 3", "--input=exchange")
    with server.connect() as plain, listen(server) as listener:
        found = [plain.response, listener.head, server.get("/status")]
        values = [tuple(response.value(name) for name in ("X-All", "X-Ws", "X-Http")) for response in found]
        assert values == [("1", "2", None), ("1", None, "3"), ("1", None, "3")]


def test_log(broadcast: Broadcast) -> None:
    """The log has each connect and disconnect, with the exchange."""
    server = broadcast("--input=exchange")
    with server.connect(), listen(server):
        server.wait_for_log(r"ACCESS \| session +\| .*exchange:'temps'.* \| CONNECT")
    wait_until(lambda: server.log.count("| DISCONNECT") == 2, "two who have gone")


def test_mutual_tls(broadcast: Broadcast, certificates: Certificates) -> None:
    """With --sslca, only clients with a certificate can connect."""
    flags = (*certificates.server_flags, certificates.ca_flag)
    server = broadcast(*flags, "--join=last", *shell("echo x; exec sleep 1000"), tls=certificates.context("client"))
    with server.connect() as plain, listen(server) as listener:
        assert plain.receive_text() == "x"
        assert listener.data() == ["x"]
