"""The flags of each command, in groups: click parses them, `--help` shows them, and scripts/docs writes their tables.

Each flag is also a variable: `WSBRIDGE_` and its name in capitals, with underscores for hyphens. The variable of a repeatable
flag holds one value per line. The command line has precedence over the variable.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from wsbridge.cli.option import Option, flags
from wsbridge.settings.access import AccessSettings
from wsbridge.settings.broker import BrokerSettings
from wsbridge.settings.channel import ChannelSettings
from wsbridge.settings.client import ClientSettings
from wsbridge.settings.declare import Kind
from wsbridge.settings.http import HttpSettings
from wsbridge.settings.listen import ListenSettings
from wsbridge.settings.process import ProcessSettings
from wsbridge.settings.program import ProgramSettings

Groups = Mapping[str, tuple[Option, ...]]
Texts = Mapping[str, Mapping[str, str]]


def _with_texts(options: tuple[Option, ...], texts: Texts) -> tuple[Option, ...]:
    """Return flags with other texts, for some names."""
    return tuple(msgspec.structs.replace(option, **texts.get(option.name, {})) for option in options)


WATCH = Option(
    name="watch",
    help="Also read the file again when it or a file that it includes changes",
    description="Read the configuration again when it changes, without a signal. wsbridge looks at its files once a second",
)
PORT = Option(
    name="port",
    kind=Kind.INTEGER,
    help="Listen on this port on every address; 0 picks a free port (default 80, with --ssl 443)",
    metavar="N",
    description="Set the port for every address. 0 selects a free port, and the log names it",
    default_shown="80; 443 with `--ssl`",
)
ADDRESS = Option(
    name="address",
    kind=Kind.TEXT,
    help="Listen on this address, IPv6 in brackets; repeatable (default: all addresses)",
    metavar="ADDR",
    is_repeatable=True,
    description="Bind this address; repeatable. IPv6 needs brackets. If wsbridge cannot bind one of the addresses, it exits",
    default_shown="all, IPv4 and IPv6",
)
UNIX_SOCKET = Option(
    name="unixsocket",
    kind=Kind.TEXT,
    help="Also listen on a Unix socket; without --port, --address and --redirport, listen only on it",
    default="",
    metavar="PATH",
    description=(
        "Also listen on a Unix socket. Without `--port`, `--address` and `--redirport`, listen only on this socket."
        " wsbridge replaces a socket that has no server; it leaves any other file alone"
    ),
)
SSL = Option(
    name="ssl",
    help="Serve TLS; requires --sslcert and --sslkey",
    description="Serve TLS 1.2 and newer; see [TLS](tls.md). wsbridge needs `--sslcert` and `--sslkey` as well",
)
BINARY = Option(name="binary", help="Same as --framing=chunks", description="The same as `--framing=chunks`")
ONCE = Option(
    name="once",
    help="Serve one session, then exit with the exit status of its program",
    description="Serve one session, then exit with the status of its program. wsbridge admits no second client",
)
VERSION = Option(name="version", help="Print the version and exit", description="Print the version, and exit", default_shown="")
LICENSE = Option(name="license", help="Print the license and exit", description="Print the license, and exit", default_shown="")

LISTENING = (
    PORT,
    ADDRESS,
    UNIX_SOCKET,
    *flags(ListenSettings, "mode", "owner", "group"),
    SSL,
    *flags(ListenSettings, "certificate", "key", "client_ca"),
    *_with_texts(
        flags(ListenSettings, "redirect_port"),
        {
            "redirport": {
                "help": "Redirect plain HTTP requests on this port to --port",
                "description": (
                    "Listen on an extra port for plain HTTP. wsbridge answers each request there with 301 to the same path on `--port`"
                ),
            }
        },
    ),
)
BRIDGE_GROUPS: Groups = {
    "Listening": LISTENING,
    "The program": (
        *flags(ProgramSettings, "framing"),
        BINARY,
        *flags(ProgramSettings, "max_program_message", "pass_stderr", "pty", "pty_size", "pass_environment", "close_delay", "drain"),
        *flags(ProcessSettings, "guard"),
    ),
    "Access and limits": (
        *flags(AccessSettings, "same_origin", "origins"),
        *flags(ProcessSettings, "hosts", "trust_proxy", "reverse_lookup"),
        *flags(AccessSettings, "max_programs", "busy"),
        ONCE,
    ),
    "The WebSocket": (
        *flags(ClientSettings, "max_client_message", "ping", "write_timeout", "send_buffer"),
        *flags(AccessSettings, "subprotocols"),
        *flags(ClientSettings, "compress"),
    ),
    "HTTP on the same port": (
        *flags(ProgramSettings, "scripts"),
        *flags(HttpSettings, "files", "dotfiles", "cgi", "max_body", "body_timeout"),
        *flags(ProcessSettings, "keepalive_timeout"),
        *flags(HttpSettings, "console", "page"),
        *flags(AccessSettings, "headers", "headers_websocket", "headers_http"),
    ),
    "Log and information": (*flags(ProcessSettings, "log_level", "log_format"), VERSION, LICENSE),
}


def _of_the_bridge(
    title: str, *, without: tuple[str, ...] = (), more: tuple[Option, ...] = (), help: Mapping[str, str] = {}
) -> tuple[Option, ...]:
    """Return a group of the bridge's flags without some, with other helps, and with more flags."""
    options = tuple(option for option in BRIDGE_GROUPS[title] if option.name not in without)
    return (*_with_texts(options, {name: {"help": text} for name, text in help.items()}), *more)


EXCHANGE = flags(ChannelSettings, "exchange")
BROKER = flags(BrokerSettings, "url")
KEPT = flags(ChannelSettings, "replay", "replay_size", "durable", "passive")
BROKER_TIMEOUT = flags(BrokerSettings, "timeout")
CONFIRM_TIMEOUT = flags(BrokerSettings, "confirm_timeout")
PIPE_MESSAGES = _with_texts(
    flags(ProgramSettings, "framing", "max_program_message"),
    {
        "framing": {"help": "Encode messages as lines, chunks, nul, prefixed or json"},
        "maxline": {"help": "Reject a message longer than this, in bytes (0: no limit)"},
    },
)
REMOTE_URL = Option(
    name="url",
    kind=Kind.TEXT,
    help="Connect to a wsbridge server instead of the broker: ws://host:port/, or wss://",
    default="",
    metavar="URL",
    description=(
        "Use a wsbridge server instead of the broker: `ws://` or `wss://`. The `SSL_CERT_FILE` variable names"
        " a private CA. wsbridge follows redirects, but not from TLS to plain text"
    ),
)

BROADCAST_GROUPS: Groups = {
    "The channel": (
        *EXCHANGE,
        *flags(ChannelSettings, "through", "input", "history", "history_size", "join", "queue", "slow", "restart"),
    ),
    "The broker": (*BROKER, *KEPT, *flags(ChannelSettings, "spool", "spool_full"), *BROKER_TIMEOUT, *CONFIRM_TIMEOUT),
    "Listening": LISTENING,
    "The program": _of_the_bridge(
        "The program",
        without=("passstderr",),
        help={
            "maxline": "End the program if it prints a message longer than this, in bytes; --restart applies (0: no limit)",
            "passenv": "Pass these variables of the server, separated by commas, to CGI scripts",
        },
    ),
    "Access and limits": _of_the_bridge(
        "Access and limits",
        without=("once",),
        more=flags(ChannelSettings, "max_clients"),
        help={
            "maxforks": "Run at most N CGI scripts at once; answer further CGI requests with 429 (0: no limit)",
            "busy": "Refuse WebSocket clients over --maxclients: 429 (HTTP status), or close (code 1013, which a page can read)",
        },
    ),
    "The WebSocket": _of_the_bridge("The WebSocket", without=("sendbuffer",)),
    "HTTP on the same port": _of_the_bridge("HTTP on the same port", without=("dir",), more=flags(HttpSettings, "status")),
    "Log and information": _of_the_bridge("Log and information"),
}

_THE_REST = (
    Option(
        name="loglevel",
        kind=Kind.TEXT,
        help="Report on stderr at this level: info, error (without reconnects) or none",
        default="info",
        metavar="LEVEL",
        description="Select the level of the log on stderr: `info`, `error` (without reconnects) or `none`",
    ),
    VERSION,
    LICENSE,
)

PUBLISH_GROUPS: Groups = {
    "Destination": (*EXCHANGE, *BROKER, REMOTE_URL, *KEPT, *BROKER_TIMEOUT, *CONFIRM_TIMEOUT),
    "Messages": PIPE_MESSAGES,
    "Log and information": _THE_REST,
}

SUBSCRIBE_GROUPS: Groups = {
    "Source": (*EXCHANGE, *BROKER, REMOTE_URL, *KEPT, *BROKER_TIMEOUT),
    "Messages": (
        *PIPE_MESSAGES,
        Option(
            name="n",
            kind=Kind.INTEGER,
            help="Exit with status 0 after this many messages (0: never)",
            default=0,
            metavar="N",
            description="Exit with 0 after N messages; `-n N` is the same",
            default_shown="0: never",
        ),
        Option(
            name="since",
            kind=Kind.TEXT,
            help="Start after this position; requires --url or --replay",
            default="",
            metavar="POSITION",
            description="Continue after a position; with `--broker` it needs `--replay`. `0-0` is the beginning of a stream",
        ),
        Option(
            name="show-position",
            help="Print each message's position and a space before the message; --since accepts such a position",
            description="Print the position and a space before each message; with `--broker` it needs `--replay`",
        ),
    ),
    "Log and information": _THE_REST,
}
