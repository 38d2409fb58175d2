"""The write timeout of HTTP responses (`--send-timeout`): it disconnects a client that accepts no data, but not a slow client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from wsbridge.logs import LogFields, extra, logger
from wsbridge.metrics import Metrics
from wsbridge.net.transports import taken_bytes

log = logger("http")


class Patience:
    """The write timeout of a server's HTTP responses: `seconds`, or 0 for none."""

    def __init__(self, seconds: float, metrics: Metrics) -> None:
        self._seconds = seconds
        self._metrics = metrics

    @contextmanager
    def watching(self, raw: web.BaseRequest, fields: LogFields) -> Iterator[None]:
        """Apply the write timeout while the block writes a response to a request.

        The block must write all of its data through aiohttp's writer. A timeout aborts the connection; aiohttp then cancels the
        task of the request.
        """
        watch = _Watch(raw, self._seconds, self._metrics, fields)
        if self._seconds > 0:
            watch.begin()
        try:
            yield
        finally:
            watch.end()


class _Watch:
    """Checks after each timeout period whether the client has accepted data since the last check."""

    def __init__(self, raw: web.BaseRequest, seconds: float, metrics: Metrics, fields: LogFields) -> None:
        self._raw = raw
        self._seconds = seconds
        self._metrics = metrics
        self._fields = fields
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._check, self._taken())

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _check(self, taken_before: int) -> None:
        transport = self._raw.transport
        if transport is None:
            return
        if self._taken() > taken_before:
            self.begin()
            return
        self._metrics.clients_timed_out += 1
        log.info("closing: the client accepted no data for %g s", self._seconds, extra=extra(self._fields))
        transport.abort()

    def _taken(self) -> int:
        transport = self._raw.transport
        return taken_bytes(transport, self._raw.writer.output_size) if transport is not None else 0
