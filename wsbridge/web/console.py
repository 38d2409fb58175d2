"""The developer console: one page, held in memory, the same bytes for every path.

Nothing of the request goes into the page, so nothing of it has to be escaped.
"""

from __future__ import annotations

from importlib.resources import files

from aiohttp import web

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src *; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
"""The page loads nothing, and may connect to any WebSocket that is typed into it."""


class Console:
    """The page of `--devconsole`."""

    def __init__(self) -> None:
        self._html = files("wsbridge.web").joinpath("assets/console.html").read_bytes()

    def page(self) -> web.Response:
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
        return web.Response(body=self._html, content_type="text/html", charset="utf-8", headers=headers)
