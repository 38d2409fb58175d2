"""The headers that protect what wsbridge generates: pages, listings, error texts, redirects, the status, the scripts.

Files and the output of CGI scripts are the user's, and have none of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

SNIFF = "X-Content-Type-Options"
POLICY = "Content-Security-Policy"
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The policy of an answer that is text alone: it loads nothing, and no page may frame it."""
REPLACEABLE = (SNIFF.lower(), POLICY.lower())
"""A header of the user's replaces ours of these names: two policies would both hold."""


def protect(response: web.StreamResponse, policy: str = NOTHING) -> None:
    """Forbid browsers to guess the type of an answer, to frame it, and to load for it more than its policy allows."""
    response.headers[SNIFF] = "nosniff"
    response.headers[POLICY] = policy


def dress(response: web.StreamResponse, headers: Sequence[tuple[str, str]]) -> None:
    """Add the user's headers to an answer (`--header`)."""
    for name in {name for name, _ in headers}:
        if name.lower() in REPLACEABLE:
            response.headers.popall(name, None)
    for name, value in headers:
        response.headers.add(name, value)
