"""Which methods a resource takes."""

from __future__ import annotations

import pytest

from wsbridge.errors import Refused
from wsbridge.rules.methods import READ, check_method


@pytest.mark.parametrize("method", READ)
def test_allowed(method: str) -> None:
    """What can be read is read with GET, HEAD and OPTIONS."""
    check_method(method)


@pytest.mark.parametrize(
    ("method", "status"),
    [("POST", 405), ("PUT", 405), ("DELETE", 405), ("TRACE", 405), ("CONNECT", 405), ("PATCH", 405), ("PROPFIND", 501), ("get", 501)],
)
def test_refused(method: str, status: int) -> None:
    """A method that the resource does not take gets 405 with Allow, one that is not known 501; names are in capitals."""
    with pytest.raises(Refused) as refused:
        check_method(method)
    assert refused.value.status == status
    assert refused.value.headers.get("Allow") == ("GET, HEAD, OPTIONS" if status == 405 else None)
