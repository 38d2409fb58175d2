"""Which requests the server admits, and the headers of its responses."""

import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Annotated

from wsbridge.rules.cgi import HOP_BY_HOP
from wsbridge.rules.origins import Rules, parse_allowed
from wsbridge.settings.declare import Part, Setting

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""Characters that the value of a header must not contain (RFC 9110, section 5.5)."""
FRAMING_HEADERS = HOP_BY_HOP | {"content-length", "sec-websocket-accept"}
"""Headers that determine where a response ends or how its connection continues: a second one makes the response ambiguous."""

Headers = tuple[tuple[str, str], ...]


class Busy(StrEnum):
    """How the server refuses a client that finds no free slot."""

    STATUS = "429"
    CLOSE = "close"


def parse_header(text: str, setting: str = "headers") -> tuple[str, str]:
    """Parse a header, `Name: value`. Raises ValueError, with a sentence that mentions `setting`."""
    name, _, value = text.partition(":")
    name, value = name.strip(), value.strip()
    if not TOKEN.match(name):
        raise ValueError(f"<{setting}>={text!r} is not a header; write 'Name: value'")
    if CONTROL.search(value):
        raise ValueError(f"<{setting}>={text!r} has a control character in its value, which HTTP forbids; remove it")
    if name.lower() in FRAMING_HEADERS:
        raise ValueError(f"<{setting}>: {name} controls how a response is sent, and only the server sets it; remove it")
    if name.lower() == "sec-websocket-extensions":
        raise ValueError(f"<{setting}>: the handshake negotiates {name}; use <compress> instead")
    return "-".join(part.capitalize() for part in name.split("-")), value


def parse_headers(texts: Iterable[str]) -> Headers:
    """Parse headers, `Name: value` each. Raises ValueError."""
    return tuple(map(parse_header, texts))


def _check_header(setting: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        parse_header(text, setting)

    return check


def _check_origin(origin: str) -> None:
    try:
        parse_allowed(origin)
    except ValueError as error:
        raise ValueError(f"<origins>: {error}") from None


def _check_subprotocol(subprotocol: str) -> None:
    if not TOKEN.match(subprotocol):
        raise ValueError(f"<subprotocols>: {subprotocol!r} is not a valid token for a header")


class AccessSettings(Part, frozen=True, kw_only=True):
    """Which requests the server admits, and the headers of its responses."""

    same_origin: Annotated[
        bool,
        Setting(
            "Accept only pages of the server's own scheme, host and port",
            (
                "Admit only pages with the scheme, host and port of this server. Refuse clients without an Origin. "
                "Also check [the Host header](hosts-and-origins.md) on every address"
            ),
            flag="sameorigin",
        ),
    ] = False
    origins: Annotated[
        tuple[str, ...] | None,
        Setting(
            "Accept only pages from these origins: [scheme://]host[:port] or *.name, separated by commas",
            (
                "Admit only pages of these [origins](hosts-and-origins.md): `[scheme://]host[:port]` or `*.name`, "
                "separated by commas. With `<same_origin>`, a page must pass both checks"
            ),
            "Admit only pages from these origins: `[scheme://]host[:port]` or `*.name`. With `<same_origin>`, a page must pass both checks",
            flag="origin",
            metavar="LIST",
            has_commas=True,
            default_shown="any",
            check_item=_check_origin,
        ),
    ] = None
    """None: pages of any origin."""
    max_programs: Annotated[
        int,
        Setting(
            "Run at most N programs at once, for sessions and CGI scripts together; answer further such requests with 429 (0: no limit)",
            (
                "Limit the programs that run at once, for sessions and CGI scripts together (0: no limit). Further "
                "upgrades and CGI requests get 429. A slot becomes free when its program is gone"
            ),
            flag="maxforks",
            minimum=0,
            is_clamped=True,
        ),
    ] = 1024
    busy: Annotated[
        Busy,
        Setting(
            "Refuse WebSocket clients over <max_programs>: 429 (HTTP status), or close (code 1013, which a page can read)",
            (
                "Select how wsbridge refuses a client without a free slot: `429`, or `close`, which upgrades the "
                "connection and closes it with 1013. A page can read a close code, but not an HTTP status"
            ),
            flag="busy",
            metavar="HOW",
        ),
    ] = Busy.STATUS
    subprotocols: Annotated[
        tuple[str, ...],
        Setting(
            "Accept these subprotocols, separated by commas; repeatable",
            "Accept these subprotocols; repeatable. wsbridge selects the first subprotocol on the client's list that it accepts",
            "Accept these subprotocols. wsbridge selects the first subprotocol on the client's list that it accepts",
            flag="subprotocol",
            metavar="NAMES",
            is_repeatable=True,
            has_commas=True,
            check_item=_check_subprotocol,
        ),
    ] = ()
    headers: Annotated[
        tuple[str, ...],
        Setting(
            "Add this header, 'Name: value', to every response; repeatable",
            (
                "Add a header to every response; repeatable. wsbridge rejects headers that control the transfer of a "
                "response, such as `Content-Length` or `Connection`"
            ),
            (
                "Add these headers, `Name: value`, to every response. wsbridge rejects headers that control the transfer of a "
                "response, such as `Content-Length` or `Connection`"
            ),
            flag="header",
            metavar="HEADER",
            is_repeatable=True,
            check_item=_check_header("headers"),
        ),
    ] = ()
    headers_websocket: Annotated[
        tuple[str, ...],
        Setting(
            "Add this header to upgrades only; repeatable",
            "Add a header to upgrades only; repeatable",
            "Add these headers to upgrades only",
            flag="header-ws",
            metavar="HEADER",
            is_repeatable=True,
            check_item=_check_header("headers_websocket"),
        ),
    ] = ()
    headers_http: Annotated[
        tuple[str, ...],
        Setting(
            "Add this header to responses to plain HTTP requests only; repeatable",
            "Add a header to responses to plain HTTP requests only; repeatable",
            "Add these headers to responses to plain HTTP requests only",
            flag="header-http",
            metavar="HEADER",
            is_repeatable=True,
            check_item=_check_header("headers_http"),
        ),
    ] = ()

    @property
    def rules(self) -> Rules:
        """The check of the Origin header."""
        return Rules(self.same_origin, None if self.origins is None else parse_allowed(",".join(self.origins)))

    @property
    def websocket_headers(self) -> Headers:
        """The headers of an upgrade."""
        return parse_headers((*self.headers, *self.headers_websocket))

    @property
    def http_headers(self) -> Headers:
        """The headers of responses to plain requests."""
        return parse_headers((*self.headers, *self.headers_http))
