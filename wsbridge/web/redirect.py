"""`--redirport`: a second, plain port whose every answer is where to go."""

from __future__ import annotations

from aiohttp import web

from wsbridge.errors import Refused
from wsbridge.rules.request import encode_path, split_target


class Redirect:
    """Answers every request with 301 to the same path and query of the real port."""

    def __init__(self, *, scheme: str, port: int) -> None:
        self._scheme = scheme
        self._port = port

    def error_page(self, status: int, detail: str) -> web.Response:
        return web.Response(status=status, text=f"{status} {detail}\n")

    async def __call__(self, raw: web.BaseRequest) -> web.StreamResponse:
        host = raw.headers.get("Host", "")
        name = host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
        try:
            _, query, uri = split_target(raw.raw_path)
        except Refused as refused:
            return self.error_page(refused.status, refused.detail)
        path = uri.partition("?")[0]
        location = f"{self._scheme}://{name}:{self._port}{encode_path(path)}{'?' + query if query else ''}"
        return web.Response(status=301, headers={"Location": location})
