"""Times and sizes of a bus that no setting changes. They are an argument, so that a test need not wait for them."""

from __future__ import annotations

from dataclasses import dataclass

from wsbridge.rules.backoff import MAX_PAUSE

SEGMENT_BYTES = 16 * 1024 * 1024
"""Bytes of a segment; a stream drops its oldest segment as a whole. RabbitMQ's default of 500 MB would be the whole stream."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """All times are in seconds."""

    max_pause: float = MAX_PAUSE
    """The longest pause before another attempt to connect."""
    close_timeout: float = 2.0
    """The time for the broker's answer to a close."""
    check_interval: float = 2.0
    """The time between two checks of the channel's objects on the broker. If a binding is removed, other publishers' messages are
    lost for up to this long."""
    return_timeout: float = 2.0
    """The time within which the stream delivers a confirmed body back, unless this node lags. Two checks determine whether it lags."""
    confirm_silence: float = 5.0
    """The time without an answer about published bodies after which the bus logs it."""
    history_timeout: float = 10.0
    """The longest silence of a stream that still has to deliver a body that it holds: even on a slow link, bytes arrive."""
    probe_timeout: float = 1.0
    """The time within which the first bytes of an existing body arrive. A stream that sends nothing in this time has no body there."""
    stall_interval: float = 10.0
    """The time between two checks of a stream that delivers nothing. After the second check, the reader uses another link if the
    stream holds more. One test run saw a consumer that received nothing more after RabbitMQ 3.10 had dropped the segment that it
    read. Its cause is not known."""
    segment_bytes: int = SEGMENT_BYTES


TUNING = Tuning()
