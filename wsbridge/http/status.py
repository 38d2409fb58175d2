"""`/status`: the state of a channel as JSON, for the pages that may open the channel."""

from __future__ import annotations

import json

from aiohttp import web

from wsbridge.errors import Refused
from wsbridge.http.answers import protect
from wsbridge.http.endpoint import Status
from wsbridge.rules.origins import Rules, cors_headers, page_origin
from wsbridge.rules.request import Headers, Request

STATUS_PATH = "/status"


class StatusPage:
    """Answers with the result of `status` at the time of the request."""

    def __init__(self, status: Status, origins: Rules) -> None:
        self._status = status
        self._origins = origins

    def find(self, request: Request, headers: Headers) -> web.Response | None:
        """Return the status, or None for any other path. Raises Refused for a page that may not read the channel.

        `headers` are the headers that the caller adds.
        """
        if request.path != STATUS_PATH:
            return None
        check_reader(request, self._origins)
        own = {"Cache-Control": "no-store", **cors_headers(request.header("origin"), headers)}
        body = json.dumps(self._status()).encode()
        response = web.Response(body=body, content_type="application/json", charset="utf-8", headers=own)
        protect(response)
        return response


def check_reader(request: Request, origins: Rules) -> None:
    """Raise Refused for a page that may not open the channel: it may not read the channel in another way either."""
    if refusal := origins.refusal(page_origin(request), request.peer):
        raise Refused(403, refusal)
