"""The close codes of RFC 6455, section 7.4: their numbers, and which codes a close frame may carry."""

from __future__ import annotations

import pytest

from wsbridge import closecodes
from wsbridge.closecodes import REASON_LIMIT, may_be_sent

NUMBERS = {
    "NORMAL": 1000,
    "GOING_AWAY": 1001,
    "PROTOCOL_ERROR": 1002,
    "UNSUPPORTED_DATA": 1003,
    "NO_CODE": 1005,
    "ABNORMAL": 1006,
    "INVALID_DATA": 1007,
    "TOO_BIG": 1009,
    "INTERNAL_ERROR": 1011,
    "SERVICE_RESTART": 1012,
    "TRY_LATER": 1013,
}
"""RFC 6455, section 7.4.1, and IANA's registry for 1013."""


def test_numbers() -> None:
    """Each name stands for the code that the specification gives it."""
    codes = {name: value for name, value in vars(closecodes).items() if name.isupper() and name != "REASON_LIMIT"}
    assert codes == NUMBERS


@pytest.mark.parametrize("name", NUMBERS)
def test_names_that_may_be_sent(name: str) -> None:
    """The server may send every code that has a name, except the two that stand for a missing code."""
    assert may_be_sent(NUMBERS[name]) == (name not in {"NO_CODE", "ABNORMAL"})


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011])
def test_codes_of_the_specification(code: int) -> None:
    """A close frame may carry the codes that RFC 6455, section 7.4.1, defines for it."""
    assert may_be_sent(code) is True


@pytest.mark.parametrize("code", [1012, 1013, 1014])
def test_codes_of_the_registry(code: int) -> None:
    """A close frame may carry the codes that IANA has registered since: 1012, 1013 and 1014."""
    assert may_be_sent(code) is True


@pytest.mark.parametrize("code", [1005, 1006, 1015])
def test_codes_for_applications_alone(code: int) -> None:
    """An endpoint must not send 1005, 1006 or 1015 in a close frame (RFC 6455, section 7.4.1)."""
    assert may_be_sent(code) is False


@pytest.mark.parametrize("code", [1004, 1016, 1100, 1999, 2000, 2999])
def test_codes_without_a_meaning(code: int) -> None:
    """A close frame must not carry a code that is reserved for later versions of the protocol."""
    assert may_be_sent(code) is False


@pytest.mark.parametrize("code", [3000, 3999, 4000, 4999])
def test_codes_of_libraries_and_applications(code: int) -> None:
    """A close frame may carry 3000-3999, for libraries, and 4000-4999, for private use (section 7.4.2)."""
    assert may_be_sent(code) is True


@pytest.mark.parametrize("code", [-1000, -1, 0, 1, 999, 5000, 65535, 65536 + 1000])
def test_numbers_that_are_no_codes(code: int) -> None:
    """A number below 1000 or above 4999 is no close code, even if its lowest 16 bits are one."""
    assert may_be_sent(code) is False


def test_longest_reason() -> None:
    """A code of two bytes and the longest reason fill a control frame of 125 bytes (section 5.5)."""
    assert REASON_LIMIT + 2 == 125
