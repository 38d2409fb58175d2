"""The settings of all parts: one small frozen object per part, each value in its final form.

This module reads no command line and no file. wsbridge.cli makes these objects, and wsbridge.server distributes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from wsbridge.channel.ring import Join, Slow
from wsbridge.rules.forwarded import Trusted
from wsbridge.rules.hosts import Hosts
from wsbridge.rules.origins import Rules
from wsbridge.rules.restarts import Restart


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """The size of a terminal; 0 stands for an unknown number."""

    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class ProgramSettings:
    """The program that the server runs for each session, and the form of its input and output."""

    argv: tuple[str, ...] = ()
    """The command line, with its first word resolved; empty with `--dir`."""
    directory: str | None = None
    """`--dir`: a directory of scripts, which the request path selects."""
    framing: str = "lines"
    max_message_bytes: int = 16 * 1024 * 1024
    close_ms: int = 0
    drain_ms: int = 2000
    pty: TerminalSize | None = None
    """The size of the pseudo-terminal on stdout; None: stdout is a pipe."""
    pass_stderr: bool = False


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How the server treats a connected client."""

    max_frame_bytes: int = 1024 * 1024
    ping_ms: int = 25_000
    send_timeout: float = 60.0
    send_buffer_bytes: int = 256 * 1024
    unsent_bytes: int = 0
    """Bytes that may wait unsent in the kernel, on TCP (0: as many as the kernel allows)."""
    compress: bool = False


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """Which requests an endpoint admits, and the variables and headers that it adds."""

    origins: Rules = field(default_factory=Rules)
    hosts: Hosts = field(default_factory=Hosts)
    max_sessions: int = 1024
    busy_close: bool = False
    subprotocols: tuple[str, ...] = ()
    passed: dict[str, str] = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()
    """Headers of every response."""
    headers_ws: tuple[tuple[str, str], ...] = ()
    headers_http: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HttpTimings:
    """How long a client may spend on its requests, in seconds."""

    head_seconds: float = 10.0
    """From the first byte of a request's head to its last."""
    keepalive_seconds: float = 75.0
    """Between two requests on one connection (0: no limit), as in nginx."""


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """What the server serves besides the WebSocket."""

    static_directory: str | None = None
    dotfiles: bool = False
    """Whether to serve, list and run files whose names begin with a dot."""
    cgi_directory: str | None = None
    max_scripts: int | None = None
    """Maximum number of CGI scripts at once, 0 for no limit; None: they count as sessions."""
    max_body_bytes: int = 64 * 1024 * 1024
    """Bytes of one body that the server buffers for a CGI script, 0 for no limit. All bodies together may occupy four times as much."""
    body_seconds: float = 60.0
    """Between two reads of a request's body (0: no limit), as in nginx."""
    page: str = ""
    """The name of wsbridge's own page in the log; empty without such a page."""
    introduces: bool = True
    """Whether browsers get an icon and, if there is no other page, a page that explains what is served and how to connect."""
    page_everywhere: bool = True
    """Whether `page` is served at every path without other content. Otherwise it is served only at the root, if no index is there."""
    status: bool = True
    """Whether a channel serves `/status`."""


class Role(StrEnum):
    """The role of a channel's program."""

    PRODUCER = "producer"
    THROUGH = "through"
    """The program consumes the exchange, and its output goes to this node's clients."""
    NONE = "none"


class Input(StrEnum):
    """Where the server sends messages from clients (`--input`)."""

    NONE = "none"
    PROGRAM = "program"
    EXCHANGE = "exchange"


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """The single channel of a broadcast."""

    exchange: str = ""
    role: Role = Role.NONE
    input: Input = Input.NONE
    restart: Restart = Restart.ALWAYS
    history: int = 1000
    history_bytes: int = 1024 * 1024
    join: Join = Join.NONE
    queue_bytes: int = 1024 * 1024
    slow: Slow = Slow.DROP_OLDEST


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """The RabbitMQ broker that carries a channel. The URLs contain passwords: wsbridge never shows them."""

    urls: tuple[str, ...]
    """One or more addresses, tried in turn: for example the nodes of a cluster."""
    replay: bool = False
    replay_bytes: int = 256 * 1024 * 1024
    durable: bool = False
    passive: bool = False
    """Use an existing fanout exchange; do not declare it."""
    spool_bytes: int = 64 * 1024 * 1024
    spool_drops: bool = False
    """Whether a full spool drops the oldest messages instead of pausing the publisher."""
    timeout: float = 10.0
    """Seconds without a byte from the broker after which a request to it fails."""
    confirm_timeout: float = 30.0
    """Seconds without progress after which an unconfirmed publish has failed; 0: no limit."""


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """TLS files in PEM form; a listener reads them when it opens, and when it renews its certificate."""

    certificate: str
    key: str
    client_ca: str | None = None


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """The addresses to listen on. An empty host stands for every address; port 0 selects a free port."""

    hosts: tuple[str, ...] = ("",)
    port: int | None = 80
    """None: no TCP listener."""
    unix_path: str | None = None
    unix_mode: int = 0o600
    unix_owner: int = -1
    """The numeric ids of user and group; -1 keeps those of the server."""
    unix_group: int = -1
    inherited: str | None = None
    """The name of listening sockets from the service manager, empty for all of them. The listener then uses only these sockets:
    `hosts`, `port`, `unix_path` and `redirect_port` have no effect."""
    tls: TlsSettings | None = None
    redirect_port: int | None = None
    redirect_headers: tuple[tuple[str, str], ...] = ()
    names_urls: bool = True
    """Whether the start log lists the URLs that work from this machine and from the network."""


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """An endpoint: its place in the site, its kind, and the settings of its parts."""

    kind: str = "bridge"
    path: str = "/"
    hosts: tuple[str, ...] = ()
    """The hosts whose requests it serves; none stands for every host."""
    program: ProgramSettings = field(default_factory=ProgramSettings)
    client: ClientSettings = field(default_factory=ClientSettings)
    access: AccessSettings = field(default_factory=AccessSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    channel: ChannelSettings = field(default_factory=ChannelSettings)
    broker: BrokerSettings | None = None
    target: str = "/"
    """The path of the endpoint that a console connects to."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """All settings of a server, for the code that builds its parts."""

    endpoints: tuple[EndpointSettings, ...] = ()
    listen: ListenSettings = field(default_factory=ListenSettings)
    trusted: Trusted = field(default_factory=Trusted)
    reverse_lookup: bool = False
    software: str = "wsbridge"
    timings: HttpTimings = field(default_factory=HttpTimings)
    max_sessions: int = 0
    """Maximum number of sessions, subscribers and CGI scripts of all endpoints together; 0 for no limit."""
    guard: bool = True
    once: bool = False


@dataclass(frozen=True, slots=True)
class PipeSettings:
    """The settings of `publish` and `subscribe`: either a broker and an exchange, or the URL of a server."""

    exchange: str = ""
    broker: BrokerSettings | None = None
    url: str = ""
    framing: str = "lines"
    max_message_bytes: int = 16 * 1024 * 1024
    count: int = 0
    since: str = ""
    show_position: bool = False
