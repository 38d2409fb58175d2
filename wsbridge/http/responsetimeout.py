"""The write timeout of HTTP responses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from wsbridge.logs import LogFields, logger
from wsbridge.metrics import Metrics
from wsbridge.net.transports import acknowledged_bytes
from wsbridge.net.writetimeout import WriteTimeout

log = logger("http")


class ResponseTimeout:
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

        def accepted() -> int | None:
            return None if raw.transport is None else acknowledged_bytes(raw.transport, raw.writer.output_size)

        def abort() -> None:
            if raw.transport is not None:
                raw.transport.abort()

        loop = asyncio.get_running_loop()
        timeout = WriteTimeout(accepted=accepted, abort=abort, log=log, metrics=self._metrics, fields=fields, loop=loop)
        timeout.start(self._seconds)
        try:
            yield
        finally:
            timeout.stop()
