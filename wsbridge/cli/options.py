"""Every command and flag, as tables: what click parses, what `--help` shows and what README must name.

Each flag is also a variable: `WSBRIDGE_` and its name in capitals, hyphens as underscores; the value of a repeatable one
holds one value a line. The command line wins over the variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from wsbridge.cli.units import Milliseconds, Size, UnsignedMilliseconds

PREFIX = "WSBRIDGE_"
MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Option:
    """One flag. `kind` is bool, int, float (seconds), str or one of units.py; `metavar` stands for the value in the help."""

    name: str
    kind: type
    help: str
    default: object = None
    metavar: str = ""
    repeatable: bool = False

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper().replace("-", "_")

    @property
    def attribute(self) -> str:
        return self.name.replace("-", "_")

    @property
    def shown(self) -> str:
        return f"--{self.name}" + (f"={self.metavar}" if self.kind is not bool else "")


Groups = Mapping[str, tuple[Option, ...]]

BRIDGE_GROUPS: Groups = {
    "Where it listens": (
        Option("port", int, "port of every address; 0 takes a free one (default 80, with --ssl 443)", None, "N"),
        Option("address", str, "address to bind, IPv6 in brackets; repeatable (default: all)", None, "ADDR", repeatable=True),
        Option("unixsocket", str, "also listen on a Unix socket; alone, without TCP", "", "PATH"),
        Option("unixsocket-mode", str, "rights of the Unix socket, in octal (default 600, with --unixsocket-group 660)", "", "MODE"),
        Option("unixsocket-owner", str, "give the Unix socket to this user, by name or number", "", "USER"),
        Option("unixsocket-group", str, "give the Unix socket to this group, by name or number", "", "GROUP"),
        Option("ssl", bool, "speak TLS; needs --sslcert and --sslkey"),
        Option("sslcert", str, "certificate chain, PEM", "", "FILE"),
        Option("sslkey", str, "private key, PEM", "", "FILE"),
        Option("sslca", str, "ask clients for a certificate of this CA, PEM", "", "FILE"),
        Option("redirport", int, "extra plain HTTP port that redirects to --port", 0, "N"),
    ),
    "What a program is told, and how": (
        Option("framing", str, "how messages lie on stdin and stdout: lines, chunks, nul, prefixed or json", "lines", "NAME"),
        Option("binary", bool, "the same as --framing=chunks"),
        Option("maxline", Size, "longest message from the program in bytes; longer: close 1009 (0: any)", 16 * MEGABYTE, "BYTES"),
        Option("passstderr", bool, "send stderr too: each line as JSON that names its stream"),
        Option("pty", bool, "give the program a terminal as stdout, so that it does not hold back its lines"),
        Option("pty-size", str, "set the size of that terminal, and let the program print for it", "", "COLSxROWS"),
        Option("passenv", str, "variables of ours that programs get, separated by commas", "PATH,LD_LIBRARY_PATH", "NAMES"),
        Option("closems", UnsignedMilliseconds, "time to add to each step of ending a program: stdin closed, INT, TERM, KILL", 0, "MS"),
        Option("drainms", Milliseconds, "milliseconds to wait, after a program exits, for others that hold its stdout open", 2000, "MS"),
        Option("no-guard", bool, "without the small process that ends the programs of a wsbridge that was killed"),
    ),
    "Who may connect, and how many": (
        Option("sameorigin", bool, "admit only pages of this very scheme, host and port"),
        Option("origin", str, "admit only pages of these origins: [scheme://]host[:port] or *.name, separated by commas", None, "LIST"),
        Option("host", str, "answer also to this host name, *.name or *; repeatable (default: our own)", None, "NAME", repeatable=True),
        Option("trust-proxy", str, "believe X-Forwarded-For, -Proto and -Host from these: networks, or unix", "", "CIDR,…|unix"),
        Option("reverselookup", bool, "look up the names of clients for REMOTE_HOST"),
        Option("maxforks", int, "most programs at once, sessions and CGI together; more get 429 (0: any number)", 1024, "N"),
        Option("busy", str, "how to turn away what is over --maxforks: 429, or close (1013, which a page can see)", "429", "HOW"),
        Option("once", bool, "serve one session and exit with the status of its program"),
    ),
    "The WebSocket": (
        Option("maxframesize", Size, "longest message from a client in bytes; longer is closed with 1009 (0: any)", MEGABYTE, "BYTES"),
        Option("pingms", Milliseconds, "milliseconds between pings; a client silent for two is given up (0: no pings)", 25_000, "MS"),
        Option("send-timeout", float, "seconds after which a client that takes nothing is cut off (0: never)", 60.0, "SECONDS"),
        Option("sendbuffer", Size, "bytes that wait for a slow client before its program is held up", MEGABYTE // 4, "BYTES"),
        Option("subprotocol", str, "subprotocols to agree to, separated by commas; repeatable", None, "NAMES", repeatable=True),
        Option("compress", bool, "agree to permessage-deflate"),
    ),
    "HTTP on the same port": (
        Option("dir", str, "serve every script below a directory, by path, instead of COMMAND", "", "DIR"),
        Option("staticdir", str, "serve files", "", "DIR"),
        Option("dotfiles", bool, "serve, list and run files whose name begins with a dot, too (/.well-known/ is always served)"),
        Option("cgidir", str, "run CGI scripts", "", "DIR"),
        Option("maxbody", Size, "longest chunked body for a CGI script in bytes; longer gets 413 (0: any)", 64 * MEGABYTE, "BYTES"),
        Option("body-timeout", float, "seconds after which a client that sends nothing of its body gets 408 (0: never)", 60.0, "SECONDS"),
        Option("keepalive-timeout", float, "seconds after which a connection without a request is closed (0: never)", 75.0, "SECONDS"),
        Option("devconsole", bool, "a page to try the program out, wherever nothing else is served"),
        Option("no-page", bool, "Do not serve a page of wsbridge's own; scripts and files stay"),
        Option("header", str, "response header 'Name: value' on everything; repeatable", None, "HEADER", repeatable=True),
        Option("header-ws", str, "… on upgrades only", None, "HEADER", repeatable=True),
        Option("header-http", str, "… on everything else only", None, "HEADER", repeatable=True),
    ),
    "The log, and the rest": (
        Option("loglevel", str, "debug, trace, access, info, error, fatal or none", "access", "LEVEL"),
        Option("log-format", str, "text, or json: one object a line", "text", "NAME"),
        Option("version", bool, "print the version"),
        Option("license", bool, "print the license"),
    ),
}


def _of_the_bridge(
    title: str, *, without: tuple[str, ...] = (), more: tuple[Option, ...] = (), help: Mapping[str, str] = {}
) -> tuple[Option, ...]:
    """Return a group of the bridge's flags, but for some, with what this command says of them and has besides."""
    options = (option for option in BRIDGE_GROUPS[title] if option.name not in without)
    return (*(replace(option, help=help.get(option.name, option.help)) for option in options), *more)


EXCHANGE = Option("exchange", str, "the channel's name, which is that of the exchange at the broker", "", "NAME")
BROKER = Option(
    "broker",
    str,
    "RabbitMQ that carries the channel between nodes: amqp://user:password@host/vhost, or amqps://; "
    "several addresses, separated by commas or repeated, are tried in turn",
    None,
    "URL",
    repeatable=True,
)
DURABLE = Option("durable", bool, "the exchange is durable: it outlives a restart of the broker")
PASSIVE = Option("passive", bool, "the exchange is others': it must be there, and is taken as it is")
REPLAY = Option("replay", bool, "the broker keeps the channel in a stream: nothing that it confirmed is lost, and any node can go on")
REPLAY_BYTES = Option("replay-bytes", Size, "what the broker keeps of the channel, with --replay", 256 * MEGABYTE, "BYTES")
BROKER_TIMEOUT = Option("broker-timeout", float, "reconnect when the broker does not answer for so long", 10.0, "SECONDS")
CONFIRM_TIMEOUT = Option(
    "confirm-timeout", float, "reconnect when the broker does not confirm a publish for so long, alarms aside (0: never)", 30.0, "SECONDS"
)
FRAMING = Option("framing", str, "how messages lie one behind the other: lines, chunks, nul, prefixed or json", "lines", "NAME")
MAXLINE = Option("maxline", Size, "longest message in bytes (0: any)", 16 * MEGABYTE, "BYTES")
REMOTE_URL = Option("url", str, "a wsbridge to speak to instead of the broker, whose channel it is: ws://host:port/, or wss://", "", "URL")

BROADCAST_GROUPS: Groups = {
    "The channel": (
        EXCHANGE,
        Option("through", bool, "COMMAND reads what arrives on the exchange, and what it prints goes to this node's browsers"),
        Option("input", str, "where what browsers send goes: none (close 1003), program (its stdin) or exchange", "none", "WHERE"),
        Option("history", int, "messages that are kept for who joins or comes back", 1000, "N"),
        Option("history-bytes", Size, "bytes of them at most", MEGABYTE, "BYTES"),
        Option("join", str, "what a browser is given first that brings no position: history, last or none", "none", "HOW"),
        Option("queue", Size, "bytes that a browser may lag behind", MEGABYTE, "BYTES"),
        Option("slow", str, "what becomes of one that lags further: drop-oldest, latest, or close (1013)", "drop-oldest", "HOW"),
        Option("restart", str, "when COMMAND has ended, it is started again: always, on-failure or never", "always", "WHEN"),
    ),
    "The broker": (
        BROKER,
        REPLAY,
        REPLAY_BYTES,
        DURABLE,
        PASSIVE,
        Option("spool", Size, "bytes that wait for a broker that is away or slow", 64 * MEGABYTE, "BYTES"),
        Option("spool-full", str, "when it is full: block (the program waits) or drop-oldest (which is counted)", "block", "HOW"),
        BROKER_TIMEOUT,
        CONFIRM_TIMEOUT,
    ),
    "Where it listens": _of_the_bridge("Where it listens"),
    "The program": _of_the_bridge(
        "What a program is told, and how",
        without=("passstderr",),
        help={
            "maxline": "longest message in bytes; a program that prints a longer one is started again (0: any)",
            "passenv": "variables of ours that CGI scripts get, separated by commas",
        },
    ),
    "Who may connect, and how many": _of_the_bridge(
        "Who may connect, and how many",
        without=("once",),
        more=(Option("maxclients", int, "most browsers at once; more get 429 (0: any number)", 0, "N"),),
        help={
            "maxforks": "most CGI scripts at once; more get 429 (0: any number)",
            "busy": "how to turn away what is over --maxclients: 429, or close (1013, which a page can see)",
        },
    ),
    "The WebSocket": _of_the_bridge("The WebSocket", without=("sendbuffer",)),
    "HTTP on the same port": _of_the_bridge(
        "HTTP on the same port",
        without=("dir",),
        more=(Option("no-status", bool, "Do not serve /status, which shows viewers, positions, counts and the program's state"),),
    ),
    "The log, and the rest": _of_the_bridge("The log, and the rest"),
}

_THE_REST = (
    Option("loglevel", str, "what is said on stderr: info, error (not that the broker is here again) or none", "info", "LEVEL"),
    *_of_the_bridge("The log, and the rest", without=("loglevel", "log-format")),
)

PUBLISH_GROUPS: Groups = {
    "Where to": (EXCHANGE, BROKER, REMOTE_URL, REPLAY, REPLAY_BYTES, DURABLE, PASSIVE, BROKER_TIMEOUT, CONFIRM_TIMEOUT),
    "The messages": (FRAMING, MAXLINE),
    "The rest": _THE_REST,
}

SUBSCRIBE_GROUPS: Groups = {
    "Where from": (EXCHANGE, BROKER, REMOTE_URL, REPLAY, REPLAY_BYTES, DURABLE, PASSIVE, BROKER_TIMEOUT),
    "The messages": (
        FRAMING,
        MAXLINE,
        Option("n", int, "messages after which it ends, with 0 (0: never)", 0, "N"),
        Option("since", str, "a position to go on behind; needs --url or --replay", "", "POSITION"),
        Option("show-position", bool, "before each message its position and a space: --since takes the last one that was seen"),
    ),
    "The rest": _THE_REST,
}


@dataclass(frozen=True, slots=True)
class Command:
    """One shape: what its words are, in the help and on the command line."""

    name: str
    summary: str
    usages: tuple[str, ...]
    groups: Groups
    examples: tuple[tuple[str, str], ...]
    """Each a command line after the name of ours, and what it does."""

    @property
    def options(self) -> tuple[Option, ...]:
        return tuple(option for group in self.groups.values() for option in group)


BRIDGE = Command(
    "bridge",
    "Put any program that reads stdin and writes stdout on the web: each WebSocket connection gets its own process.",
    ("[FLAGS] COMMAND [ARGUMENTS]", "[FLAGS] --dir=DIR"),
    BRIDGE_GROUPS,
    (
        ("--port 8080 ./count.sh", "a script"),
        ("--port 8080 --devconsole bc -q", "a program, and a page to try it out"),
        ("--port 8080 --dir scripts --staticdir public", ""),
        ("--port 8443 --ssl --sslcert c.pem --sslkey k.pem --sameorigin ./chat.py", ""),
    ),
)
BROADCAST = Command(
    "broadcast",
    "Bring what one program prints to any number of browsers, on any number of nodes.",
    ("broadcast --exchange=NAME [FLAGS] COMMAND [ARGUMENTS]", "broadcast --exchange=NAME [FLAGS]"),
    BROADCAST_GROUPS,
    (
        ("broadcast --port 8080 --exchange temps ./sensor.py", "one node, nothing to install"),
        ("broadcast --port 8080 --exchange temps --broker amqp://rabbit/ ./sensor.py", "more nodes: without COMMAND"),
        ("broadcast --port 8080 --exchange talk --input exchange --join history", "a chat"),
    ),
)
PUBLISH = Command(
    "publish",
    "Publish the messages on stdin to a channel.",
    ("publish --exchange=NAME --broker=URL [FLAGS]", "publish --url=ws://HOST:PORT/ [FLAGS]"),
    PUBLISH_GROUPS,
    (("publish --exchange temps --broker amqp://rabbit/", ""), ("publish --url ws://localhost:8080/", "to one that takes --input")),
)
SUBSCRIBE = Command(
    "subscribe",
    "Print the messages of a channel.",
    ("subscribe --exchange=NAME --broker=URL [FLAGS]", "subscribe --url=ws://HOST:PORT/ [FLAGS]"),
    SUBSCRIBE_GROUPS,
    (("subscribe --exchange temps --broker amqp://rabbit/", ""), ("subscribe --url ws://localhost:8080/ -n 1", "the next message")),
)
COMMANDS = {command.name: command for command in (BRIDGE, BROADCAST, PUBLISH, SUBSCRIBE)}
"""The words that choose a shape when they are the very first; without one it is the bridge."""
OPTIONS = BRIDGE.options
