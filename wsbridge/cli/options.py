"""Every command and flag, as tables: what click parses, what `--help` shows, and what scripts/docs writes into the documentation.

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
    description: str = ""
    """What the documentation says, in Markdown; empty if that is the help."""
    default_shown: str | None = None
    """The default as the documentation shows it, in Markdown; None to derive it from `default`."""

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
        Option(
            "port",
            int,
            "Listen on this port of every address; 0 picks a free port (default 80, with --ssl 443)",
            None,
            "N",
            description="Set the port of every address. 0 selects a free port, and the log names it",
            default_shown="80; 443 with `--ssl`",
        ),
        Option(
            "address",
            str,
            "Listen on this address, IPv6 in brackets; repeatable (default: all addresses)",
            None,
            "ADDR",
            repeatable=True,
            description=("Bind this address; repeatable. IPv6 needs brackets. If wsbridge cannot bind one of the addresses, it exits"),
            default_shown="all, IPv4 and IPv6",
        ),
        Option(
            "unixsocket",
            str,
            "Also listen on a Unix socket; without --port and --address, listen on it alone",
            "",
            "PATH",
            description=(
                "Also listen on a Unix socket. Without `--port`, `--address` and `--redirport`, listen on this socket"
                " alone. wsbridge replaces a socket that has no server; it leaves any other file alone"
            ),
        ),
        Option(
            "unixsocket-mode",
            str,
            "Set the mode of the Unix socket, in octal (default 600, with --unixsocket-group 660)",
            "",
            "MODE",
            description=(
                "Set the mode of the Unix socket, in octal. The umask has no effect. A client needs write permission "
                "to connect: with 600, only the owner of the socket and root have it"
            ),
            default_shown="600; 660 with `--unixsocket-group`",
        ),
        Option(
            "unixsocket-owner",
            str,
            "Set the owner of the Unix socket, by name or number",
            "",
            "USER",
            description="Give the Unix socket to this user, by name or number. Only root can set it",
            default_shown="the server's own",
        ),
        Option(
            "unixsocket-group",
            str,
            "Set the group of the Unix socket, by name or number",
            "",
            "GROUP",
            description=(
                "Give the Unix socket to this group, by name or number. root can set any group; another user can set "
                "a group of which it is a member"
            ),
            default_shown="the server's own",
        ),
        Option(
            "ssl",
            bool,
            "Serve TLS; requires --sslcert and --sslkey",
            description="Serve TLS 1.2 and newer; see [TLS](tls.md). wsbridge needs `--sslcert` and `--sslkey` as well",
        ),
        Option("sslcert", str, "Use this certificate chain (PEM)", "", "FILE", description="Use the certificate chain in this PEM file"),
        Option("sslkey", str, "Use this private key (PEM)", "", "FILE", description="Use the private key in this PEM file"),
        Option(
            "sslca",
            str,
            "Require a client certificate issued by this CA (PEM)",
            "",
            "FILE",
            description="Require a client certificate of this CA; see [TLS](tls.md)",
        ),
        Option(
            "redirport",
            int,
            "Redirect plain HTTP requests on this port to --port",
            0,
            "N",
            description=(
                "Listen on an extra port for plain HTTP. wsbridge answers each request there with 301 to the same path on `--port`"
            ),
            default_shown="off",
        ),
    ),
    "The program": (
        Option(
            "framing",
            str,
            "Encode messages on stdin and stdout as lines, chunks, nul, prefixed or json",
            "lines",
            "NAME",
            description=(
                "Select the encoding of messages on stdin and stdout: `lines`, `chunks`, `nul`, `prefixed`, `json`; "
                "see [framings](framings.md)"
            ),
        ),
        Option("binary", bool, "Same as --framing=chunks", description="The same as `--framing=chunks`"),
        Option(
            "maxline",
            Size,
            "Close with 1009 when a message from the program is longer, in bytes (0: no limit)",
            16 * MEGABYTE,
            "BYTES",
            description=(
                "Limit a message from the program (0: no limit). A longer message ends the session with 1009 and cannot exhaust memory"
            ),
        ),
        Option(
            "passstderr",
            bool,
            "Send stderr to the client as well: each line as JSON that names its stream",
            description=(
                'Send stderr to the client too. Each line of either stream becomes `{"stream":"stdout","data":"…"}` '
                'or `{"stream":"stderr","data":"…"}`. wsbridge still logs stderr'
            ),
        ),
        Option(
            "pty",
            bool,
            "Connect the program's stdout to a pseudo-terminal, so that it does not buffer its output",
            description=(
                "Give the program a raw pseudo-terminal as stdout. stdin stays a pipe, and the pseudo-terminal is no "
                "process's controlling terminal. Programs print the same as on a pipe, [with "
                "exceptions](../README.md#output-that-comes-late)"
            ),
        ),
        Option(
            "pty-size",
            str,
            "Set the size of the pseudo-terminal; the program formats its output for that size",
            "",
            "COLSxROWS",
            description=(
                "With `--pty`, set the size of the pseudo-terminal, such as `132x43`. The program then prints for a terminal of that size"
            ),
        ),
        Option(
            "passenv",
            str,
            "Pass these variables of the server to programs, separated by commas",
            "PATH,LD_LIBRARY_PATH",
            "NAMES",
            description=(
                "Pass these variables of the server to programs, instead of the default variables; see [the "
                "environment of a program](environment.md)"
            ),
        ),
        Option(
            "closems",
            UnsignedMilliseconds,
            "Add this time to each step that ends a program (close stdin, INT, TERM, KILL), in milliseconds",
            0,
            "MS",
            description="Add this time to each step of [the ladder](sessions.md#the-ladder)",
            default_shown="0",
        ),
        Option(
            "drainms",
            Milliseconds,
            "Wait this long for other processes that hold stdout open after the program exits, in milliseconds",
            2000,
            "MS",
            description=("After the exit of a program or CGI script, wait this long for its other processes that hold its stdout open"),
        ),
        Option(
            "no-guard",
            bool,
            "Do not start the guard process, which ends leftover programs if wsbridge is killed",
            description=("Do not start [the guard](sessions.md#the-guard) (it ends leftover programs if wsbridge is killed)"),
        ),
    ),
    "Access and limits": (
        Option(
            "sameorigin",
            bool,
            "Accept only pages of the server's own scheme, host and port",
            description=(
                "Admit only pages with the scheme, host and port of this server. Refuse clients without an Origin. "
                "Also check [the Host header](hosts-and-origins.md) on every address"
            ),
        ),
        Option(
            "origin",
            str,
            "Accept only pages of these origins: [scheme://]host[:port] or *.name, separated by commas",
            None,
            "LIST",
            description=(
                "Admit only pages of these [origins](hosts-and-origins.md): `[scheme://]host[:port]` or `*.name`, "
                "separated by commas. With `--sameorigin`, a page must pass both checks"
            ),
            default_shown="any",
        ),
        Option(
            "host",
            str,
            "Also accept this host name, *.name or * in the Host header; repeatable (default: the machine's names)",
            None,
            "NAME",
            repeatable=True,
            description="Also answer requests for this [host name](hosts-and-origins.md), `*.name` or `*`; repeatable",
            default_shown="the machine's own",
        ),
        Option(
            "trust-proxy",
            str,
            "Trust X-Forwarded-For, -Proto and -Host from these networks, or from the Unix socket (unix)",
            "",
            "CIDR,…|unix",
            description=(
                "Trust `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host` only from these networks "
                "(`10.0.0.0/8,::1`) and, with `unix`, from every client of the Unix socket. [The proxy](proxy.md) "
                "must set all three headers, or remove those that its client sent. wsbridge drops the scope of an "
                "IPv6 address. It treats a port outside 1 to 65535 as unknown"
            ),
            default_shown="none",
        ),
        Option(
            "reverselookup",
            bool,
            "Resolve the client's address to a name for REMOTE_HOST",
            description=(
                "Set `REMOTE_HOST`, and `remote` in the log, to the client's name if a lookup finds it within 2 s. "
                "wsbridge makes at most 16 lookups at once, one for each address"
            ),
        ),
        Option(
            "maxforks",
            int,
            "Run at most N programs, sessions and CGI scripts together; answer further requests with 429 (0: no limit)",
            1024,
            "N",
            description=(
                "Limit the programs that run at once, sessions and CGI scripts together (0: no limit). Further "
                "requests get 429. A slot becomes free when its program is gone"
            ),
        ),
        Option(
            "busy",
            str,
            "Refuse clients over --maxforks with status 429, or with close code 1013, which a page can see (close)",
            "429",
            "HOW",
            description=(
                "Select how wsbridge refuses a client without a free slot: `429`, or `close`, which upgrades the "
                "connection and closes it with 1013. A page can read a close code, but not an HTTP status"
            ),
        ),
        Option(
            "once",
            bool,
            "Serve one session, then exit with the exit status of its program",
            description="Serve one session, then exit with the status of its program. wsbridge admits no second client",
        ),
    ),
    "The WebSocket": (
        Option(
            "maxframesize",
            Size,
            "Close with 1009 when a message from a client is longer, in bytes (0: no limit)",
            MEGABYTE,
            "BYTES",
            description=(
                "Limit a message from a client, all its fragments together (0: no limit). A longer message closes the session with 1009"
            ),
        ),
        Option(
            "pingms",
            Milliseconds,
            "Ping the client at this interval, in milliseconds; disconnect it after two intervals of silence (0: no pings)",
            25_000,
            "MS",
            description=(
                "Set the time between pings. wsbridge drops a client that sends no frame for two intervals; every "
                "kind of frame counts. The deadline does not run while the program reads nothing from this client (0:"
                " no pings; the kernel's TCP keepalive detects a lost client after 150 s)"
            ),
        ),
        Option(
            "send-timeout",
            float,
            "Disconnect a client that accepts no data for this long, in seconds (0: never)",
            60.0,
            "SECONDS",
            description=("Set the write timeout: drop a client that accepts none of its pending data for this long (0: never)"),
        ),
        Option(
            "sendbuffer",
            Size,
            "Pause the program when this much output waits for its client, in bytes",
            MEGABYTE // 4,
            "BYTES",
            description=("Set the size of the send buffer of a client. When it is full, wsbridge stops reading from the program"),
        ),
        Option(
            "subprotocol",
            str,
            "Accept these subprotocols, separated by commas; repeatable",
            None,
            "NAMES",
            repeatable=True,
            description=(
                "Accept these subprotocols; repeatable. wsbridge selects the first subprotocol on the client's list that it accepts"
            ),
        ),
        Option(
            "compress",
            bool,
            "Accept permessage-deflate compression",
            description="Accept permessage-deflate. It uses 42 KiB more memory a session",
        ),
    ),
    "HTTP on the same port": (
        Option(
            "dir",
            str,
            "Serve each script below this directory at its path, instead of COMMAND",
            "",
            "DIR",
            description="Serve every script below DIR, by path, instead of COMMAND",
        ),
        Option("staticdir", str, "Serve the files below this directory", "", "DIR", description="Serve the files in DIR"),
        Option(
            "dotfiles",
            bool,
            "Serve, list and run files whose names begin with a dot as well (/.well-known/ is always served)",
            description="Also serve, list and run files whose name begins with a dot",
        ),
        Option("cgidir", str, "Run the CGI scripts below this directory", "", "DIR", description="Run the CGI scripts in DIR"),
        Option(
            "maxbody",
            Size,
            "Answer 413 when a chunked body for a CGI script is longer, in bytes (0: no limit)",
            64 * MEGABYTE,
            "BYTES",
            description=(
                "Limit the chunked body of a request to a CGI script (0: no limit). A longer body gets 413. All "
                "bodies together may use four times this size on the disk (`TMPDIR`); when that space is full, a "
                "request gets 503"
            ),
        ),
        Option(
            "body-timeout",
            float,
            "Answer 408 when a client sends nothing of its body for this long, in seconds (0: never)",
            60.0,
            "SECONDS",
            description="Answer with 408 when a client sends nothing of its request body for this long (0: never)",
        ),
        Option(
            "keepalive-timeout",
            float,
            "Close a connection that sends no request for this long, in seconds (0: never)",
            75.0,
            "SECONDS",
            description="Close a connection that waits this long for its next request (0: never)",
        ),
        Option(
            "devconsole",
            bool,
            "Serve a page to try the program, at every path where nothing else is served",
            description=(
                "Serve the console at every path where wsbridge serves nothing else. With `--staticdir`, that is any "
                "path without a file, such as `/console`"
            ),
        ),
        Option(
            "no-page",
            bool,
            "Do not serve wsbridge's own pages; serve scripts and files only",
            description=(
                "Do not serve wsbridge's own pages: the page of a channel, and the page that describes the server. "
                "wsbridge still serves scripts and files"
            ),
        ),
        Option(
            "header",
            str,
            "Add this header, 'Name: value', to every response; repeatable",
            None,
            "HEADER",
            repeatable=True,
            description=(
                "Add a header to every response; repeatable. wsbridge rejects headers that control the transfer of a "
                "response, such as `Content-Length` or `Connection`"
            ),
        ),
        Option(
            "header-ws",
            str,
            "Add this header to upgrades only; repeatable",
            None,
            "HEADER",
            repeatable=True,
            description="Add a header to upgrades only; repeatable",
        ),
        Option(
            "header-http",
            str,
            "Add this header to all other responses only; repeatable",
            None,
            "HEADER",
            repeatable=True,
            description="Add a header to all responses except upgrades; repeatable",
        ),
    ),
    "Log and information": (
        Option(
            "loglevel",
            str,
            "Log at this level: debug, trace, access, info, error, fatal or none",
            "access",
            "LEVEL",
            description=("Select the level of [the log](log.md): `debug`, `trace`, `access`, `info`, `error`, `fatal`, `none`"),
        ),
        Option(
            "log-format",
            str,
            "Write the log as text, or as json: one object a line",
            "text",
            "NAME",
            description="Select the format of the log: `text`, or `json` with one object a line",
        ),
        Option("version", bool, "Print the version and exit", description="Print the version, and exit", default_shown=""),
        Option("license", bool, "Print the license and exit", description="Print the license, and exit", default_shown=""),
    ),
}


def _of_the_bridge(
    title: str, *, without: tuple[str, ...] = (), more: tuple[Option, ...] = (), help: Mapping[str, str] = {}
) -> tuple[Option, ...]:
    """Return a group of the bridge's flags, but for some, with what this command says of them and has besides."""
    options = (option for option in BRIDGE_GROUPS[title] if option.name not in without)
    return (*(replace(option, help=help.get(option.name, option.help)) for option in options), *more)


EXCHANGE = Option(
    "exchange",
    str,
    "Name the channel; the exchange at the broker has the same name",
    "",
    "NAME",
    description=(
        "Name the channel, and the exchange at the broker. With a broker, NAME has at most 127 characters: "
        "letters (A-Z, a-z), digits, space and `-_.:@#,/+`"
    ),
)
BROKER = Option(
    "broker",
    str,
    "Carry the channel between nodes over RabbitMQ: amqp://user:password@host/vhost, or amqps://; "
    "try several addresses in turn, separated by commas or repeated",
    None,
    "URL",
    repeatable=True,
    description=(
        "Carry the channel through RabbitMQ: `amqp://user:password@host:port/vhost`, or `amqps://`. Separate "
        "[several addresses](broker.md#several-addresses) by commas, or repeat the flag"
    ),
)
DURABLE = Option(
    "durable", bool, "Declare the exchange as durable: it survives a restart of the broker", description="Declare the exchange durable"
)
PASSIVE = Option(
    "passive",
    bool,
    "Use an existing fanout exchange; do not declare it",
    description=(
        "Use an existing exchange; do not declare it. wsbridge "
        "[refuses](broker.md#permissions-with---passive) an exchange of a type that routes by key (topic, "
        "direct, headers)"
    ),
)
REPLAY = Option(
    "replay",
    bool,
    "Keep the channel in a stream at the broker: no confirmed message is lost, and clients can resume on any node",
    description="Keep the channel in a stream of the broker",
)
REPLAY_BYTES = Option(
    "replay-bytes",
    Size,
    "Keep this much of the channel at the broker, with --replay, in bytes",
    256 * MEGABYTE,
    "BYTES",
    description="Limit this stream to BYTES",
)
BROKER_TIMEOUT = Option(
    "broker-timeout",
    float,
    "Reconnect when the broker does not answer for this long, in seconds",
    10.0,
    "SECONDS",
    description="Reconnect when the broker does not answer for this long; also the connect timeout",
)
CONFIRM_TIMEOUT = Option(
    "confirm-timeout",
    float,
    "Reconnect when the broker does not confirm a publish for this long, except during an alarm, in seconds (0: never)",
    30.0,
    "SECONDS",
    description=(
        "Reconnect when the broker does not confirm a publish for this long; the time of a broker's alarm does not count (0: never)"
    ),
)
FRAMING = Option(
    "framing",
    str,
    "Encode messages as lines, chunks, nul, prefixed or json",
    "lines",
    "NAME",
    description=(
        "Select the encoding of messages on stdin and stdout: `lines`, `chunks`, `nul`, `prefixed`, `json`; see [framings](framings.md)"
    ),
)
MAXLINE = Option(
    "maxline",
    Size,
    "Reject a longer message, in bytes (0: no limit)",
    16 * MEGABYTE,
    "BYTES",
    description=("Limit a message from the program (0: no limit). A longer message ends the session with 1009 and cannot exhaust memory"),
)
REMOTE_URL = Option(
    "url",
    str,
    "Connect to a wsbridge server instead of the broker: ws://host:port/, or wss://",
    "",
    "URL",
    description=(
        "Use a wsbridge server instead of the broker: `ws://` or `wss://`. The variable `SSL_CERT_FILE` names"
        " a private CA. wsbridge follows redirects, but not from TLS to plain text"
    ),
)

BROADCAST_GROUPS: Groups = {
    "The channel": (
        EXCHANGE,
        Option(
            "through",
            bool,
            "Filter: COMMAND reads messages from the exchange, and its output goes to this node's browsers",
            description=(
                "Make COMMAND the consumer of the exchange; see [a program that consumes the "
                "exchange](#a-program-that-consumes-the-exchange)"
            ),
        ),
        Option(
            "input",
            str,
            "Send messages from browsers to none (close 1003), program (its stdin) or exchange",
            "none",
            "WHERE",
            description=(
                "Select where messages from clients go: `none` (close the client with 1003), `program` (to COMMAND's "
                "stdin), `exchange` (publish them)"
            ),
        ),
        Option(
            "history",
            int,
            "Keep this many messages for clients that join or reconnect",
            1000,
            "N",
            description="Keep at most N messages for clients that join or reconnect",
        ),
        Option(
            "history-bytes",
            Size,
            "Keep at most this much history, in bytes",
            MEGABYTE,
            "BYTES",
            description="Limit these messages to BYTES",
        ),
        Option(
            "join",
            str,
            "Send a browser without a position the history, the last message or none first",
            "none",
            "HOW",
            description=(
                "Select what a client without a position receives first: `history` (the kept messages), `last` (the "
                "last message), `none` (only new messages)"
            ),
        ),
        Option(
            "queue",
            Size,
            "Let a browser fall this far behind, in bytes",
            MEGABYTE,
            "BYTES",
            description="Set how many bytes a client may fall behind",
        ),
        Option(
            "slow",
            str,
            "When a browser falls further behind: drop-oldest, latest, or close (1013)",
            "drop-oldest",
            "HOW",
            description=(
                "Select what to do with a client that falls further behind: `drop-oldest` (continue with the newest "
                "`--queue` bytes), `latest` (continue with the next new message), `close` (close it with 1013; it can"
                " reconnect)"
            ),
        ),
        Option(
            "restart",
            str,
            "Restart COMMAND after it exits: always, on-failure or never",
            "always",
            "WHEN",
            description=("Select when the supervisor restarts COMMAND after COMMAND has ended: `always`, `on-failure`, `never`"),
        ),
    ),
    "The broker": (
        BROKER,
        REPLAY,
        REPLAY_BYTES,
        DURABLE,
        PASSIVE,
        Option(
            "spool",
            Size,
            "Buffer messages while the broker is away or slow, in bytes",
            64 * MEGABYTE,
            "BYTES",
            description="Limit the bytes that wait for an unreachable or slow broker",
        ),
        Option(
            "spool-full",
            str,
            "When that buffer is full: block (pause the program) or drop-oldest (and count the messages)",
            "block",
            "HOW",
            description=(
                "Select what to do when the spool is full: `block` (pause the publishers of this node, and so the "
                "program) or `drop-oldest` (drop the oldest messages, count them, and report them as lost)"
            ),
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
        more=(
            Option(
                "maxclients",
                int,
                "Accept at most N browsers; answer further requests with 429 (0: no limit)",
                0,
                "N",
                description=(
                    "Limit the number of simultaneous clients (0: limited only by the number of open files); see [the "
                    "client limit](#the-client-limit)"
                ),
                default_shown="0",
            ),
        ),
        help={
            "maxforks": "Run at most N CGI scripts; answer further requests with 429 (0: no limit)",
            "busy": "Refuse clients over --maxclients with status 429, or with close code 1013, which a page can see (close)",
        },
    ),
    "The WebSocket": _of_the_bridge("The WebSocket", without=("sendbuffer",)),
    "HTTP on the same port": _of_the_bridge(
        "HTTP on the same port",
        without=("dir",),
        more=(
            Option(
                "no-status",
                bool,
                "Do not serve /status, which shows viewers, positions, counters and the program's state",
                description="Do not serve [`/status`](wsbridge-js.md#channel-status); the channel page works without it",
            ),
        ),
    ),
    "Log and information": _of_the_bridge("Log and information"),
}

_THE_REST = (
    Option(
        "loglevel",
        str,
        "Report on stderr at this level: info, error (without reconnects) or none",
        "info",
        "LEVEL",
        description="Select the level of the log on stderr: `info`, `error` (without reconnects) or `none`",
    ),
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
        Option(
            "n",
            int,
            "Exit with status 0 after this many messages (0: never)",
            0,
            "N",
            description="Exit with 0 after N messages; `-n N` is the same",
            default_shown="0: never",
        ),
        Option(
            "since",
            str,
            "Start after this position; requires --url or --replay",
            "",
            "POSITION",
            description=("Continue after a position; with `--broker` it needs `--replay`. `0-0` is the beginning of a stream"),
        ),
        Option(
            "show-position",
            bool,
            "Print each message's position and a space before it; --since accepts such a position",
            description="Print the position and a space before each message; with `--broker` it needs `--replay`",
        ),
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
