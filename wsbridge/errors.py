"""The exceptions that wsbridge raises; the type names the source of the fault.

    WsbridgeError
    ├── UsageError            the command line cannot be parsed                    exit 2
    ├── ConfigurationError    the command line asks for something impossible       exit 1
    ├── ListenError           an address, a socket or a certificate fails          exit 3
    ├── BusError              the broker is unreachable, or refuses                exit 4
    ├── RemoteError           the server of `--url` is unreachable, or refuses     exit 4
    ├── Refused               the server answers a request with an error           HTTP status
    │   └── ForeignHost       the request names a host that is not the server's    HTTP 403
    ├── ClientError           the client violates the protocol                     close 1002, 1007, 1009
    └── ProgramError          the program does not start, or violates its framing  close 1009, 1011
        └── MessageTooLong    a message of the program exceeds the limit           close 1009

An error carries values and knows the answer to send: an exit status, an HTTP status or a close code. `str()` returns the
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
    """Return the system's text for the failure of a system call.

    asyncio's own errors may lack that text, and the numbers of getaddrinfo are not errno values.
    """
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror or str(error)


class WsbridgeError(Exception):
    """The base class of all exceptions that wsbridge itself raises."""


class UsageError(WsbridgeError):
    """The command line, or a variable that stands for a flag, cannot be parsed."""

    exit_status: ClassVar[int] = 2


class ConfigurationError(WsbridgeError):
    """The command line can be parsed, but wsbridge cannot do what its flags request together."""

    exit_status: ClassVar[int] = 1


class ListenError(WsbridgeError):
    """The server cannot listen at an address, or cannot use its certificate."""

    exit_status: ClassVar[int] = 3

    def __init__(self, sentence: str, *, errno: int = 0, host: str = "", port: int = 0) -> None:
        """`errno` is the system's error for binding a host and a port; 0 stands for any other reason."""
        super().__init__(sentence)
        self.errno = errno
        self.host = host
        self.port = port


class BusError(WsbridgeError):
    """The broker is unreachable or refuses a request. The text contains no password."""

    exit_status: ClassVar[int] = 4


class RemoteError(WsbridgeError):
    """A server is unreachable or refuses a request. The text contains no password."""

    exit_status: ClassVar[int] = 4


class Refused(WsbridgeError):
    """The server answers a request with `status` before it starts anything for that request.

    `detail` is for people. `body` replaces the usual body of the response.
    """

    def __init__(self, status: int, detail: str, *, headers: dict[str, str] | None = None, body: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.body = body
        self.headers = headers or {}


class ForeignHost(Refused):
    """The Host header of a request, or the host that a trusted proxy reports, is not a host of this server."""

    def __init__(self, host: str) -> None:
        shown = host[:100]
        super().__init__(
            403,
            f"this server does not accept the host {shown!r}; if that is a name of this server,"
            " start wsbridge with --host and that name; behind a reverse proxy, add --trust-proxy",
        )


class ClientError(WsbridgeError):
    """The client violated RFC 6455; `code` is the close code to answer with (section 7.4.1)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class ProgramError(WsbridgeError):
    """The program cannot be started, or it violates its framing.

    `before` holds the items decoded before the fault. The session still delivers them.
    """

    code: ClassVar[int] = INTERNAL_ERROR

    def __init__(self, reason: str, *, before: Sequence[Batch | End] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.before = before


class MessageTooLong(ProgramError):
    """A message of the program is longer than `limit` bytes.

    wsbridge does not cut the message: half a message looks like a message.
    """

    code: ClassVar[int] = TOO_BIG

    def __init__(self, limit: int, *, before: Sequence[Batch | End] = ()) -> None:
        super().__init__(f"message longer than {limit} bytes", before=before)
        self.limit = limit
