"""A page of ours: held in memory, the same bytes for every path.

Nothing of the request goes into the page, so nothing of it has to be escaped.
"""

from __future__ import annotations

from importlib.resources import files

from aiohttp import web

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'self' 'unsafe-inline'; connect-src *; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
"""The page loads nothing from elsewhere, and may connect to any WebSocket that is typed into it."""


class Page:
    """A file of `assets`; `name` is what the log calls it."""

    def __init__(self, file: str, name: str) -> None:
        self._html = files("wsbridge.web").joinpath("assets", file).read_bytes()
        self.name = name

    def page(self) -> web.Response:
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
        return web.Response(body=self._html, content_type="text/html", charset="utf-8", headers=headers)
