"""Every flag, as a table: what click parses, what `--help` shows and what README must name.

Each flag is also a variable: `WSBRIDGE_` and its name in capitals, hyphens as underscores; the value of a repeatable one
holds one value a line. The command line wins over the variable.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsbridge.cli.gostyle import Unsigned

PREFIX = "WSBRIDGE_"
MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Option:
    """One flag. `kind` is bool, int, Unsigned, float or str; `metavar` stands for the value in the help."""

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


GROUPS: dict[str, tuple[Option, ...]] = {
    "Where it listens": (
        Option("port", int, "port of every address; 0 takes a free one (default 80, with --ssl 443)", None, "N"),
        Option("address", str, "address to bind, IPv6 in brackets; repeatable (default: all)", None, "ADDR", repeatable=True),
        Option("unixsocket", str, "also listen on a Unix socket; alone, without TCP", "", "PATH"),
        Option("ssl", bool, "speak TLS; needs --sslcert and --sslkey"),
        Option("sslcert", str, "certificate chain, PEM", "", "FILE"),
        Option("sslkey", str, "private key, PEM", "", "FILE"),
        Option("sslca", str, "ask clients for a certificate of this CA, PEM", "", "FILE"),
        Option("redirport", int, "extra plain HTTP port that redirects to --port", 0, "N"),
    ),
    "What a program is told, and how": (
        Option("framing", str, "how messages lie on stdin and stdout: lines, chunks, nul, prefixed or json", "lines", "NAME"),
        Option("binary", bool, "the same as --framing=chunks"),
        Option("maxline", int, "longest message from the program in bytes; longer: close 1009 (0: any)", 16 * MEGABYTE, "BYTES"),
        Option("passstderr", bool, "send stderr too: each line as JSON that names its stream"),
        Option("pty", bool, "give the program a terminal as stdout, so that it does not hold back its lines"),
        Option("passenv", str, "variables of ours that programs get, separated by commas", "PATH,LD_LIBRARY_PATH", "NAMES"),
        Option("closems", Unsigned, "milliseconds more for each step of ending a program: stdin closed, INT, TERM, KILL", 0, "MS"),
        Option("drainms", int, "milliseconds to wait, after a program exits, for others that hold its stdout open", 2000, "MS"),
        Option("no-guard", bool, "without the small process that ends the programs of a wsbridge that was killed"),
    ),
    "Who may connect, and how many": (
        Option("sameorigin", bool, "only pages of this very host and port"),
        Option("origin", str, "only pages of these origins: [scheme://]host[:port], separated by commas", None, "LIST"),
        Option("trust-proxy", str, "believe X-Forwarded-For, -Proto and -Host from these: networks, or unix", "", "CIDR,…|unix"),
        Option("reverselookup", bool, "look up the names of clients for REMOTE_HOST"),
        Option("maxforks", int, "most programs at once, sessions and CGI together; more get 429 (0: any number)", 1024, "N"),
        Option("busy", str, "how to turn away what is over --maxforks: 429, or close (1013, which a page can see)", "429", "HOW"),
        Option("once", bool, "serve one session and exit with the status of its program"),
    ),
    "The WebSocket": (
        Option("maxframesize", int, "longest message from a client in bytes; longer is closed with 1009 (0: any)", MEGABYTE, "BYTES"),
        Option("pingms", int, "milliseconds between pings; a client silent for two is given up (0: no pings)", 25_000, "MS"),
        Option("send-timeout", float, "seconds after which a client that takes nothing is cut off (0: never)", 60.0, "SECONDS"),
        Option("sendbuffer", int, "bytes that wait for a slow client before its program is held up", MEGABYTE // 4, "BYTES"),
        Option("subprotocol", str, "subprotocols to agree to, separated by commas; repeatable", None, "NAMES", repeatable=True),
        Option("compress", bool, "agree to permessage-deflate"),
    ),
    "HTTP on the same port": (
        Option("dir", str, "serve every script below a directory, by path, instead of COMMAND", "", "DIR"),
        Option("staticdir", str, "serve files", "", "DIR"),
        Option("cgidir", str, "run CGI scripts", "", "DIR"),
        Option("devconsole", bool, "a page to try the program out, wherever nothing else is served"),
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

OPTIONS: tuple[Option, ...] = tuple(option for group in GROUPS.values() for option in group)
