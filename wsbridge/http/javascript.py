"""The JavaScript client for pages, at `/wsbridge.js` and, as a module, at `/wsbridge.mjs`."""

from __future__ import annotations

from importlib.resources import files

from aiohttp import web

from wsbridge.http.answers import protect
from wsbridge.rules.origins import cors_headers
from wsbridge.rules.request import Headers, Request

SCRIPTS = ("wsbridge.js", "wsbridge.mjs")


class Scripts:
    """Answers with the scripts, which are read once. They contain no data of the channel, so every page may load them."""

    def __init__(self) -> None:
        assets = files("wsbridge.http").joinpath("assets")
        self._scripts = {f"/{name}": assets.joinpath(name).read_bytes() for name in SCRIPTS}

    def find(self, request: Request, headers: Headers) -> web.Response | None:
        """Return the script at a path, or None. `headers` are the headers that the caller adds."""
        body = self._scripts.get(request.path)
        if body is None:
            return None
        own = {"Cache-Control": "no-cache", **cors_headers("*", headers)}
        response = web.Response(body=body, content_type="text/javascript", charset="utf-8", headers=own)
        protect(response)
        return response
