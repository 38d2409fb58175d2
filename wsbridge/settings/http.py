"""The HTTP resources of an endpoint besides the WebSocket: files, CGI scripts and pages of wsbridge."""

from collections.abc import Iterator
from typing import Annotated

from wsbridge.settings.declare import MEBIBYTE, Fault, Part, Seconds, Setting, Size


class HttpSettings(Part, frozen=True, kw_only=True):
    """The HTTP resources of an endpoint besides the WebSocket."""

    files: Annotated[
        str,
        Setting(
            "Serve the files below this directory",
            "Serve the files in DIR",
            "Serve the files in this folder",
            flag="staticdir",
            metavar="DIR",
            place="folder",
        ),
    ] = ""
    dotfiles: Annotated[
        bool,
        Setting(
            "Serve, list and run files whose names begin with a dot as well (/.well-known/ is always served)",
            "Also serve, list and run files whose name begins with a dot",
            flag="dotfiles",
        ),
    ] = False
    cgi: Annotated[
        str,
        Setting(
            "Run the CGI scripts below this directory",
            "Run the CGI scripts in DIR",
            "Run the CGI scripts in this folder",
            flag="cgidir",
            metavar="DIR",
            place="folder",
        ),
    ] = ""
    max_body: Annotated[
        Size,
        Setting(
            "Answer with 413 when a chunked body for a CGI script exceeds this size, in bytes (0: no limit)",
            (
                "Limit the chunked body of a request to a CGI script (0: no limit). A longer body gets 413. All "
                "bodies together may use four times this size on the disk (`TMPDIR`); when that space is full, a "
                "request gets 503"
            ),
            flag="maxbody",
            minimum=0,
        ),
    ] = 64 * MEBIBYTE
    body_timeout: Annotated[
        Seconds,
        Setting(
            "Answer with 408, or cut off a response, when a client sends no body data for this long, in seconds (0: never)",
            "Answer with 408, or cut off a response in progress, when a client sends no data of its request body for this long (0: never)",
            flag="body-timeout",
            minimum=0,
        ),
    ] = 60.0
    console: Annotated[
        bool,
        Setting(
            "Serve a page for trying out the program, at every path that has no other content",
            (
                "Serve the console at every path where wsbridge serves nothing else. With `<files>`, that is any "
                "path without a file, such as `/console`"
            ),
            flag="devconsole",
        ),
    ] = False
    page: Annotated[
        bool,
        Setting(
            "Do not serve wsbridge's own pages; all other content is still served",
            (
                "Do not serve wsbridge's own pages: the page of a channel, and the page that describes the server. "
                "All other content is still served"
            ),
            "Serve wsbridge's own pages: the page of a channel, and the page that describes the server",
            flag="no-page",
            is_inverted=True,
        ),
    ] = True
    status: Annotated[
        bool,
        Setting(
            "Do not serve /status, which shows viewers, positions, counters and the program's state",
            "Do not serve [`/status`](wsbridge-js.md#channel-status); the channel page works without it",
            "Serve `/status`, which shows viewers, positions, counters and the program's state",
            flag="no-status",
            is_inverted=True,
        ),
    ] = True

    def faults(self) -> Iterator[Fault]:
        if self.console and not self.page:
            yield Fault(("console",), "<console> serves a page, and <page> turns all pages off; use only one of them")


class HttpTimings(Part, frozen=True, kw_only=True):
    """How long a client may spend on its requests, in seconds."""

    head_seconds: float = 10.0
    """From the first byte of a request's head to its last."""
    keepalive_seconds: float = 75.0
    """Between two requests on one connection (0: no limit), as in nginx."""
    body_seconds: float = 60.0
    """Between two reads of a request's body (0: no limit), as in nginx."""
