"""The methods that a resource accepts."""

from __future__ import annotations

import pytest

from wsbridge.errors import Refused
from wsbridge.rules.methods import READ, check_method


@pytest.mark.parametrize("method", READ)
def test_allowed(method: str) -> None:
    """A readable resource accepts GET, HEAD and OPTIONS."""
    check_method(method)


@pytest.mark.parametrize(
    ("method", "status"),
    [("POST", 405), ("PUT", 405), ("DELETE", 405), ("TRACE", 405), ("CONNECT", 405), ("PATCH", 405), ("PROPFIND", 501), ("get", 501)],
)
def test_refused(method: str, status: int) -> None:
    """A method that the resource does not accept gives 405 with Allow; an unknown method gives 501. Names are case-sensitive."""
    with pytest.raises(Refused) as refused:
        check_method(method)
    assert refused.value.status == status
    assert refused.value.headers.get("Allow") == ("GET, HEAD, OPTIONS" if status == 405 else None)
