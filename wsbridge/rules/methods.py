"""Which methods a resource supports (RFC 9110, section 9): 405 for any other method, 501 for a method that no resource supports."""

from __future__ import annotations

from wsbridge.errors import Refused

KNOWN = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
"""The methods of RFC 9110, and PATCH (RFC 5789)."""
READ = ("GET", "HEAD", "OPTIONS")
"""The methods of pages, files and other resources that cannot be changed."""


def check_method(method: str, allowed: tuple[str, ...] = READ) -> None:
    """Check a method. Raises Refused: 405 with Allow if this resource does not support it, 501 if it is unknown (section 15.6.2)."""
    if method in allowed:
        return
    if method not in KNOWN:
        raise Refused(501, f"unknown method {method[:32]!r}")
    raise Refused(405, f"the method {method} is not allowed here", headers={"Allow": ", ".join(allowed)})
