"""`--redirport`: a second port, for plain HTTP, that redirects every request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from wsbridge.errors import Refused
from wsbridge.http.answers import add_headers, protect
from wsbridge.http.connection import HttpServer
from wsbridge.rules.methods import KNOWN, check_method
from wsbridge.rules.request import Headers, check_host, read_target
from wsbridge.settings import HttpTimings


class Redirect:
    """Redirects every request with 301 to the same path and query on the main port."""

    def __init__(self, *, scheme: str, port: int, headers: Callable[[], Headers]) -> None:
        """`headers` returns the user's headers, which may change."""
        self._scheme = scheme
        self._port = port
        self._headers = headers

    def error_page(self, status: int, detail: str) -> web.Response:
        return self._with_headers(web.Response(status=status, text=f"{status} {detail}\n"))

    async def __call__(self, raw: web.BaseRequest) -> web.StreamResponse:
        try:
            target = read_target(raw.raw_path)
            host = target.authority or raw.headers.get("Host") or ""
            check_host(host)
            if raw.method == "CONNECT" or raw.method not in KNOWN:
                check_method(raw.method)
        except Refused as refused:
            return self._refuse(refused)
        name = host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
        if not name:
            return self.error_page(400, "a redirect requires a Host header")
        return self._with_headers(web.Response(status=301, headers={"Location": f"{self._scheme}://{name}:{self._port}{target.uri}"}))

    def _refuse(self, refused: Refused) -> web.Response:
        response = self.error_page(refused.status, refused.detail)
        response.headers.update(refused.headers)
        return response

    def _with_headers(self, response: web.Response) -> web.Response:
        protect(response)
        add_headers(response, self._headers())
        return response


def redirect_server(
    scheme: str, port: int, *, headers: Callable[[], Headers], timings: HttpTimings, loop: asyncio.AbstractEventLoop
) -> HttpServer:
    """Return a server that redirects to a scheme and port."""
    redirect = Redirect(scheme=scheme, port=port, headers=headers)
    return HttpServer(redirect, error_page=redirect.error_page, timings=timings, loop=loop)
