"""The proof in the opening handshake of a WebSocket (RFC 6455, section 4)."""

from __future__ import annotations

import base64
import hashlib

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, section 1.3."""


def accept_value(key: str) -> str:
    """Return the value of Sec-WebSocket-Accept, the proof that the server read the key (RFC 6455, section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.strip().encode() + GUID, usedforsecurity=False).digest()).decode()
