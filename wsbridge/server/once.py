"""`--once`: the server ends with its only session, and takes over the exit status of that session's program."""

from __future__ import annotations

from collections.abc import Callable

from wsbridge.endpoints.bridge import BridgeEndpoint
from wsbridge.sessions.bridge import Bridge
from wsbridge.sessions.registry import Live

CANNOT_LAUNCH = 126
"""The exit status if the program cannot be started, as in a shell."""


class Once:
    """Follows the first session of an endpoint. `close` closes the listeners, and `stop` shuts the server down."""

    def __init__(self, endpoint: BridgeEndpoint, *, close: Callable[[], None], stop: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._close = close
        self._stop = stop
        self._only: Bridge | None = None
        self.status = 0
        """The exit status of the server."""
        endpoint.sessions.on_accept = self._accepted
        endpoint.sessions.on_session = self._started
        endpoint.registry.on_end = self._ended

    def _accepted(self) -> None:
        self._close()
        self._endpoint.registry.limiter.refuse_all()

    def _started(self, session: Bridge | None) -> None:
        self._only = session
        if session is None:
            self.status = CANNOT_LAUNCH
            self._stop()

    def _ended(self, session: Live) -> None:
        if session is self._only and isinstance(session, Bridge):
            status = session.child.group.status or 0
            self.status = status if status >= 0 else 128 - status
            self._stop()
