"""Relative references, resolved as a client resolves them."""

from __future__ import annotations

import re


def resolve(sent: str, reference: str) -> str:
    """Return the path and query to which a relative reference leads from a request target (RFC 3986, section 5.2).

    The reference must not name a host. It must be a path from the root if the target contains `//`, and otherwise begin with a dot.
    """
    sent = re.sub(r"^\w+://[^/]*", "", sent)
    if "//" in sent.partition("?")[0]:
        assert re.match(r"/(?![/\\])", reference), reference
        return reference
    path, mark, query = reference.partition("?")
    first, *_ = path.split("/")
    assert first in (".", ".."), reference
    merged: list[str] = []
    for component in [*sent.partition("?")[0].split("/")[1:-1], *path.split("/")[:-1]]:
        if component == "..":
            del merged[-1:]
        elif component != ".":
            merged.append(component)
    return "/" + "/".join([*merged, path.rpartition("/")[2]]) + mark + query
