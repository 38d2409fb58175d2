"""An HTML page of wsbridge, built once from the files in `assets`: the same bytes for every path and every client.

The HTML refers to its parts, styles, scripts and icon as files. This module inlines them, so that the page needs no other request
and works at any path and below any prefix of a proxy. The policy allows only these texts, by their hashes (CSP level 2, section
4.2.5).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from urllib.parse import quote

from aiohttp import web

from wsbridge.http.answers import protect
from wsbridge.mentions import written

POLICY = (
    "default-src 'none'; style-src {styles}; script-src {scripts}; connect-src *; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page loads nothing, and no page may frame it. It may connect to any WebSocket that the user enters."""

PART = re.compile(r' *<include src="([\w.]+)"/>\n')
STYLE = re.compile(r'<link rel="stylesheet" href="([\w.]+)">')
SCRIPT = re.compile(r'<script src="([\w.]+)"></script>')
SETTING = re.compile(r"<setting name=\"([a-z_]+)\"/>")
ICON = "icon.svg"
ROOT = '<html lang="en"'


class Page:
    """An HTML page built from a file of `assets`.

    `name` is its category in the log. `facts` are the subject of the page; they become data attributes of its root element.
    """

    def __init__(self, file: str, name: str, facts: Mapping[str, str]) -> None:
        # A page names settings as every other text does.
        html = SETTING.sub(lambda found: escape(written(f"<{found[1]}>")), asset(file))
        html = PART.sub(lambda found: asset(found[1]), html).replace(f'href="{ICON}"', f'href="{icon_url()}"')
        styles = [asset(style) for style in STYLE.findall(html)]
        scripts = [asset(script) for script in SCRIPT.findall(html)]
        html = STYLE.sub(lambda found: f"<style>{asset(found[1])}</style>", html)
        html = SCRIPT.sub(lambda found: f"<script>{asset(found[1])}</script>", html)
        attributes = "".join(f' data-{key}="{escape(value)}"' for key, value in facts.items())
        self._html = html.replace(ROOT, ROOT + attributes, 1).encode("utf-8", "replace")
        self._policy = POLICY.format(styles=sources(styles), scripts=sources(scripts))
        self.name = name

    def page(self) -> web.Response:
        response = web.Response(body=self._html, content_type="text/html", charset="utf-8", headers={"Cache-Control": "no-cache"})
        protect(response, self._policy)
        return response


def icon() -> web.Response:
    """Return the icon, for pages that name none."""
    response = web.Response(text=asset(ICON), content_type="image/svg+xml", headers={"Cache-Control": "max-age=86400"})
    protect(response)
    return response


@cache
def asset(name: str) -> str:
    """Return the text of a file of `assets`."""
    return files("wsbridge.http").joinpath("assets", name).read_text("utf-8")


def sources(texts: list[str]) -> str:
    """Return the sources of a policy that allows exactly these inline texts."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"


def icon_url() -> str:
    """Return the icon as a data URL, which needs no request."""
    return "data:image/svg+xml," + quote(asset(ICON).strip(), safe="/:= ")
