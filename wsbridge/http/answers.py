"""Security headers of the responses that wsbridge generates: pages, listings, error texts, redirects, the status, the scripts.

Files and the output of CGI scripts belong to the user, so they get none of these headers.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

SNIFF = "X-Content-Type-Options"
POLICY = "Content-Security-Policy"
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The policy of a text-only response: it loads nothing, and no page may frame it."""
REPLACEABLE = (SNIFF.lower(), POLICY.lower())
"""Headers that a user's header of the same name replaces: a browser would enforce both policies."""


def protect(response: web.StreamResponse, policy: str = NOTHING) -> None:
    """Forbid browsers to guess the type of a response, to frame it, and to load more for it than its policy allows."""
    response.headers[SNIFF] = "nosniff"
    response.headers[POLICY] = policy


def add_headers(response: web.StreamResponse, headers: Sequence[tuple[str, str]]) -> None:
    """Add the user's headers to a response (`--header`)."""
    for name in {name for name, _ in headers}:
        if name.lower() in REPLACEABLE:
            response.headers.popall(name, None)
    for name, value in headers:
        response.headers.add(name, value)
