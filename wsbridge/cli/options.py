"""Every command and flag, as tables: what click parses, what `--help` shows and what docs/flags.md and docs/broadcast.md list.

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
    "Listening": (
        Option("port", int, "Listen on this port of every address; 0 picks a free port (default 80, with --ssl 443)", None, "N"),
        Option(
            "address", str, "Listen on this address, IPv6 in brackets; repeatable (default: all addresses)", None, "ADDR", repeatable=True
        ),
        Option("unixsocket", str, "Also listen on a Unix socket; without --port and --address, listen on it alone", "", "PATH"),
        Option("unixsocket-mode", str, "Set the mode of the Unix socket, in octal (default 600, with --unixsocket-group 660)", "", "MODE"),
        Option("unixsocket-owner", str, "Set the owner of the Unix socket, by name or number", "", "USER"),
        Option("unixsocket-group", str, "Set the group of the Unix socket, by name or number", "", "GROUP"),
        Option("ssl", bool, "Serve TLS; requires --sslcert and --sslkey"),
        Option("sslcert", str, "Use this certificate chain (PEM)", "", "FILE"),
        Option("sslkey", str, "Use this private key (PEM)", "", "FILE"),
        Option("sslca", str, "Require a client certificate issued by this CA (PEM)", "", "FILE"),
        Option("redirport", int, "Redirect plain HTTP requests on this port to --port", 0, "N"),
    ),
    "The program": (
        Option("framing", str, "Encode messages on stdin and stdout as lines, chunks, nul, prefixed or json", "lines", "NAME"),
        Option("binary", bool, "Same as --framing=chunks"),
        Option(
            "maxline", Size, "Close with 1009 when a message from the program is longer, in bytes (0: no limit)", 16 * MEGABYTE, "BYTES"
        ),
        Option("passstderr", bool, "Send stderr to the client as well: each line as JSON that names its stream"),
        Option("pty", bool, "Connect the program's stdout to a pseudo-terminal, so that it does not buffer its output"),
        Option("pty-size", str, "Set the size of the pseudo-terminal; the program formats its output for that size", "", "COLSxROWS"),
        Option("passenv", str, "Pass these variables of the server to programs, separated by commas", "PATH,LD_LIBRARY_PATH", "NAMES"),
        Option(
            "closems",
            UnsignedMilliseconds,
            "Add this time to each step that ends a program (close stdin, INT, TERM, KILL), in milliseconds",
            0,
            "MS",
        ),
        Option(
            "drainms",
            Milliseconds,
            "Wait this long for other processes that hold stdout open after the program exits, in milliseconds",
            2000,
            "MS",
        ),
        Option("no-guard", bool, "Do not start the guard process, which ends leftover programs if wsbridge is killed"),
    ),
    "Access and limits": (
        Option("sameorigin", bool, "Accept only pages of the server's own scheme, host and port"),
        Option("origin", str, "Accept only pages of these origins: [scheme://]host[:port] or *.name, separated by commas", None, "LIST"),
        Option(
            "host",
            str,
            "Also accept this host name, *.name or * in the Host header; repeatable (default: the machine's names)",
            None,
            "NAME",
            repeatable=True,
        ),
        Option(
            "trust-proxy",
            str,
            "Trust X-Forwarded-For, -Proto and -Host from these networks, or from the Unix socket (unix)",
            "",
            "CIDR,…|unix",
        ),
        Option("reverselookup", bool, "Resolve the client's address to a name for REMOTE_HOST"),
        Option(
            "maxforks",
            int,
            "Run at most N programs, sessions and CGI scripts together; answer further requests with 429 (0: no limit)",
            1024,
            "N",
        ),
        Option(
            "busy",
            str,
            "Refuse clients over --maxforks with status 429, or with close code 1013, which a page can see (close)",
            "429",
            "HOW",
        ),
        Option("once", bool, "Serve one session, then exit with the exit status of its program"),
    ),
    "The WebSocket": (
        Option("maxframesize", Size, "Close with 1009 when a message from a client is longer, in bytes (0: no limit)", MEGABYTE, "BYTES"),
        Option(
            "pingms",
            Milliseconds,
            "Ping the client at this interval, in milliseconds; disconnect it after two intervals of silence (0: no pings)",
            25_000,
            "MS",
        ),
        Option("send-timeout", float, "Disconnect a client that accepts no data for this long, in seconds (0: never)", 60.0, "SECONDS"),
        Option("sendbuffer", Size, "Pause the program when this much output waits for its client, in bytes", MEGABYTE // 4, "BYTES"),
        Option("subprotocol", str, "Accept these subprotocols, separated by commas; repeatable", None, "NAMES", repeatable=True),
        Option("compress", bool, "Accept permessage-deflate compression"),
    ),
    "HTTP on the same port": (
        Option("dir", str, "Serve each script below this directory at its path, instead of COMMAND", "", "DIR"),
        Option("staticdir", str, "Serve the files below this directory", "", "DIR"),
        Option("dotfiles", bool, "Serve, list and run files whose names begin with a dot as well (/.well-known/ is always served)"),
        Option("cgidir", str, "Run the CGI scripts below this directory", "", "DIR"),
        Option(
            "maxbody", Size, "Answer 413 when a chunked body for a CGI script is longer, in bytes (0: no limit)", 64 * MEGABYTE, "BYTES"
        ),
        Option(
            "body-timeout",
            float,
            "Answer 408 when a client sends nothing of its body for this long, in seconds (0: never)",
            60.0,
            "SECONDS",
        ),
        Option(
            "keepalive-timeout", float, "Close a connection that sends no request for this long, in seconds (0: never)", 75.0, "SECONDS"
        ),
        Option("devconsole", bool, "Serve a page to try the program, at every path where nothing else is served"),
        Option("no-page", bool, "Do not serve wsbridge's own pages; serve scripts and files only"),
        Option("header", str, "Add this header, 'Name: value', to every response; repeatable", None, "HEADER", repeatable=True),
        Option("header-ws", str, "Add this header to upgrades only; repeatable", None, "HEADER", repeatable=True),
        Option("header-http", str, "Add this header to all other responses only; repeatable", None, "HEADER", repeatable=True),
    ),
    "Log and information": (
        Option("loglevel", str, "Log at this level: debug, trace, access, info, error, fatal or none", "access", "LEVEL"),
        Option("log-format", str, "Write the log as text, or as json: one object a line", "text", "NAME"),
        Option("version", bool, "Print the version and exit"),
        Option("license", bool, "Print the license and exit"),
    ),
}


def _of_the_bridge(
    title: str, *, without: tuple[str, ...] = (), more: tuple[Option, ...] = (), help: Mapping[str, str] = {}
) -> tuple[Option, ...]:
    """Return a group of the bridge's flags, but for some, with what this command says of them and has besides."""
    options = (option for option in BRIDGE_GROUPS[title] if option.name not in without)
    return (*(replace(option, help=help.get(option.name, option.help)) for option in options), *more)


EXCHANGE = Option("exchange", str, "Name the channel; the exchange at the broker has the same name", "", "NAME")
BROKER = Option(
    "broker",
    str,
    "Carry the channel between nodes over RabbitMQ: amqp://user:password@host/vhost, or amqps://; "
    "try several addresses in turn, separated by commas or repeated",
    None,
    "URL",
    repeatable=True,
)
DURABLE = Option("durable", bool, "Declare the exchange as durable: it survives a restart of the broker")
PASSIVE = Option("passive", bool, "Use an existing fanout exchange; do not declare it")
REPLAY = Option(
    "replay", bool, "Keep the channel in a stream at the broker: no confirmed message is lost, and clients can resume on any node"
)
REPLAY_BYTES = Option("replay-bytes", Size, "Keep this much of the channel at the broker, with --replay, in bytes", 256 * MEGABYTE, "BYTES")
BROKER_TIMEOUT = Option("broker-timeout", float, "Reconnect when the broker does not answer for this long, in seconds", 10.0, "SECONDS")
CONFIRM_TIMEOUT = Option(
    "confirm-timeout",
    float,
    "Reconnect when the broker does not confirm a publish for this long, except during an alarm, in seconds (0: never)",
    30.0,
    "SECONDS",
)
FRAMING = Option("framing", str, "Encode messages as lines, chunks, nul, prefixed or json", "lines", "NAME")
MAXLINE = Option("maxline", Size, "Reject a longer message, in bytes (0: no limit)", 16 * MEGABYTE, "BYTES")
REMOTE_URL = Option("url", str, "Connect to a wsbridge server instead of the broker: ws://host:port/, or wss://", "", "URL")

BROADCAST_GROUPS: Groups = {
    "The channel": (
        EXCHANGE,
        Option("through", bool, "Filter: COMMAND reads messages from the exchange, and its output goes to this node's browsers"),
        Option("input", str, "Send messages from browsers to none (close 1003), program (its stdin) or exchange", "none", "WHERE"),
        Option("history", int, "Keep this many messages for clients that join or reconnect", 1000, "N"),
        Option("history-bytes", Size, "Keep at most this much history, in bytes", MEGABYTE, "BYTES"),
        Option("join", str, "Send a browser without a position the history, the last message or none first", "none", "HOW"),
        Option("queue", Size, "Let a browser fall this far behind, in bytes", MEGABYTE, "BYTES"),
        Option("slow", str, "When a browser falls further behind: drop-oldest, latest, or close (1013)", "drop-oldest", "HOW"),
        Option("restart", str, "Restart COMMAND after it exits: always, on-failure or never", "always", "WHEN"),
    ),
    "The broker": (
        BROKER,
        REPLAY,
        REPLAY_BYTES,
        DURABLE,
        PASSIVE,
        Option("spool", Size, "Buffer messages while the broker is away or slow, in bytes", 64 * MEGABYTE, "BYTES"),
        Option(
            "spool-full", str, "When that buffer is full: block (pause the program) or drop-oldest (and count the messages)", "block", "HOW"
        ),
        BROKER_TIMEOUT,
        CONFIRM_TIMEOUT,
    ),
    "Listening": _of_the_bridge("Listening"),
    "The program": _of_the_bridge(
        "The program",
        without=("passstderr",),
        help={
            "maxline": "Restart a program that prints a longer message, in bytes (0: no limit)",
            "passenv": "Pass these variables of the server to CGI scripts, separated by commas",
        },
    ),
    "Access and limits": _of_the_bridge(
        "Access and limits",
        without=("once",),
        more=(Option("maxclients", int, "Accept at most N browsers; answer further requests with 429 (0: no limit)", 0, "N"),),
        help={
            "maxforks": "Run at most N CGI scripts; answer further requests with 429 (0: no limit)",
            "busy": "Refuse clients over --maxclients with status 429, or with close code 1013, which a page can see (close)",
        },
    ),
    "The WebSocket": _of_the_bridge("The WebSocket", without=("sendbuffer",)),
    "HTTP on the same port": _of_the_bridge(
        "HTTP on the same port",
        without=("dir",),
        more=(Option("no-status", bool, "Do not serve /status, which shows viewers, positions, counters and the program's state"),),
    ),
    "Log and information": _of_the_bridge("Log and information"),
}

_THE_REST = (
    Option("loglevel", str, "Report on stderr at this level: info, error (without reconnects) or none", "info", "LEVEL"),
    *_of_the_bridge("Log and information", without=("loglevel", "log-format")),
)

PUBLISH_GROUPS: Groups = {
    "Destination": (EXCHANGE, BROKER, REMOTE_URL, REPLAY, REPLAY_BYTES, DURABLE, PASSIVE, BROKER_TIMEOUT, CONFIRM_TIMEOUT),
    "Messages": (FRAMING, MAXLINE),
    "Log and information": _THE_REST,
}

SUBSCRIBE_GROUPS: Groups = {
    "Source": (EXCHANGE, BROKER, REMOTE_URL, REPLAY, REPLAY_BYTES, DURABLE, PASSIVE, BROKER_TIMEOUT),
    "Messages": (
        FRAMING,
        MAXLINE,
        Option("n", int, "Exit with status 0 after this many messages (0: never)", 0, "N"),
        Option("since", str, "Start after this position; requires --url or --replay", "", "POSITION"),
        Option("show-position", bool, "Print each message's position and a space before it; --since accepts such a position"),
    ),
    "Log and information": _THE_REST,
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
    "Send the output of one program to any number of browsers, on any number of nodes.",
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
