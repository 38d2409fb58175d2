"""CGI scripts (RFC 3875): `--cgidir`.

The server streams the body of a request to the script and the script's response to the client, each with backpressure.
requestbody.py decides when the server buffers a body.

The server finds a script by the same path walk as for `--dir`. The first component that is a file is the script, and the rest is
PATH_INFO. The ladder (process/termination.py) ends the script's process group when the response is complete, when the client has
disconnected, and when the server shuts down. aiohttp cancels the task of a request whose client has disconnected. The server closes
the connection of a truncated response, so that the client does not mistake it for a complete response.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aiohttp import HttpVersion11, web

from wsbridge.errors import BodyTimeout, InvalidResponse, ProgramError, Refused, TruncatedOutput
from wsbridge.framing import chunks
from wsbridge.http.buffering import BufferSpace
from wsbridge.http.requestbody import RequestBody
from wsbridge.http.responsetimeout import ResponseTimeout
from wsbridge.logs import LogFields, extra, logger
from wsbridge.metrics import Metrics
from wsbridge.process.launch import Launcher
from wsbridge.process.spawn import is_executable
from wsbridge.rules.cgi import Head, is_chunked, parse_head, redirected, split_head, with_length
from wsbridge.rules.environ import Script, cgi_environment
from wsbridge.rules.paths import find_script, make_lookup
from wsbridge.rules.request import Request
from wsbridge.sessions.cgi import RunningScript
from wsbridge.sessions.limiter import Limiter
from wsbridge.sessions.registry import Registry

BODILESS = (204, 304)
"""Statuses of responses that have no body, whatever the script prints (RFC 9110, section 6.4.1)."""
STUCK_SECONDS = 2.0
"""Seconds without a read by the script after which the server buffers the rest of the request body."""
MAX_REPORTED = 10
"""How many skipped lines of one head the server logs one by one."""

log = logger("http")


@dataclass(frozen=True, slots=True)
class CgiScript:
    """The script that a request path selects."""

    file: str
    script: Script
    is_executable: bool


class CgiScripts:
    """Runs the scripts of one directory.

    `body_seconds` is how long the server waits for more data of a request body; 0 means no limit.
    """

    def __init__(
        self,
        root: str,
        *,
        dotfiles: bool,
        software: str,
        passed: dict[str, str],
        limiter: Limiter,
        registry: Registry,
        launcher: Launcher,
        metrics: Metrics,
        timeout: ResponseTimeout,
        drain_seconds: float,
        body_seconds: float,
        max_body_bytes: int,
    ) -> None:
        self._root = os.path.realpath(root)
        self._lookup = make_lookup(self._root, dotfiles=dotfiles)
        self._software = software
        self._passed = passed
        self._limiter = limiter
        self._registry = registry
        self._launcher = launcher
        self._metrics = metrics
        self._timeout = timeout
        self._drain_seconds = drain_seconds
        self._body_seconds = body_seconds
        self._space = BufferSpace(max_body_bytes)

    def find(self, path: str) -> CgiScript | None:
        """Return the script that a path selects, or None. Reads the disk."""
        target = find_script(path, self._lookup)
        if target is None:
            return None
        # Links may have changed since the walk. The server runs exactly the path that it checks here, which contains no link any
        # more.
        real = os.path.realpath(os.path.join(self._root, target.file))
        return CgiScript(real, target.script, is_executable(real)) if Path(real).is_relative_to(self._root) else None

    async def run(
        self, raw: web.BaseRequest, request: Request, found: CgiScript, headers: tuple[tuple[str, str], ...]
    ) -> web.StreamResponse | Request:
        """Run a script and stream its response, or return the request of its local redirect. Raises Refused."""
        fields = {"url": request.url, "cgiscript": found.file}
        if not found.is_executable:
            raise Refused(500, "the script is not executable")
        if not self._limiter.is_free:
            raise self._full(fields)
        body = RequestBody(raw, seconds=self._body_seconds, space=self._space)
        try:
            request, has_body = await self._receive(request, body)
            if not self._limiter.acquire():
                raise self._full(fields)
            try:
                script = await self._start(request, found, fields)
            except BaseException:
                self._limiter.release()
                raise
            exchange = _Exchange(raw, script, timeout=self._timeout, fields=fields)
            return await self._exchange(exchange, script, body if has_body else None, request, headers)
        except BodyTimeout:
            self._metrics.clients_timed_out += 1
            log.info("refused (408): no part of the request body arrived for %g s", self._body_seconds, extra=extra(fields))
            raise Refused(408, f"no part of the request body arrived for {self._body_seconds:g} s") from None
        finally:
            await body.close()

    async def _receive(self, request: Request, body: RequestBody) -> tuple[Request, bool]:
        """Receive the part of the body that must precede the script's start; return the request to run and whether it has a body.

        The server buffers a chunked body completely; of any other body it awaits the first bytes. Raises Refused and BodyTimeout.
        """
        try:
            if is_chunked(request):
                return with_length(request, await body.collect()), True
            has_body = int(request.header("content-length") or 0) > 0
            if has_body:
                await body.start()
            return request, has_body
        except web.RequestPayloadError as error:
            raise Refused(400, f"the server cannot read the request body: {error}") from None
        except ConnectionError:
            raise Refused(400, "the client has disconnected") from None
        except OSError as error:
            log.error("cannot buffer the request body: %s", error, extra=extra({"url": request.url}))
            raise Refused(503, "the server cannot buffer the request body") from None

    async def _exchange(
        self,
        exchange: _Exchange,
        script: RunningScript,
        body: RequestBody | None,
        request: Request,
        headers: tuple[tuple[str, str], ...],
    ) -> web.StreamResponse | Request:
        feeding = asyncio.get_running_loop().create_task(exchange.feed(body), name="CGI body")
        try:
            answer = await exchange.answer(request, headers)
            if isinstance(answer, Request):
                # The local redirect may need the slot of this script.
                script.finish()
                await script.wait_ended()
            return answer
        finally:
            # This task may be cancelled several times. From here on, the registry owns the termination of the script.
            script.finish()
            feeding.cancel()
            await asyncio.wait((feeding,))

    def _full(self, fields: LogFields) -> Refused:
        reason = self._limiter.full
        log.error("%s", reason, extra=extra(fields))
        return Refused(429, reason, body="429 Too Many Requests\n")

    async def _start(self, request: Request, found: CgiScript, fields: LogFields) -> RunningScript:
        environment = cgi_environment(
            request,
            Script(request.mount + found.script.name, found.script.info),
            filename=found.file,
            root=self._root,
            remote_host=request.peer.address,
            software=self._software,
            passed=self._passed,
        )
        await self._launcher.room()
        child, starting = self._launcher.start(
            (found.file,),
            environment,
            decoder=chunks.Decoder(),
            encoder=chunks.Encoder(),
            fields=fields,
            cwd=os.path.dirname(found.file),
        )
        try:
            await starting
        except asyncio.CancelledError:
            child.abandon()
            raise
        except ProgramError as error:
            child.abandon()
            self._metrics.launch_failures += 1
            log.error("%s", error, extra=extra(fields))
            raise Refused(500, "the server could not start the script") from None
        return RunningScript(child, limiter=self._limiter, registry=self._registry, fields=fields, drain_seconds=self._drain_seconds)


class _Exchange:
    """The request and the response of one script; the server streams body and response at the same time."""

    def __init__(self, raw: web.BaseRequest, script: RunningScript, *, timeout: ResponseTimeout, fields: LogFields) -> None:
        self._raw = raw
        self._script = script
        self._timeout = timeout
        self._fields = fields
        self._late = asyncio.timeout(None)
        """The timeout that ends the response when the body stops arriving."""
        self._response: web.StreamResponse | None = None
        """The response, once it has begun."""

    # The request body

    async def feed(self, body: RequestBody | None) -> None:
        """Write the body of the request to the script, then close its stdin."""
        try:
            while body is not None and (data := await body.read()):
                self._script.write_input(data)
                if not self._script.has_room:
                    await self._wait_for_room(body)
        except (OSError, web.RequestPayloadError) as error:
            # The client has disconnected; aiohttp cancels the task that answers it.
            log.debug("the request body is incomplete: %s", error, extra=extra(self._fields))
        except BodyTimeout:
            self._end_late()
        finally:
            self._script.close_input()

    async def _wait_for_room(self, body: RequestBody) -> None:
        """Wait until the script has read the written bytes; if it reads nothing for STUCK_SECONDS, buffer the rest of the body."""
        if not body.is_buffered:
            try:
                async with asyncio.timeout(STUCK_SECONDS):
                    await self._script.wait_for_room()
                return
            except TimeoutError:
                body.read_ahead(self._end_late)
        await self._script.wait_for_room()

    def _end_late(self) -> None:
        """Make `answer` end with BodyTimeout, unless it has ended."""
        with suppress(RuntimeError):
            self._late.reschedule(0)

    # The response

    async def answer(self, request: Request, headers: tuple[tuple[str, str], ...]) -> web.StreamResponse | Request:
        """Stream the response, or return the request of a local redirect.

        Raises Refused, and BodyTimeout if the body stops arriving before the response begins.
        """
        try:
            async with self._late:
                return await self._answer(request, headers)
        except TimeoutError:
            if self._response is None:
                raise BodyTimeout from None
            log.info("CGI response truncated: the request body stopped arriving", extra=extra(self._fields))
            self._raw.protocol.force_close()
            return self._response

    async def _answer(self, request: Request, headers: tuple[tuple[str, str], ...]) -> web.StreamResponse | Request:
        try:
            head = await self._read_head()
            if head.redirect is not None:
                return redirected(request, head.redirect)
        except InvalidResponse as error:
            log.error("CGI script sent no valid response: %s", error, extra=extra(self._fields))
            raise Refused(500, "the script sent no valid response") from None
        except TruncatedOutput as cut:
            if not self._script.crashed:
                raise Refused(503, self._script.end_reason) from None
            log.error("CGI script sent no valid response: %s", cut, extra=extra(self._fields))
            raise Refused(500, "the script sent no valid response") from None
        response = web.StreamResponse(status=head.status, reason=head.reason)
        for name, value in (*headers, *head.headers):
            response.headers.add(name, value)
        if "Content-Type" not in response.headers:
            response.headers["Content-Type"] = "application/octet-stream"
        if self._raw.version < HttpVersion11 and head.length is None:
            # HTTP/1.0 has no chunked coding: the end of the connection ends the response.
            response.force_close()
        self._response = response
        try:
            await self._send(response, head)
        except TruncatedOutput as cut:
            log.error("CGI response truncated: %s", cut, extra=extra(self._fields))
            self._raw.protocol.force_close()
        except ConnectionError:
            self._raw.protocol.force_close()
        return response

    async def _send(self, response: web.StreamResponse, head: Head) -> None:
        """Send the response, and read the script's output to its end even where no more of it may be sent. Raises TruncatedOutput."""
        await response.prepare(self._raw)
        remaining = 0 if self._raw.method == "HEAD" or head.status in BODILESS else head.length
        while piece := await self._script.read():
            if remaining is not None:
                piece = piece[:remaining]
                remaining -= len(piece)
            if piece:
                with self._timeout.watching(self._raw, self._fields):
                    await response.write(piece)
        if remaining:
            raise TruncatedOutput(f"{remaining} of the {head.length} bytes in its Content-Length are missing")
        with self._timeout.watching(self._raw, self._fields):
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
            raise InvalidResponse("it printed no output")
        return parse_head(data.rstrip(b"\r\n"), is_ended=False)

    def _report(self, head: Head) -> Head:
        """Log the skipped lines of a head."""
        for what in head.skipped[:MAX_REPORTED]:
            log.error("skipped a header line from the CGI script: %s", what, extra=extra(self._fields))
        if (more := len(head.skipped) - MAX_REPORTED) > 0:
            log.error("skipped %d more header lines from the CGI script", more, extra=extra(self._fields))
        return head
