"""The parts of an endpoint that the HTTP code calls. Each kind of endpoint builds them in its file of endpoints/."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from aiohttp import web

from wsbridge.http.admission import Admission, Gate
from wsbridge.http.handshake import Handshake
from wsbridge.http.newconnection import Upgradable
from wsbridge.logs import LogFields
from wsbridge.rules.request import Headers, Request

Status = Callable[[], Mapping[str, object]]
"""Returns the state of a channel, as JSON can hold it."""
EVENTS_METHODS = ("GET", "OPTIONS")
"""The methods of an event stream: it has no length and no end that a response to HEAD could report."""


class SessionFactory(Protocol):
    """Starts the sessions of WebSocket requests that `gate` has admitted."""

    gate: Gate
    handshake: Handshake

    @property
    def has_room(self) -> bool:
        """Whether a session may begin now; if not, wait for `room`."""

    async def room(self) -> None:
        """Wait until a session may begin; callers proceed in the order of their calls."""

    def start(self, connection: Upgradable, request: Request, admission: Admission, fields: LogFields, remote_host: str) -> None:
        """Send the 101 and start the session, which owns the slot from then on. Raises Refused; then the slot is free again."""


class EventStreams(Protocol):
    """Admits requests for an event stream and starts their sessions."""

    def is_events(self, request: Request) -> bool:
        """Whether a plain request is for the event stream."""

    def stream(self, raw: web.BaseRequest, request: Request, fields: LogFields, headers: Headers) -> web.StreamResponse:
        """Answer with an event stream, which does not end by itself. Raises Refused."""

    def retry_response(self, request: Request, headers: Headers) -> web.Response | None:
        """Return a response after which an EventSource without a slot retries; None for any other client."""


class Resource(Protocol):
    """Answers GET, HEAD and OPTIONS at paths of its own."""

    def find(self, request: Request, headers: Headers) -> web.Response | None:
        """Return the response, or None if the path is not one of its own. Raises Refused.

        `headers` are the headers that the caller adds.
        """
