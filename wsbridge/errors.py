"""What can go wrong, and whose fault it is.

    WsbridgeError
    ├── UsageError            the command line cannot be read                     exit 2
    ├── ConfigurationError    the command line asks for what cannot be            exit 1
    ├── ListenError           an address, a socket or a certificate fails         exit 3
    ├── BusError              the broker cannot be reached, or refuses            exit 4
    ├── RemoteError           a server of `--url` cannot be reached, or refuses      exit 4
    ├── Refused               a request is answered instead of served             HTTP status
    │   └── ForeignHost       its host is not the server's                        HTTP 403
    ├── ClientError           the client broke the protocol                       close 1002, 1007, 1009
    └── ProgramError          the program cannot be started, or broke its framing close 1009, 1011
        └── MessageTooLong    a message of it passed the limit                    close 1009

An error carries values and knows what to answer: an exit status, an HTTP status or a close code. `str()` makes the
sentence: what happened, to what, what to do.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from wsbridge.closecodes import INTERNAL_ERROR, TOO_BIG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsbridge.flow import Batch, End


def reason_of(error: OSError) -> str:
    """Return why a call of the system failed, in its words: asyncio's own may tell no reason, and getaddrinfo's numbers are others."""
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror or str(error)


class WsbridgeError(Exception):
    """Everything that wsbridge raises by itself."""


class UsageError(WsbridgeError):
    """The command line, or a variable that stands for a flag, cannot be read."""

    exit_status: ClassVar[int] = 2


class ConfigurationError(WsbridgeError):
    """Each flag can be read, but what they ask for together cannot be done."""

    exit_status: ClassVar[int] = 1


class ListenError(WsbridgeError):
    """The server cannot be reached at an address, or its certificate cannot be used."""

    exit_status: ClassVar[int] = 3

    def __init__(self, sentence: str, *, errno: int = 0, host: str = "", port: int = 0) -> None:
        """`errno` is the system's reason that a host and a port cannot be bound; 0 where it is another."""
        super().__init__(sentence)
        self.errno = errno
        self.host = host
        self.port = port


class BusError(WsbridgeError):
    """The broker cannot be reached, or will not have what is asked of it. No password is in it."""

    exit_status: ClassVar[int] = 4


class RemoteError(WsbridgeError):
    """A server cannot be reached, or will not have what is asked of it. No password is in it."""

    exit_status: ClassVar[int] = 4


class Refused(WsbridgeError):
    """A request that is answered with `status` before anything is started for it.

    `detail` is for people; `body` takes the place of the usual one.
    """

    def __init__(self, status: int, detail: str, *, headers: dict[str, str] | None = None, body: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.body = body
        self.headers = headers or {}


class ForeignHost(Refused):
    """A request whose Host header, or what a trusted proxy reports of it, names another server."""

    def __init__(self, host: str) -> None:
        shown = host[:100]
        super().__init__(
            403,
            f"this server does not answer to the host {shown!r}; if that is a name of it, start it with --host and this name,"
            " and behind a reverse proxy with --trust-proxy",
        )


class ClientError(WsbridgeError):
    """The client broke RFC 6455; `code` is the close code to answer with (section 7.4.1)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class ProgramError(WsbridgeError):
    """The program cannot be started or does not keep to its framing.

    `before` holds what was decoded before the fault: it is still delivered.
    """

    code: ClassVar[int] = INTERNAL_ERROR

    def __init__(self, reason: str, *, before: Sequence[Batch | End] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.before = before


class MessageTooLong(ProgramError):
    """A message of the program passed `limit` bytes; half a message looks like a message, so it is not cut."""

    code: ClassVar[int] = TOO_BIG

    def __init__(self, limit: int, *, before: Sequence[Batch | End] = ()) -> None:
        super().__init__(f"message longer than {limit} bytes", before=before)
        self.limit = limit
