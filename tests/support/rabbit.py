"""A private RabbitMQ for tests, a TCP proxy to it that can fail in several ways, and WebsocketdBro's own clients.

A `Broker` is Debian's rabbitmq-server, run as the user of the tests, with its own ports, directories, cookie and epmd. It shares
nothing with a service on the same machine, nor with another `Broker`. Its ports are on 127.0.0.1, and its configuration is one Erlang
term.

No process outlives a broker: the broker kills its processes by their IDs. If the tests are killed, a small shell that reads a pipe does
the same.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from base64 import b64decode
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any, Self

import aiormq
from aiormq.abc import ChannelFrame, DeliveredMessage
from pamqp import commands
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from tests.support.deadline import DEADLINE, START_DEADLINE, Deadline, scaled
from tests.support.server import ServerEnded, descendants, free_port, listens, mortal, wait_for_exit, wait_until

SCRIPTS = Path("/usr/lib/rabbitmq/bin")
"""RabbitMQ's own scripts. Debian's scripts in /usr/sbin switch to the user rabbitmq, or fail."""

ROOT = os.environ.get("RABBITMQ_ROOT", "")
"""The root directory of another Debian, whose RabbitMQ the tests use instead of this system's: `scripts/test-rabbitmq4` creates it."""

ENTER = """
for folder in /dev /proc "$TMPDIR"; do mkdir -p "$0$folder"; mount --rbind "$folder" "$0$folder"; done
exec chroot "$0" "$@"
"""
"""Runs a command in that root, in its own mount namespace. Devices, processes and temporary files are those of this system."""

ERLANG = "+S 2:2 +A 2 -noinput -kernel inet_dist_use_interface {127,0,0,1}"
"""Two schedulers whatever the machine has, and no listener for other machines. RabbitMQ's script splits it at spaces."""

LOW, HIGH = "0.00001", "0.6"
"""Fractions of the memory: every broker's use is above the first, and no test broker's use reaches the second."""

SYNC = "[dets:sync(Table) || Table <- dets:all()]"
"""Writes the names of Ra's servers, which Ra otherwise writes half a second later (`auto_save` in ra_directory.erl). Ra coordinates
streams."""

DENIED = (
    "amqp_address_v1",
    "classic_queue_mirroring",
    "global_qos",
    "management_metrics_collection",
    "queue_master_locator",
    "ram_node_type",
)
"""Deprecated features that RabbitMQ 4 permits, and a later version removes: the tests forbid them. 3.10 ignores the list."""

DENIED_AT_FIRST = ("transient_nonexcl_queues",)
"""Features that a node forbids only at its first start, and not in a cluster. At a later start, RabbitMQ 4.0 may count such a feature as
used before it has loaded its tables, and then does not start (`failed_to_deny_deprecated_features`)."""

ACTOR = '<<"a test">>'
"""The user that RabbitMQ records as the author of a change."""

TICK_MS = 1000
"""The interval at which a channel checks for unacknowledged deliveries; RabbitMQ's default is a minute."""

ENDER = 'while read -r now; do pids=$now; done; [ -z "$pids" ] || kill -9 $pids; rm -rf "$1"'
"""Each line of its input is the current list of process IDs. At the end of the input, it kills them and deletes the directory."""

PROTOCOL_HEADER = b"AMQP\0\0\x09\x01"
START_METHOD = struct.pack(">HH", 10, 10)
"""Class and method of Connection.Start, the server's answer to the protocol header."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: close() sends a reset."""


class Broker:
    """One RabbitMQ node, a context manager. A test can stop or kill it and start it again, on the same ports, with the same data.

    With `peer`, it joins the cluster of another broker at its first start. That broker must be running, and must end later. With
    `consumer_timeout_ms`, it closes a channel that leaves a delivery unacknowledged for this time, within another second; the default
    is RabbitMQ's 30 minutes. `tls` has the files of the CA, the certificate and the key for a second port, which checks a client's
    certificate if there is one. With `streams`, it also speaks the stream protocol, on a third port.

    After the start, the broker accepts clients, but for a moment an existing stream may be missing (404).
    """

    def __init__(
        self,
        *,
        consumer_timeout_ms: int | None = None,
        tls: tuple[Path, Path, Path] | None = None,
        peer: Broker | None = None,
        streams: bool = False,
    ) -> None:
        assert Path(f"{ROOT}{SCRIPTS}/rabbitmq-server").exists(), "RabbitMQ is not installed; on Debian: apt-get install rabbitmq-server"
        self.port, self.tls_port, self.stream_port, self._epmd_port, self._distribution_port = (free_port() for _ in range(5))
        self._consumer_timeout_ms = consumer_timeout_ms
        self._tls = tls
        self._streams = streams
        self._peer = peer
        if peer is not None:
            self._epmd_port = peer._epmd_port
        self.node = "rabbit@localhost" if peer is None else f"rabbit{self.port}@localhost"
        self._stack = ExitStack()
        self._ender: subprocess.Popen[str] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def tls_url(self) -> str:
        assert self._tls, "the broker was made without tls"
        return f"amqps://guest:guest@127.0.0.1:{self.tls_port}/"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    @property
    def log(self) -> str:
        """All of the broker's log and output, over all its starts."""
        files = [*sorted(self.home.glob("log/*.log")), self.home / "output"]
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def start(self) -> Self:
        """Start the broker and wait until it answers an AMQP handshake."""
        assert self._process is None, "the broker is running"
        try:
            is_first = self._ender is None
            if is_first:
                self._prepare()
            with open(self.home / "output", "ab") as output:
                # RabbitMQ's script then becomes the broker itself, instead of waiting for it.
                environment = self._environment | {"RABBITMQ_ALLOW_INPUT": "1"}
                self._process = self._spawn(str(SCRIPTS / "rabbitmq-server"), output=output, env=environment)
            self._tell_ender()
            wait_until(self._is_ready, "RabbitMQ's answer to an AMQP handshake", START_DEADLINE)
            if is_first:
                self._configure(DENIED)
                if self._peer is not None:
                    self._join(self._peer)
        except BaseException:
            self.close()
            raise
        return self

    def stop(self) -> None:
        """Shut down the broker: it notifies its clients, and writes all durable data."""
        self._end(signal.SIGTERM)

    def kill(self, *, at_once: bool = False) -> None:
        """Kill the broker.

        If a node is killed within half a second after it created its first stream, it never finds that stream again (404 for good).
        Without `at_once`, the method waits at most half a second for this.
        """
        if not at_once:
            self.eval(SYNC)
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End all processes and delete all files; the method is idempotent."""
        self._end(signal.SIGKILL)
        self._stack.close()

    def ctl(self, *words: str, script: str = "rabbitmqctl") -> str:
        """Run rabbitmqctl, or another script of RabbitMQ, against this broker; return its output."""
        done = subprocess.run(
            entering(str(SCRIPTS / script), "-q", *words),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=scaled(START_DEADLINE),
            check=False,
        )
        assert done.returncode == 0, f"{script} {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def eval(self, expressions: str) -> str:
        """Evaluate Erlang expressions in the broker (5 ms, whereas rabbitmqctl takes a second of processor time).

        Returns the value of the last expression in the format of erl_call: numbers and atoms unchanged, strings in quotes.
        """
        where = ["-address", f"127.0.0.1:{self._distribution_port}", "-c", (self.home / ".erlang.cookie").read_text()]
        deadline = Deadline(DEADLINE)
        while True:
            done = subprocess.run(
                entering(_erl_call(), *where, "-e"),
                env=self._environment,
                input=f"{expressions}.\n",
                capture_output=True,
                text=True,
                timeout=scaled(START_DEADLINE),
                check=False,
            )
            # A busy broker may not answer erl_call's handshake in time. In that case it has evaluated nothing.
            if "failed to connect" not in done.stderr + done.stdout or deadline.has_passed():
                break
        # erl_call exits with 0 after an error, too.
        assert done.stdout.startswith("{ok, "), f"{expressions}: {done.stdout}{done.stderr}"
        return done.stdout.removeprefix("{ok, ").removesuffix("}")

    def queues(self) -> list[str]:
        """The names of all queues."""
        return sorted(self._texts("[N || {resource, _, _, N} <- rabbit_amqqueue:list_names()]"))

    def exchanges(self) -> list[str]:
        """The names of all exchanges."""
        return sorted(self._texts("[N || {resource, _, _, N} <- rabbit_exchange:list_names()]"))

    def bindings(self) -> list[tuple[str, str]]:
        """The exchange and the queue of each binding."""
        ends = "{binding, {resource, _, _, From}, _, {resource, _, _, To}, _}"
        texts = self._texts(f'lists:append([[From, To] || {ends} <- rabbit_binding:list(<<"/">>)])')
        return list(zip(texts[::2], texts[1::2], strict=True))

    def confirms(self) -> tuple[int, int]:
        """The number of messages published with publisher confirms since the start, and the number of confirmed messages."""
        counters = "Counters = maps:get([{protocol, amqp091}], rabbit_global_counters:overview())"
        names = "[messages_received_confirm_total, messages_confirmed_total]"
        found = self.eval(f"{counters}, [integer_to_list(maps:get(Name, Counters)) || Name <- {names}]")
        published, confirmed = map(int, re.findall(r"\d+", found))
        return published, confirmed

    def sent_bytes(self) -> list[int]:
        """The number of bytes that the broker has sent over each open connection."""
        octets = "proplists:get_value(send_oct, rabbit_networking:connection_info(Pid, [send_oct]))"
        found = self.eval(f"[integer_to_list({octets}) || Pid <- rabbit_networking:connections()]")
        return [int(number) for number in re.findall(r"\d+", found)]

    def add_user(self, name: str, password: str, *rights: str) -> None:
        """Add a user. `rights` are its patterns for configure, write and read; without them it cannot access the virtual host."""
        self.eval(f"rabbit_auth_backend_internal:add_user({binary(name)}, {binary(password)}, {ACTOR})")
        if rights:
            patterns = ", ".join(map(binary, rights))
            self.eval(f'rabbit_auth_backend_internal:set_permissions({binary(name)}, <<"/">>, {patterns}, {ACTOR})')

    def delete_user(self, name: str) -> None:
        self.eval(f"rabbit_auth_backend_internal:delete_user({binary(name)}, {ACTOR})")

    def delete_queue(self, name: str) -> None:
        """Delete a queue as an administrator does, if it exists."""
        resource = f'{{resource, <<"/">>, queue, {binary(name)}}}'
        delete = f"rabbit_amqqueue:delete(Queue, false, false, {ACTOR})"
        self.eval(f"case rabbit_amqqueue:lookup({resource}) of {{ok, Queue}} -> {delete}; {{error, not_found}} -> none end")
        assert name not in self.queues()

    def close_connections(self) -> None:
        """Close all client connections as an administrator does: each client gets 320 and the reason."""
        self.eval('rabbit_networking:close_connections(rabbit_networking:connections(), <<"a test">>)')

    def alarm(self, on: bool) -> None:
        """Set or clear the memory alarm, under which the broker reads nothing from a publishing connection."""
        self.eval(f"vm_memory_monitor:set_vm_memory_high_watermark({LOW if on else HIGH})")
        wait_until(lambda: ("memory" in self.eval("rabbit_alarm:get_alarms()")) is on, f"the memory alarm to be {on=}")

    def _texts(self, expression: str) -> list[str]:
        """Evaluate an expression whose value is a list of binaries, in base64: erl_call prints only nonempty ASCII strings unchanged."""
        encoded = self.eval(f'[binary_to_list(base64:encode(<<"=", Text/binary>>)) || Text <- {expression}]')
        return [b64decode(text).decode()[1:] for text in re.findall(r'"([^"]*)"', encoded)]

    def _prepare(self) -> None:
        """Create the directories, the configuration and the helper processes, which all starts share."""
        self.home = Path(tempfile.mkdtemp(prefix="rabbit-"))
        self._stack.callback(shutil.rmtree, self.home, ignore_errors=True)
        cookie = self.home / ".erlang.cookie"
        cookie.write_text((self._peer.home / cookie.name).read_text() if self._peer else secrets.token_hex(10))
        cookie.chmod(0o400)
        (self.home / "plugins").write_text("[rabbitmq_stream]." if self._streams else "[].")
        self._configure((*DENIED, *(() if self._peer else DENIED_AT_FIRST)))
        self._environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "TMPDIR": tempfile.gettempdir(),
            # An interrupted process writes no dump into the working directory.
            "ERL_CRASH_DUMP_SECONDS": "0",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.home / "rabbit.config"),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.home / "plugins"),
            "RABBITMQ_LOG_BASE": str(self.home / "log"),
            "RABBITMQ_MNESIA_BASE": str(self.home / "data"),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG,
        }
        words = ["sh", "-c", ENDER, "ender", str(self.home)]
        self._ender = subprocess.Popen(words, stdin=subprocess.PIPE, text=True, start_new_session=True)
        self._stack.callback(self._end_ender, self._ender)
        if self._peer is not None:
            return
        self._epmd = epmd = self._spawn("epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1")
        self._stack.callback(self._end_epmd, epmd)
        wait_until(lambda: _is_alive(epmd) and listens(epmd.pid, self._epmd_port), "the listening socket of epmd")

    def _join(self, peer: Broker) -> None:
        for words in (("stop_app",), ("join_cluster", peer.node), ("start_app",)):
            self.ctl(*words)
        wait_until(self._is_ready, "RabbitMQ's answer to an AMQP handshake, in the cluster", START_DEADLINE)

    def _configure(self, denied: Sequence[str]) -> None:
        """Write the configuration for the next start, which forbids these deprecated features."""
        rabbit = [
            f'{{tcp_listeners,[{{"127.0.0.1",{self.port}}}]}}',
            "{disk_free_limit,1000000}",
            f"{{max_message_size,{128 * 1024 * 1024}}}",
            f"{{vm_memory_high_watermark,{HIGH}}}",
            f"{{permit_deprecated_features,#{{{','.join(f'{name} => false' for name in denied)}}}}}",
            "{log,[{file,[{level,warning}]},{console,[{enabled,false}]}]}",
        ]
        if self._consumer_timeout_ms is not None:
            rabbit += [f"{{consumer_timeout,{self._consumer_timeout_ms}}}", f"{{channel_tick_interval,{TICK_MS}}}"]
        if self._tls is not None:
            files = ",".join(f'{{{name},"{file}"}}' for name, file in zip(("cacertfile", "certfile", "keyfile"), self._tls, strict=True))
            # A client certificate is optional; newer versions of Erlang require one otherwise.
            options = f"{files},{{verify,verify_peer}},{{fail_if_no_peer_cert,false}}"
            rabbit += [f'{{ssl_listeners,[{{"127.0.0.1",{self.tls_port}}}]}}', f"{{ssl_options,[{options}]}}"]
        stream = f'[{{tcp_listeners,[{{"127.0.0.1",{self.stream_port}}}]}}]'
        (self.home / "rabbit.config").write_text(f"[{{rabbit,[{','.join(rabbit)}]}},{{rabbitmq_stream,{stream}}}].")

    def _spawn(self, *words: str, output: Any = subprocess.DEVNULL, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            entering(*words),
            env=env or self._environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Signals for the tests' own group (Ctrl-C) do not reach it.
            start_new_session=True,
        )

    def _is_ready(self) -> bool:
        assert self._process is not None
        if not _is_alive(self._process):
            raise ServerEnded(f"RabbitMQ ended with {self._process.returncode}:\n{self.log}")
        ports = [self.port, *([self.tls_port] if self._tls else ()), *([self.stream_port] if self._streams else ())]
        return all(listens(self.pid, port) for port in ports) and _speaks_amqp(self.port)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        started = list(descendants(process.pid))  # Erlang gives each its own session
        with mortal(*started):
            process.send_signal(how)
            try:
                process.wait(scaled(DEADLINE))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in started:
            wait_for_exit(pid)
        self._tell_ender()

    def _tell_ender(self) -> None:
        assert self._ender is not None
        assert self._ender.stdin is not None
        pids = [str(process.pid) for process in (self._epmd, self._process) if process is not None]
        self._ender.stdin.write(" ".join(pids) + "\n")
        self._ender.stdin.flush()

    def _end_ender(self, ender: subprocess.Popen[str]) -> None:
        self._ender = None
        with ender:
            ender.kill()

    def _end_epmd(self, epmd: subprocess.Popen[bytes]) -> None:
        self._epmd = None
        epmd.kill()
        epmd.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Proxy:
    """A TCP proxy on its own port to a target that can change; a context manager. It runs in a thread.

    Each connection buffers at most the content of its two sockets and two streams: if one end does not read, the proxy stops reading
    from the other.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        """The target of new connections."""
        self.port = free_port()
        self.accepted = 0
        """The total number of connections."""
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="proxy")
        self._listener: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._swallows = False

    @property
    def links(self) -> int:
        """The number of open connections."""
        return len(self._links)

    @property
    def brought(self) -> int:
        """The number of the target's bytes that these connections have sent to their clients."""
        return sum(link.brought for link in self._links)

    def start(self) -> Self:
        self._thread.start()
        self.accept()
        return self

    def close(self) -> None:
        """Close all connections and end the thread; the method is idempotent."""
        if self._loop.is_closed():
            return
        if self._thread.is_alive():
            self.refuse()
            self.cut()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(scaled(DEADLINE))
        self._loop.close()

    def cut(self) -> None:
        """Reset all connections, at both ends; new connections work as before."""
        self._call(self._cut())

    def swallow(self) -> None:
        """From now on drop all data, in both directions, including the end. New connections are accepted, and treated in the same way."""
        self._call(self._swallow(True))

    def flow(self) -> None:
        """Let new connections work; a connection whose data was dropped stays broken."""
        self._call(self._swallow(False))

    def refuse(self) -> None:
        """Stop listening; existing connections stay."""
        self._call(self._refuse())

    def accept(self) -> None:
        """Listen again."""
        self._call(self._accept())

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(scaled(DEADLINE))

    async def _accept(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _swallow(self, on: bool) -> None:
        self._swallows = on
        for link in self._links:
            link.swallows |= on

    async def _cut(self) -> None:
        links = list(self._links)
        for link in links:
            link.reset()
        await asyncio.gather(*(link.task for link in links), return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(reader, writer, swallows=self._swallows)
        self._links.add(link)
        try:
            await link.run(self.target)
        finally:
            link.reset()
            self._links.discard(link)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Link:
    """One connection through a proxy: from a client, and to the target."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, swallows: bool) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.swallows = swallows
        self.brought = 0
        self._client = reader, writer
        self._writers = [writer]

    async def run(self, target: tuple[str, int]) -> None:
        """Forward bytes until both ends have closed, or one has failed. A connection that drops data from its start needs no target."""
        # The direction that fails raises in a group.
        with suppress(OSError, asyncio.CancelledError, ExceptionGroup):
            reader, writer = self._client
            if self.swallows:
                await self._carry(reader, writer)
            else:
                their_reader, their_writer = await asyncio.open_connection(*target)
                self._writers.append(their_writer)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._carry(reader, their_writer), name="to the target")
                    group.create_task(self._carry(their_reader, writer), name="to the client")
            for writer in self._writers:
                writer.close()

    def reset(self) -> None:
        """Reset both ends, unless both were closed in order, and stop."""
        for writer in self._writers:
            if not writer.transport.is_closing():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()
        if asyncio.current_task() is not self.task:
            self.task.cancel()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one direction. A broken end raises, unless the connection drops data: then the other end does not learn of it."""
        writer.transport.set_write_buffer_limits(0)  # drained means sent: no data can be lost when the connection ends
        while data := await self._read(reader):
            if not self.swallows:
                writer.write(data)
                await writer.drain()
                if writer is self._client[1]:
                    self.brought += len(data)
        if not self.swallows:
            writer.write_eof()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.read(1 << 16)
        except OSError:
            if self.swallows:
                return b""
            raise


async def bro_consume(url: str, exchange: str, count: int, *, bound: asyncio.Event | None = None) -> list[bytes]:
    """Consume messages like WebsocketdBro's consumer.py, which prints and flushes each; `bound` is set when the queue is bound."""
    bodies: asyncio.Queue[bytes] = asyncio.Queue()

    async def print_body(message: DeliveredMessage) -> None:
        bodies.put_nowait(message.body)

    connection = await aiormq.connect(url)
    try:
        channel = await connection.channel(publisher_confirms=False)
        await channel.exchange_declare(exchange=exchange, exchange_type="fanout")
        declared = await channel.queue_declare(exclusive=True)
        assert declared.queue is not None
        await channel.queue_bind(queue=declared.queue, exchange=exchange)
        await channel.basic_consume(declared.queue, print_body, no_ack=True)
        if bound is not None:
            bound.set()
        # The publisher may have to start first.
        async with asyncio.timeout(scaled(START_DEADLINE)):
            return [await bodies.get() for _ in range(count)]
    finally:
        await connection.close()


async def bro_publish(url: str, exchange: str, text: str) -> None:
    """Publish like WebsocketdBro's publisher.py: its whole input as one message without properties and without a confirm."""
    body = text.rstrip().encode()
    publish = commands.Basic.Publish(exchange=exchange, routing_key="")
    # aiormq's own basic_publish() would add a message id and a delivery mode.
    head = ContentHeader(body_size=len(body), properties=commands.Basic.Properties())
    frames: list[Frame | ContentHeader | ContentBody] = [publish, head]
    if body:
        frames.append(ContentBody(body))
    connection = await aiormq.connect(url)
    try:
        channel = await connection.channel(publisher_confirms=False)
        assert isinstance(channel, aiormq.Channel)
        await channel.exchange_declare(exchange=exchange, exchange_type="fanout")
        await channel.write_queue.put(ChannelFrame.marshall(channel_number=channel.number, frames=frames))
        await channel.close()  # the answer comes after the broker has accepted the message
    finally:
        await connection.close()


def binary(text: str) -> str:
    """Return a text as an Erlang binary. erl_call reads each byte as one character."""
    return '<<"' + text.replace("\\", "\\\\") + '">>'


@cache
def _erl_call() -> str:
    """Return the path of erl_call in the system that runs RabbitMQ."""
    (found,) = Path(f"{ROOT or '/'}/usr/lib/erlang").glob("erts-*/bin/erl_call")
    return str(found).removeprefix(ROOT)


def entering(*words: str) -> list[str]:
    """Return the command line that runs a command where RabbitMQ is installed."""
    if not ROOT:
        return [*words]
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *as_root, "--mount", "sh", "-ec", ENTER, ROOT, *words]


def _speaks_amqp(port: int) -> bool:
    """Return whether the server answers the protocol header with Connection.Start."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), scaled(DEADLINE)) as client:
        client.sendall(PROTOCOL_HEADER)
        return client.recv(11, socket.MSG_WAITALL)[7:] == START_METHOD
    return False


def _is_alive(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None
