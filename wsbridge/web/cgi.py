"""CGI scripts (RFC 3875): `--cgidir`.

The body of a request is streamed to the script and its answer streamed to the client, each held up by the other side.
A script is found by the same walk as those of `--dir`: the first component that is a file, PATH_INFO the rest. Its group
goes down the ladder when the answer is complete or the client has gone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from aiohttp import web

from wsbridge.closecodes import GOING_AWAY, NORMAL
from wsbridge.errors import ProgramError, Refused
from wsbridge.flow import Batch, End, Kind
from wsbridge.framing import chunks
from wsbridge.logs import Pairs, extra, logger
from wsbridge.metrics import Metrics
from wsbridge.process.child import Child
from wsbridge.process.launch import Launcher
from wsbridge.process.spawn import is_executable
from wsbridge.rules.cgi import BadAnswer, Head, parse_head, split_head
from wsbridge.rules.environ import Script, cgi_environment
from wsbridge.rules.paths import find_script, looker
from wsbridge.rules.request import Request, split_target
from wsbridge.sessions.registry import Registry

BODY_HIGH_WATER = 256 * 1024
"""Bytes of an answer that wait for the client before its script is held up."""

log = logger("http")


@dataclass(frozen=True, slots=True)
class Found:
    """A script that a request leads to."""

    file: str
    script: Script


class CgiScripts:
    """Runs the scripts of one directory."""

    def __init__(
        self,
        root: str,
        *,
        software: str,
        passed: dict[str, str],
        registry: Registry,
        launcher: Launcher,
        metrics: Metrics,
    ) -> None:
        self._root = os.path.realpath(root)
        self._look = looker(self._root)
        self._software = software
        self._passed = passed
        self._registry = registry
        self._launcher = launcher
        self._metrics = metrics

    def find(self, path: str) -> Found | None:
        """Return the script that a path leads to, if any."""
        target = find_script(path, self._look)
        return Found(os.path.realpath(os.path.join(self._root, target.file)), target.script) if target else None

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
        try:
            return await run.answer(raw, headers, request)
        finally:
            # The client may be gone and this task cancelled: the end of the script is the registry's from here.
            self._registry.run(self._end(run), f"end of CGI script {found.file}")

    def _start(self, raw: web.BaseRequest, request: Request, found: Found) -> _Run:
        if not is_executable(found.file):
            raise Refused(500, "the script is not executable")
        environment = cgi_environment(
            request,
            found.script,
            filename=found.file,
            root=self._root,
            remote_host=request.peer.address,
            software=self._software,
            passed=self._passed,
        )
        if raw.can_read_body and "CONTENT_LENGTH" not in environment:
            raise Refused(411, "a CGI script needs the length of the body")
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
        return _Run(child, pairs)

    async def _end(self, run: _Run) -> None:
        try:
            await run.child.end()
        finally:
            self._registry.give_slot()
            self._registry.remove(run)


class _Run:
    """One script while it runs: both streams, and the sink of its answer."""

    def __init__(self, child: Child, pairs: Pairs) -> None:
        self.child = child
        self._pairs = pairs
        self._waiting: list[bytes | bytearray] = []
        self._size = 0
        self._ended = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        child.source = self

    # The sink of what it prints

    def write(self, batch: Batch) -> None:
        self._waiting += batch.messages
        self._size += sum(map(len, batch.messages))
        if self._size > BODY_HIGH_WATER:
            self.child.pause()
        self._changed.set()

    def end(self, reason: End) -> None:
        self._ended = True
        self._changed.set()

    # The source of what it is told

    def pause(self) -> None:
        self._room.clear()

    def resume(self) -> None:
        self._room.set()

    # Live

    def shut_down(self) -> None:
        """Let an answer that is under way be finished by the server's own patience."""
        self.child.close_input(End(GOING_AWAY))

    def hurry(self) -> None:
        self.child.kill()

    async def answer(self, raw: web.BaseRequest, headers: tuple[tuple[str, str], ...], request: Request) -> web.StreamResponse | Request:
        self.child.start(self)
        async with asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(self._feed(raw), name="CGI body")
            try:
                return await self._answer(raw, headers, request)
            finally:
                feeding.cancel()

    async def _feed(self, raw: web.BaseRequest) -> None:
        try:
            async for chunk in raw.content.iter_any():
                self.child.write(Batch(Kind.BINARY, [chunk]))
                await self._room.wait()
        finally:
            self.child.close_input(End(NORMAL))

    async def _answer(self, raw: web.BaseRequest, headers: tuple[tuple[str, str], ...], request: Request) -> web.StreamResponse | Request:
        try:
            head, rest = await self._read_head()
        except BadAnswer as error:
            log.error("CGI script gave no answer: %s", error, extra=extra(self._pairs))
            raise Refused(500, "the script gave no answer") from None
        if head.redirect is not None:
            path, query, uri = split_target(head.redirect)
            return replace(request, method="GET", path=path, query=query, uri=uri)
        response = web.StreamResponse(status=head.status, reason=head.reason)
        for name, value in (*headers, *head.headers):
            response.headers.add(name, value)
        if "Content-Type" not in response.headers:
            response.headers["Content-Type"] = "application/octet-stream"
        await response.prepare(raw)
        if raw.method != "HEAD" and head.status not in (204, 304):
            if rest:
                await response.write(rest)
            async for piece in self._output():
                await response.write(piece)
        await response.write_eof()
        return response

    async def _read_head(self) -> tuple[Head, bytes]:
        data = b""
        async for piece in self._output():
            data += piece
            if (parts := split_head(data)) is not None:
                return parse_head(parts[0]), parts[1]
        if not data:
            raise BadAnswer("it printed nothing")
        return parse_head(data.rstrip(b"\r\n")), b""

    async def _output(self) -> AsyncIterator[bytes]:
        while True:
            if self._waiting:
                piece = b"".join(self._waiting)
                self._waiting.clear()
                self._size = 0
                self.child.resume()
                yield piece
            elif self._ended:
                return
            else:
                self._changed.clear()
                await self._changed.wait()
