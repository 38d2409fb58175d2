"""CGI scripts (RFC 3875): `--cgidir`.

The body of a request is streamed to the script and its answer streamed to the client, each held up by the other side.
A script is found by the same walk as those of `--dir`: the first component that is a file, PATH_INFO the rest. Its group
goes down the ladder when the answer is complete, when the client has gone (the task of its request is cancelled then),
and when the server shuts down. An answer that is cut off ends its connection: it must not be taken for a whole one.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from aiohttp import HttpVersion11, web

from wsbridge.closecodes import GOING_AWAY, NORMAL
from wsbridge.errors import ProgramError, Refused
from wsbridge.flow import Batch, End, Kind
from wsbridge.framing import chunks
from wsbridge.logs import Pairs, extra, logger
from wsbridge.metrics import Metrics
from wsbridge.process.child import Child
from wsbridge.process.launch import Launcher
from wsbridge.process.spawn import is_executable
from wsbridge.rules.cgi import BadAnswer, Head, parse_head, redirected, split_head
from wsbridge.rules.environ import Script, cgi_environment
from wsbridge.rules.paths import find_script, looker
from wsbridge.rules.request import Request, has_token
from wsbridge.sessions.registry import Registry
from wsbridge.web.hangup import Hangups
from wsbridge.web.outbox import outstanding_bytes

BODY_HIGH_WATER = 256 * 1024
"""Bytes of an answer that wait for the client before its script is held up."""
BODILESS = (204, 304)
"""The statuses of answers that have no body, whatever their script prints (RFC 9110, section 6.4.1)."""

log = logger("http")


@dataclass(frozen=True, slots=True)
class Found:
    """A script that a request leads to."""

    file: str
    script: Script


class CgiScripts:
    """Runs the scripts of one directory.

    A client that takes nothing of an answer for `send_timeout` seconds is given up (0: never). One that
    goes while its script takes nothing of the body is seen to go.
    """

    def __init__(
        self,
        root: str,
        *,
        software: str,
        passed: dict[str, str],
        registry: Registry,
        launcher: Launcher,
        metrics: Metrics,
        send_timeout: float,
        hangups: Hangups,
    ) -> None:
        self._root = os.path.realpath(root)
        self._look = looker(self._root)
        self._software = software
        self._passed = passed
        self._registry = registry
        self._launcher = launcher
        self._metrics = metrics
        self._send_timeout = send_timeout
        self._hangups = hangups

    def find(self, path: str) -> Found | None:
        """Return the script that a path leads to, if any."""
        target = find_script(path, self._look)
        if target is None:
            return None
        # Links may have changed since the walk: what is run is what is proved here, and it holds no link any more.
        real = os.path.realpath(os.path.join(self._root, target.file))
        return Found(real, target.script) if Path(real).is_relative_to(self._root) else None

    async def run(
        self, raw: web.BaseRequest, request: Request, found: Found, headers: tuple[tuple[str, str], ...]
    ) -> web.StreamResponse | Request:
        """Run a script and stream its answer; a request instead when the script hands on to another path. Raises Refused."""
        if not self._registry.take_slot():
            raise Refused(429, "all processes are taken (--maxforks)", body="429 Too Many Requests\n")
        try:
            run = self._start(raw, request, found)
        except BaseException:
            self._registry.give_slot()
            raise
        self._registry.add(run)
        feeding = asyncio.get_running_loop().create_task(run.feed(has_body=request.header("content-length") is not None), name="CGI body")
        try:
            return await run.answer(request, headers)
        finally:
            # This task may be cancelled, once and again: the end of the script is the registry's from here.
            run.finish()
            feeding.cancel()
            await asyncio.wait((feeding,))

    def _start(self, raw: web.BaseRequest, request: Request, found: Found) -> _Run:
        if not is_executable(found.file):
            raise Refused(500, "the script is not executable")
        if request.header("transfer-encoding") is not None:
            raise Refused(411, "a CGI script needs the length of the body")
        environment = cgi_environment(
            request,
            found.script,
            filename=found.file,
            root=self._root,
            remote_host=request.peer.address,
            software=self._software,
            passed=self._passed,
        )
        pairs = {"url": request.url, "cgiscript": found.file}
        try:
            child = self._launcher.launch(
                (found.file,),
                environment,
                decoder=chunks.Decoder(),
                encoder=chunks.Encoder(),
                pairs=pairs,
                cwd=os.path.dirname(found.file),
            )
        except ProgramError as error:
            self._metrics.launch_failures += 1
            log.error("%s", error, extra=extra(pairs))
            raise Refused(500, "the script could not be started") from None
        patience = _Patience(raw, self._send_timeout, self._metrics, pairs)
        return _Run(raw, child, registry=self._registry, patience=patience, hangups=self._hangups, pairs=pairs)


class _Cut(Exception):
    """The answer ended before it was complete."""


class _Run:
    """One script while it runs: both streams, and the sink of its answer."""

    def __init__(
        self,
        raw: web.BaseRequest,
        child: Child,
        *,
        registry: Registry,
        patience: _Patience,
        hangups: Hangups,
        pairs: Pairs,
    ) -> None:
        self._raw = raw
        self._child = child
        self._registry = registry
        self._patience = patience
        self._hangups = hangups
        self._pairs = pairs
        self._waiting: list[bytes | bytearray] = []
        self._size = 0
        self._is_over = self._is_whole = False
        """Whether nothing will follow what waits, and whether that is then all that the script had to say."""
        self._is_ending = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        child.source = self
        child.start(self)

    # The sink of what it prints

    def write(self, batch: Batch) -> None:
        self._waiting += batch.messages
        self._size += sum(map(len, batch.messages))
        if self._size > BODY_HIGH_WATER:
            self._child.pause()
        self._changed.set()

    def end(self, reason: End) -> None:
        # A script that was ended by the ladder may have had more to say.
        self._is_whole = self._child.group.signalled is None
        self._is_over = True
        self._changed.set()

    # The source of what it is told

    def pause(self) -> None:
        self._room.clear()

    def resume(self) -> None:
        self._room.set()

    # Live

    def finish(self) -> None:
        """Lead the script down the ladder and give its slot back; called again, do nothing."""
        if not self._is_ending:
            self._is_ending = True
            self._child.close_input(End(GOING_AWAY))
            self._registry.run(self._end(), f"end of CGI script {self._pairs['cgiscript']}")

    def shut_down(self) -> None:
        """End it; what it still prints on its way down the ladder reaches the client."""
        self.finish()

    def hurry(self) -> None:
        self._child.kill()

    async def _end(self) -> None:
        try:
            await self._child.end()
        finally:
            self._is_over = True
            self._changed.set()
            self._registry.give_slot()
            self._registry.remove(self)

    # The body

    async def feed(self, *, has_body: bool) -> None:
        """Tell the script the body of the request, and close its stdin."""
        try:
            if has_body:
                self._ask_for_body()
                async for chunk in self._raw.content.iter_any():
                    self._child.write(Batch(Kind.BINARY, [chunk]))
                    if not self._room.is_set():
                        await self._wait_for_room()
        except (OSError, web.RequestPayloadError) as error:
            # The client has gone, and the task that answers it hears of that by itself.
            log.debug("the body broke off: %s", error, extra=extra(self._pairs))
        finally:
            self._child.close_input(End(NORMAL))

    def _ask_for_body(self) -> None:
        """Ask a client for the body that it holds back until then (RFC 9110, section 10.1.1)."""
        raw = self._raw
        holds_back = raw.version >= HttpVersion11 and has_token(raw.headers.getall("Expect", ()), "100-continue")
        if holds_back and raw.can_read_body and raw.transport is not None:
            raw.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _wait_for_room(self) -> None:
        """Wait until the script has taken what it was told, and notice a client that goes while nobody reads it."""
        transport = self._raw.transport
        if transport is None:
            await self._room.wait()
            return
        fd, gone = transport.get_extra_info("socket").fileno(), transport.abort
        self._hangups.watch(fd, gone)
        try:
            await self._room.wait()
        finally:
            self._hangups.unwatch(fd, gone)

    # The answer

    async def answer(self, request: Request, headers: tuple[tuple[str, str], ...]) -> web.StreamResponse | Request:
        """Stream the answer, or return the request to be served in its place. Raises Refused."""
        try:
            head = await self._read_head()
            if head.redirect is not None:
                return redirected(request, head.redirect)
        except BadAnswer as error:
            log.error("CGI script gave no answer: %s", error, extra=extra(self._pairs))
            raise Refused(500, "the script gave no answer") from None
        except _Cut:
            raise Refused(503, "the server shuts down") from None
        response = web.StreamResponse(status=head.status, reason=head.reason)
        for name, value in (*headers, *head.headers):
            response.headers.add(name, value)
        if "Content-Type" not in response.headers:
            response.headers["Content-Type"] = "application/octet-stream"
        try:
            await self._send(response, head)
        except _Cut as cut:
            log.error("CGI answer is cut off: %s", cut, extra=extra(self._pairs))
            self._raw.protocol.force_close()
        except ConnectionError:
            self._raw.protocol.force_close()
        return response

    async def _send(self, response: web.StreamResponse, head: Head) -> None:
        """Write the answer, and read it to its end even where nothing more of it may be written. Raises _Cut."""
        await response.prepare(self._raw)
        left = 0 if self._raw.method == "HEAD" or head.status in BODILESS else head.length
        while piece := await self._read():
            if left is not None:
                piece = piece[:left]
                left -= len(piece)
            if piece:
                with self._patience:
                    await response.write(piece)
        if left:
            raise _Cut(f"{left} bytes are missing of the {head.length} that its Content-Length said")
        with self._patience:
            await response.write_eof()

    async def _read_head(self) -> Head:
        data = b""
        while piece := await self._read():
            data += piece
            if (parts := split_head(data)) is not None:
                head, rest = parts
                if rest:
                    self._waiting.insert(0, rest)
                return parse_head(head)
        if not data:
            raise BadAnswer("it printed nothing")
        return parse_head(data.rstrip(b"\r\n"))

    async def _read(self) -> bytes:
        """Return what the script has printed since, waiting for it; nothing at the end. Raises _Cut when it had no end."""
        while not self._waiting:
            if self._is_over:
                if not self._is_whole:
                    raise _Cut("the script was ended")
                return b""
            self._changed.clear()
            await self._changed.wait()
        piece = b"".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        self._child.resume()
        return piece


class _Patience:
    """A context in which a client that takes nothing for so many seconds is cut off; one that is slow, but takes, is not."""

    def __init__(self, raw: web.BaseRequest, seconds: float, metrics: Metrics, pairs: Pairs) -> None:
        self._raw = raw
        self._seconds = seconds
        self._metrics = metrics
        self._pairs = pairs
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        if self._seconds > 0:
            self._watch()

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._check, self._taken())

    def _check(self, taken_before: int) -> None:
        transport = self._raw.transport
        if transport is None:
            return
        if self._taken() > taken_before:
            self._watch()
            return
        self._metrics.clients_timed_out += 1
        log.info("client took nothing for %g s and is cut off", self._seconds, extra=extra(self._pairs))
        # Its connection is lost by that, and the task of its request cancelled.
        transport.abort()

    def _taken(self) -> int:
        """Bytes of the answer that neither we nor the kernel hold any more; only their growth means something."""
        transport = self._raw.transport
        return self._raw.writer.output_size - outstanding_bytes(transport) if transport is not None else 0
