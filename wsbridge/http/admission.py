"""Admission of WebSocket requests: the checks before the upgrade, in websocketd's order.

    429 no slot   404 no such script   405 not GET   400 HTTP/1.0, a body or the version   403 origin   400 key
    500 not executable   431 too long

A refused request starts no process. With `--busy=close`, the server upgrades a connection without a slot and closes it with 1013.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass

from wsbridge.errors import Busy, Refused
from wsbridge.process.spawn import is_executable, why_not_executable
from wsbridge.rules.environ import Script
from wsbridge.rules.methods import check_method
from wsbridge.rules.origins import Rules
from wsbridge.rules.paths import Lookup, find_script
from wsbridge.rules.request import Request, has_body, has_token
from wsbridge.sessions.registry import Registry
from wsbridge.wire.acceptkey import accept_value


@dataclass(frozen=True, slots=True)
class Admission:
    """An admitted request: the program to run for it, and the values that the handshake needs."""

    argv: tuple[str, ...]
    script: Script
    accept: str
    """The value of Sec-WebSocket-Accept."""
    subprotocol: str | None


@dataclass(frozen=True, slots=True)
class Located:
    """The program and script that a request selects."""

    argv: tuple[str, ...]
    """Empty if there is no such script."""
    script: Script
    unusable: str = ""
    """Why the script cannot be run; empty if it can."""


NOT_FOUND = Located((), Script("", ""))


class Gate:
    """Admits requests; each admitted request holds a slot, which its session releases."""

    def __init__(
        self,
        *,
        registry: Registry,
        origins: Rules,
        subprotocols: tuple[str, ...],
        argv: tuple[str, ...],
        scripts: tuple[str, Lookup] | None,
        busy_close: bool,
    ) -> None:
        self._registry = registry
        self._origins = origins
        self._subprotocols = subprotocols
        self._argv = argv
        self._scripts = scripts
        self._busy_close = busy_close
        self.asks_disk = scripts is not None

    def admit(self, request: Request, located: Located | None = None) -> Admission:
        """Return the admission of a request, with its slot reserved. Raises Refused and Busy.

        `located` is the result of `locate`; without it, this method reads the disk itself.
        """
        if not self._registry.limiter.acquire():
            if self._busy_close:
                raise Busy(*self._handshake(request), self._registry.limiter.full)
            raise Refused(429, self._registry.limiter.full, body="429 Too Many Requests\n")
        with self._registry.limiter.released_on_error():
            located = located or self.locate(request)
            if self._scripts is not None and not located.argv:
                raise Refused(404, "no such script", body="404 Not Found\n")
            accept, subprotocol = self._handshake(request)
            if located.unusable:
                raise Refused(500, f"the server cannot run {located.script.name}: {located.unusable}")
            return Admission(located.argv, located.script, accept, subprotocol)

    def locate(self, request: Request) -> Located:
        """Return the program and script that a request selects; with `--dir`, this reads the disk."""
        if self._scripts is None:
            return Located(self._argv, Script(request.mount or "/", request.path))
        root, lookup = self._scripts
        target = find_script(request.path, lookup)
        if target is None:
            return NOT_FOUND
        # The server runs exactly the path that it checks here, with its links resolved.
        real = os.path.realpath(os.path.join(root, target.file))
        if not real.startswith(root.rstrip("/") + "/"):
            return NOT_FOUND
        script = Script(request.mount + target.script.name, target.script.info)
        return Located((real,), script, "" if is_executable(real) else why_not_executable(real).partition(";")[0])

    def _handshake(self, request: Request) -> tuple[str, str | None]:
        check_method(request.method, ("GET",))
        version = {"Sec-WebSocket-Version": "13"}
        if request.protocol == "HTTP/1.0":
            # RFC 6455, section 4.2.1. The proxy that sends HTTP/1.0 is nginx without `proxy_http_version 1.1`.
            raise Refused(
                400,
                "a WebSocket requires HTTP/1.1, but this request uses HTTP/1.0; if a proxy sent it, configure the proxy for HTTP/1.1",
            )
        if has_body(request):
            # A proxy may read the bytes after the head as the body, while the server reads them as frames.
            raise Refused(400, "a WebSocket request must not have a body")
        if not has_token([request.header("sec-websocket-version") or ""], "13"):
            raise Refused(400, "Sec-WebSocket-Version must be 13", headers=version)
        if refusal := self._origins.refusal(request.header("origin"), request.peer):
            raise Refused(403, refusal, headers=version)
        key = request.header("sec-websocket-key") or ""
        if not _is_key(key):
            raise Refused(400, "Sec-WebSocket-Key must be 16 bytes in base64", headers=version)
        return accept_value(key), self._choose(request.header("sec-websocket-protocol"))

    def _choose(self, offered: str | None) -> str | None:
        """Return the first subprotocol in the client's list that the server supports; no match is no refusal (RFC 6455, 4.2.2)."""
        names = [name.strip() for name in (offered or "").split(",")]
        return next((name for name in names if name in self._subprotocols), None)


def is_upgrade(request: Request) -> bool:
    """Whether a request is for a WebSocket; every other request is plain HTTP."""
    return has_token([request.header("upgrade") or ""], "websocket") and has_token([request.header("connection") or ""], "upgrade")


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key.strip(), validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
