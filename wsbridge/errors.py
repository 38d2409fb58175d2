"""The exceptions that wsbridge raises; the type names the source of the fault.

    WsbridgeError
    ├── UsageError            the command line cannot be parsed                    exit 2
    ├── ConfigurationError    wsbridge cannot apply the command line               exit 1
    ├── InvalidConfiguration  a configuration file has faults                       exit 1
    ├── WrongValue            a value of a configuration file has the wrong type    one of its faults
    ├── UnusableFile          a configuration file or a secret cannot be read       exit 1
    ├── InvalidFile           a configuration file is not TOML in UTF-8             exit 1
    ├── TooDeep               a TOML document has too many levels                   InvalidFile
    ├── Malformed             a TOML document is malformed                          InvalidFile
    ├── ListenError           an address, a socket or a certificate fails          exit 3
    ├── ShuttingDown          the server shuts down, so its settings stay          the change is dropped
    ├── BusError              the broker is unreachable, or refuses                exit 4
    ├── RemoteError           the server of `--url` is unreachable, or refuses     exit 4
    ├── LinkLost              the connection to the broker is lost                 the bus opens another
    ├── BodyError             a body from the broker cannot be decoded             the body is dropped
    │   ├── MalformedBody     it does not match its content type
    │   └── EncodedBody       its encoding is unknown, or its data is damaged
    │       └── BodyTooLong   it decompresses to more than the limit
    ├── RefusedBody           the broker refuses a body                            the body is dropped
    ├── Refused               the server answers a request with an error           HTTP status
    │   └── ForeignHost       the request names a host that is not the server's    HTTP 403
    ├── Busy                  no slot is free for a WebSocket                      close 1013
    ├── BodyTimeout           the body of a request does not arrive                HTTP 408
    ├── InvalidResponse       the output of a CGI script is not a CGI response     HTTP 500
    ├── TruncatedOutput       the output of a CGI script ended too early           HTTP 500, or truncated
    ├── ClientError           the client violates the protocol                     close 1002, 1007, 1009
    └── ProgramError          the program does not start, or violates its framing  close 1009, 1011
        └── MessageTooLong    a message of the program exceeds the limit           close 1009

An error carries values and the answer to send: an exit status, an HTTP status or a close code. `str()` returns the
sentence: the event, its object, the remedy.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from wsbridge.closecodes import INTERNAL_ERROR, TOO_BIG
from wsbridge.mentions import written

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
    """The command line can be parsed, but wsbridge cannot combine its flags."""

    exit_status: ClassVar[int] = 1


class UnusableFile(WsbridgeError):
    """A file cannot be read. The text follows the name of the file: `a.toml: no such file; create the file, or correct the name`."""


class InvalidFile(WsbridgeError):
    """The content of a file is not TOML in UTF-8. `line` is 0 if the error concerns the whole file."""

    def __init__(self, line: int, sentence: str) -> None:
        super().__init__(sentence)
        self.line = line
        self.sentence = sentence


class TooDeep(WsbridgeError):
    """A key, an array or a table at `line` has more than the allowed number of levels."""

    def __init__(self, line: int) -> None:
        super().__init__(f"more than the allowed number of levels in line {line}")
        self.line = line


class Malformed(WsbridgeError):
    """The text is not TOML. `opening` is a bracket, or three quotes, that `line` opens and no line closes; else empty."""

    def __init__(self, line: int, opening: str = "") -> None:
        super().__init__(f"{opening} is not closed in line {line}" if opening else f"line {line} is not TOML")
        self.line = line
        self.opening = opening


class InvalidConfiguration(WsbridgeError):
    """A configuration file has faults: each is one line that names the place and the remedy."""

    exit_status: ClassVar[int] = 1

    def __init__(self, file: str, faults: Sequence[str], files: Sequence[str]) -> None:
        """`files` are all files that were read or that the values name, and the folders in which more files may appear."""
        super().__init__(f"{file} has {len(faults)} faults")
        self.faults = faults
        self.files = files


class WrongValue(WsbridgeError):
    """A value is not one of its setting. `faults` are sentences, each with the path from the setting to the item at fault."""

    def __init__(self, *faults: tuple[tuple[int, ...], str]) -> None:
        super().__init__("; ".join(sentence for _, sentence in faults))
        self.faults = faults


class ListenError(WsbridgeError):
    """The server cannot listen at an address, or cannot use its certificate."""

    exit_status: ClassVar[int] = 3

    def __init__(self, sentence: str, *, errno: int = 0, host: str = "", port: int = 0, path: str = "") -> None:
        """`errno` is the system's error for binding a host and a port, or the path of a Unix socket; 0 stands for any other reason.

        `sentence` may mention settings.
        """
        super().__init__(written(sentence))
        self.sentence = sentence
        self.errno = errno
        self.host = host
        self.port = port
        self.path = path


class ShuttingDown(WsbridgeError):
    """The server shuts down, so its settings do not change any more."""


class BusError(WsbridgeError):
    """The broker is unreachable or refuses a request. The text contains no password."""

    exit_status: ClassVar[int] = 4

    def __init__(self, sentence: str, *, exchange: str = "") -> None:
        """`exchange` is the name of the exchange if only its channel cannot use the broker."""
        super().__init__(sentence)
        self.exchange = exchange


class RemoteError(WsbridgeError):
    """A server is unreachable or refuses a request. The text contains no password."""

    exit_status: ClassVar[int] = 4


class LinkLost(WsbridgeError):
    """The connection to the broker is lost, or no longer usable. It never leaves the bus."""


class RefusedBody(WsbridgeError):
    """The broker refuses a body, or does not deliver it to every queue; the connection stays usable."""


class BodyError(WsbridgeError):
    """A body that the broker delivers cannot be decoded; the text gives the reason."""


class MalformedBody(BodyError):
    """The body does not match its content type."""


class EncodedBody(BodyError):
    """The encoding of the body is unknown, or its data is damaged."""


class BodyTooLong(EncodedBody):
    """The body decompresses to more than the limit."""


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
            + written(" set <hosts> to it; behind a reverse proxy, set <trust_proxy>"),
        )


class Busy(WsbridgeError):
    """No slot is free, and the server reports that to the client by a close code.

    `accept` and `subprotocol` are the values that the handshake needs.
    """

    def __init__(self, accept: str, subprotocol: str | None, why: str) -> None:
        super().__init__(why)
        self.accept = accept
        self.subprotocol = subprotocol


class BodyTimeout(WsbridgeError):
    """No part of a request's body has arrived for too long."""


class InvalidResponse(WsbridgeError):
    """The output of a script is not a CGI response."""


class TruncatedOutput(WsbridgeError):
    """The output of a script ended before it was complete."""


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
