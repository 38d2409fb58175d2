"""The process as a whole: its names, its proxies, its log."""

from typing import Annotated

from wsbridge.logs import LEVELS
from wsbridge.rules.forwarded import Trusted, parse_trusted
from wsbridge.rules.hosts import parse_hosts
from wsbridge.settings.declare import Part, Seconds, Setting

LOG_FORMATS = ("text", "json")


def _check_host(host: str) -> None:
    try:
        parse_hosts((host,))
    except ValueError as error:
        raise ValueError(f"<hosts>={error}") from None


def _check_proxy(entry: str) -> None:
    try:
        parse_trusted(entry)
    except ValueError as error:
        raise ValueError(f"<trust_proxy>: {error}") from None


class ProcessSettings(Part, frozen=True, kw_only=True):
    """The process as a whole."""

    hosts: Annotated[
        tuple[str, ...],
        Setting(
            "Also accept this host name, *.name or * in the Host header; repeatable (default: the machine's names)",
            "Also answer requests for this [host name](hosts-and-origins.md), `*.name` or `*`; repeatable",
            "Also answer requests for these host names, `*.name` or `*`",
            flag="host",
            metavar="NAME",
            is_repeatable=True,
            has_commas=True,
            default_shown="the machine's own",
            check_item=_check_host,
        ),
    ] = ()
    trust_proxy: Annotated[
        tuple[str, ...],
        Setting(
            "Trust X-Forwarded-For, -Proto and -Host from these networks and, with unix, from the Unix socket",
            (
                "Trust `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host` only from these networks "
                "(`10.0.0.0/8,::1`) and, with `unix`, from every client of the Unix socket. [The proxy](proxy.md) "
                "must set all three headers, or remove those that its client sent. wsbridge drops the scope of an "
                "IPv6 address. It treats a port outside 1 to 65535 as unknown"
            ),
            (
                "Trust `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host` only from these networks, such as `10.0.0.0/8`, "
                "and, with `unix`, from every client of the Unix socket"
            ),
            flag="trust-proxy",
            metavar="CIDR,…|unix",
            has_commas=True,
            default_shown="none",
            check_item=_check_proxy,
        ),
    ] = ()
    reverse_lookup: Annotated[
        bool,
        Setting(
            "Resolve the client's address to a name for REMOTE_HOST",
            (
                "Set `REMOTE_HOST`, and `remote` in the log, to the client's name if a lookup finds it within 2 s. "
                "wsbridge makes at most 16 lookups at once, one for each address. "
                "This applies to WebSockets, not to CGI scripts and event streams"
            ),
            flag="reverselookup",
        ),
    ] = False
    keepalive_timeout: Annotated[
        Seconds,
        Setting(
            "Close a connection that sends no request for this long, in seconds (0: never)",
            "Close a connection that waits this long for its next request (0: never)",
            flag="keepalive-timeout",
            minimum=0,
        ),
    ] = 75.0
    guard: Annotated[
        bool,
        Setting(
            "Do not start the guard process, which ends leftover programs if wsbridge is killed",
            "Do not start [the guard](sessions.md#the-guard) (it ends leftover programs if wsbridge is killed)",
            "Start the guard process, which ends leftover programs if wsbridge is killed",
            flag="no-guard",
            is_inverted=True,
        ),
    ] = True
    max_sessions: Annotated[
        int,
        Setting(
            "Limit the concurrent sessions, subscribers and CGI scripts of all endpoints together (0: no limit)",
            minimum=0,
        ),
    ] = 0
    log_level: Annotated[
        str,
        Setting(
            "Log at this level: debug, trace, access, info, error, fatal or none",
            "Select the level of [the log](log.md): `debug`, `trace`, `access`, `info`, `error`, `fatal`, `none`",
            flag="loglevel",
            metavar="LEVEL",
            choices=tuple(LEVELS),
        ),
    ] = "access"
    log_format: Annotated[
        str,
        Setting(
            "Write the log as text, or as json: one object per line",
            "Select the format of the log: `text`, or `json` with one object per line",
            flag="log-format",
            metavar="NAME",
            choices=LOG_FORMATS,
        ),
    ] = "text"

    @property
    def host_names(self) -> tuple[str, ...]:
        """The host names in the form in which they are compared."""
        return parse_hosts(self.hosts)

    @property
    def trusted(self) -> Trusted:
        """The proxies whose headers the server trusts."""
        return parse_trusted(",".join(self.trust_proxy))
