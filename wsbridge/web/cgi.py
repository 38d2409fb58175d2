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

from wsbridge.errors import ProgramError, Refused
from wsbridge.framing import chunks
from wsbridge.logs import Pairs, extra, logger
from wsbridge.metrics import Metrics
from wsbridge.process.launch import Launcher
from wsbridge.process.spawn import is_executable
from wsbridge.rules.cgi import BadAnswer, Head, parse_head, redirected, split_head
from wsbridge.rules.environ import Script, cgi_environment
from wsbridge.rules.paths import find_script, looker
from wsbridge.rules.request import Request, has_token
from wsbridge.sessions.registry import Registry
from wsbridge.sessions.slots import Slots
from wsbridge.web.hangup import Hangups
from wsbridge.web.patience import Patience
from wsbridge.web.script import Cut, RunningScript
from wsbridge.web.transports import socket_of

BODILESS = (204, 304)
"""The statuses of answers that have no body, whatever their script prints (RFC 9110, section 6.4.1)."""
MOST_REPORTED = 10
"""Lines of one head that are logged one by one when they are skipped."""

log = logger("http")


@dataclass(frozen=True, slots=True)
class Found:
    """A script that a request leads to."""

    file: str
    script: Script


class CgiScripts:
    """Runs the scripts of one directory. A client that goes while its script takes nothing of the body is seen to go."""

    def __init__(
        self,
        root: str,
        *,
        software: str,
        passed: dict[str, str],
        slots: Slots,
        registry: Registry,
        launcher: Launcher,
        metrics: Metrics,
        patience: Patience,
        hangups: Hangups,
        drain_seconds: float,
    ) -> None:
        self._root = os.path.realpath(root)
        self._look = looker(self._root)
        self._software = software
        self._passed = passed
        self._slots = slots
        self._registry = registry
        self._launcher = launcher
        self._metrics = metrics
        self._patience = patience
        self._hangups = hangups
        self._drain_seconds = drain_seconds

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
        if not self._slots.take():
            log.error("all processes are taken (--maxforks)", extra=extra({"url": request.url, "cgiscript": found.file}))
            raise Refused(429, "all processes are taken (--maxforks)", body="429 Too Many Requests\n")
        try:
            pairs = {"url": request.url, "cgiscript": found.file}
            script = await self._start(request, found, pairs)
        except BaseException:
            self._slots.give()
            raise
        exchange = _Exchange(raw, script, patience=self._patience, hangups=self._hangups, pairs=pairs)
        has_body = request.header("content-length") is not None
        feeding = asyncio.get_running_loop().create_task(exchange.feed(has_body=has_body), name="CGI body")
        try:
            answer = await exchange.answer(request, headers)
            if isinstance(answer, Request):
                # The script that is served in its place needs its slot.
                script.finish()
                await script.wait_gone()
            return answer
        finally:
            # This task may be cancelled, once and again: the end of the script is the registry's from here.
            script.finish()
            feeding.cancel()
            await asyncio.wait((feeding,))

    async def _start(self, request: Request, found: Found, pairs: Pairs) -> RunningScript:
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
        await self._launcher.room()
        try:
            spawned = await self._launcher.spawn((found.file,), environment, cwd=os.path.dirname(found.file))
        except ProgramError as error:
            self._metrics.launch_failures += 1
            log.error("%s", error, extra=extra(pairs))
            raise Refused(500, "the script could not be started") from None
        child = self._launcher.adopt(spawned, decoder=chunks.Decoder(), encoder=chunks.Encoder(), pairs=pairs)
        return RunningScript(child, slots=self._slots, registry=self._registry, pairs=pairs, drain_seconds=self._drain_seconds)


class _Exchange:
    """The request and the answer of one script: body and answer are streamed at the same time."""

    def __init__(self, raw: web.BaseRequest, script: RunningScript, *, patience: Patience, hangups: Hangups, pairs: Pairs) -> None:
        self._raw = raw
        self._script = script
        self._patience = patience
        self._hangups = hangups
        self._pairs = pairs

    # The body

    async def feed(self, *, has_body: bool) -> None:
        """Tell the script the body of the request, and close its stdin."""
        try:
            if has_body:
                self._ask_for_body()
                async for chunk in self._raw.content.iter_any():
                    self._script.tell(chunk)
                    if not self._script.has_room:
                        await self._wait_for_room()
        except (OSError, web.RequestPayloadError) as error:
            # The client has gone, and the task that answers it hears of that by itself.
            log.debug("the body broke off: %s", error, extra=extra(self._pairs))
        finally:
            self._script.close_input()

    def _ask_for_body(self) -> None:
        """Ask a client for the body that it holds back until then (RFC 9110, section 10.1.1)."""
        raw = self._raw
        holds_back = raw.version >= HttpVersion11 and has_token(raw.headers.getall("Expect", ()), "100-continue")
        if holds_back and raw.can_read_body and raw.transport is not None:
            raw.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _wait_for_room(self) -> None:
        """Wait until the script has taken what it was told, and notice a client that goes while nobody reads it."""
        transport = self._raw.transport
        if transport is None or (sock := socket_of(transport)) is None:
            await self._script.wait_for_room()
            return
        fd, gone = sock.fileno(), transport.abort
        self._hangups.watch(fd, gone)
        try:
            await self._script.wait_for_room()
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
        except Cut as cut:
            if not self._script.crashed:
                raise Refused(503, "the server shuts down") from None
            log.error("CGI script gave no answer: %s", cut, extra=extra(self._pairs))
            raise Refused(500, "the script gave no answer") from None
        response = web.StreamResponse(status=head.status, reason=head.reason)
        for name, value in (*headers, *head.headers):
            response.headers.add(name, value)
        if "Content-Type" not in response.headers:
            response.headers["Content-Type"] = "application/octet-stream"
        if self._raw.version < HttpVersion11 and head.length is None:
            # It knows no chunks: the answer ends with the connection.
            response.force_close()
        try:
            await self._send(response, head)
        except Cut as cut:
            log.error("CGI answer is cut off: %s", cut, extra=extra(self._pairs))
            self._raw.protocol.force_close()
        except ConnectionError:
            self._raw.protocol.force_close()
        return response

    async def _send(self, response: web.StreamResponse, head: Head) -> None:
        """Write the answer, and read it to its end even where nothing more of it may be written. Raises Cut."""
        await response.prepare(self._raw)
        left = 0 if self._raw.method == "HEAD" or head.status in BODILESS else head.length
        while piece := await self._script.read():
            if left is not None:
                piece = piece[:left]
                left -= len(piece)
            if piece:
                with self._patience.watching(self._raw, self._pairs):
                    await response.write(piece)
        if left:
            raise Cut(f"{left} bytes are missing of the {head.length} that its Content-Length said")
        with self._patience.watching(self._raw, self._pairs):
            await response.write_eof()

    async def _read_head(self) -> Head:
        data = b""
        while piece := await self._script.read():
            data += piece
            if (parts := split_head(data)) is not None:
                head, rest = parts
                self._script.unread(rest)
                return self._report(parse_head(head))
        if not data:
            raise BadAnswer("it printed nothing")
        return parse_head(data.rstrip(b"\r\n"), is_ended=False)

    def _report(self, head: Head) -> Head:
        """Log the lines of a head that were skipped."""
        for what in head.skipped[:MOST_REPORTED]:
            log.error("CGI script printed a line that was skipped: %s", what, extra=extra(self._pairs))
        if (more := len(head.skipped) - MOST_REPORTED) > 0:
            log.error("CGI script printed %d more lines that were skipped", more, extra=extra(self._pairs))
        return head
