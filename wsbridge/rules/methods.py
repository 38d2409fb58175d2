"""Which methods a resource takes (RFC 9110, section 9): 405 for others, 501 for those that no resource takes."""

from __future__ import annotations

from wsbridge.errors import Refused

KNOWN = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
"""The methods of RFC 9110, and PATCH (RFC 5789)."""
READ = ("GET", "HEAD", "OPTIONS")
"""What pages, files and other resources take that cannot be changed."""


def check_method(method: str, allowed: tuple[str, ...] = READ) -> None:
    """Raises Refused: 405 with Allow for a method that this resource does not take, 501 for one that is not known (section 15.6.2)."""
    if method in allowed:
        return
    if method not in KNOWN:
        raise Refused(501, f"the method {method[:32]!r} is not known")
    raise Refused(405, f"the method {method} is not allowed here", headers={"Allow": ", ".join(allowed)})
