"""URLs as texts for people: without user, password and query."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

USER = re.compile(r"(:/+).*@", re.DOTALL)
"""It also matches a single slash: the cleaning of a path may have removed the other one."""


def shown(url: str, ports: Mapping[str, int] | None = None) -> str:
    """Return scheme, host, port and path of a URL. `ports` holds the port of each scheme, to show where the URL has none."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    if ports is not None and parts.port is None:
        host = f"{host.removesuffix(':')}:{ports[parts.scheme]}"
    return f"{parts.scheme}://{host}{parts.path or '/'}"


def hidden(value: str) -> str:
    """Return one value of a user, in which user and password of a URL are hidden; a password may contain any character, also `@`."""
    return USER.sub(r"\1…@", value)


def without_user(text: str) -> str:
    """Remove the user and the password from the URLs in a text."""
    return re.sub(r"(?<=://)\S*@", "…@", text)
