"""The close codes of RFC 6455 (section 7.4) that wsbridge sends or receives."""

from __future__ import annotations

NORMAL = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
UNSUPPORTED_DATA = 1003
NO_CODE = 1005
"""Stands for a close frame without a code; never sent."""
ABNORMAL = 1006
"""Stands for a connection that ended without a close frame; never sent."""
INVALID_DATA = 1007
TOO_BIG = 1009
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
TRY_LATER = 1013

REASON_LIMIT = 123
"""Bytes. A control frame holds 125 bytes, and the code occupies two of them (RFC 6455, section 5.5)."""


def may_be_sent(code: int) -> bool:
    """Return whether a close frame may carry this code (RFC 6455, sections 7.4.1 and 7.4.2; 1012-1014: IANA)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
