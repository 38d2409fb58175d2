"""What each part is told: one small frozen object a part, each value in its final form.

Nothing here reads a command line or a file; floor 7 makes these objects and server.py hands them out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from wsbridge.hub.channel import Join, Slow
from wsbridge.rules.hosts import Hosts
from wsbridge.rules.origins import Rules
from wsbridge.rules.proxies import Trusted
from wsbridge.rules.restarts import Restart


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """The size of a terminal; 0 stands for a number that is not known."""

    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class ProgramSettings:
    """What is run for each session, and how it is spoken to."""

    argv: tuple[str, ...] = ()
    """The command line, its first word resolved; empty with `--dir`."""
    directory: str | None = None
    """`--dir`: scripts by path."""
    framing: str = "lines"
    max_message_bytes: int = 16 * 1024 * 1024
    close_ms: int = 0
    drain_ms: int = 2000
    pty: TerminalSize | None = None
    """The terminal that stdout is; None: a pipe."""
    pass_stderr: bool = False


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How a connected client is dealt with."""

    max_frame_bytes: int = 1024 * 1024
    ping_ms: int = 25_000
    send_timeout: float = 60.0
    send_buffer_bytes: int = 256 * 1024
    unsent_bytes: int = 0
    """How much may wait in the kernel for its turn on the way, on TCP (0: as much as the kernel likes)."""
    compress: bool = False


@dataclass(frozen=True, slots=True)
class GateSettings:
    """Who may come in, and what a session is told of whoever did."""

    origins: Rules = field(default_factory=Rules)
    hosts: Hosts = field(default_factory=Hosts)
    max_sessions: int = 1024
    busy_close: bool = False
    subprotocols: tuple[str, ...] = ()
    trusted: Trusted = field(default_factory=Trusted)
    reverse_lookup: bool = False
    software: str = "wsbridge"
    passed: dict[str, str] = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()
    """On every answer."""
    headers_ws: tuple[tuple[str, str], ...] = ()
    headers_http: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HttpTimings:
    """How long a client may take with its requests, in seconds."""

    head_seconds: float = 10.0
    """From the first byte of a request's head to its last."""
    keepalive_seconds: float = 75.0
    """Between two requests on one connection (0: any time), as nginx has it."""
    body_seconds: float = 60.0
    """Between two reads of a request's body (0: any time), as nginx has it."""


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """What is served beside the WebSocket."""

    static_directory: str | None = None
    dotfiles: bool = False
    """Whether files are served and listed whose name begins with a dot."""
    cgi_directory: str | None = None
    max_scripts: int | None = None
    """Most CGI scripts at once, 0 for any number; None: they count among the sessions."""
    max_body_bytes: int = 64 * 1024 * 1024
    """The most of one body that is buffered for a CGI script, 0 for any; all together have the space of four."""
    timings: HttpTimings = field(default_factory=HttpTimings)
    page: str = ""
    """What the log calls the page of ours, if there is one."""
    introduces: bool = True
    """Whether browsers get an icon, and where there is no other page one that says what is served and how to reach it."""
    page_everywhere: bool = True
    """Whether it stands wherever nothing else does; else at the root alone, where there is no other index."""
    status: bool = True
    """Whether a channel serves `/status`."""


class Role(StrEnum):
    """What the program of a channel is."""

    PRODUCER = "producer"
    THROUGH = "through"
    """The exchange's consumer: what it prints goes to this node's browsers."""
    NONE = "none"


class Input(StrEnum):
    """What becomes of what browsers send (`--input`)."""

    NONE = "none"
    PROGRAM = "program"
    EXCHANGE = "exchange"


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """The one channel of a broadcast."""

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
    """The RabbitMQ that carries a channel. The URLs have passwords in them: they are never shown."""

    urls: tuple[str, ...]
    """One or more addresses, tried in turn: for example of the nodes of a cluster."""
    replay: bool = False
    replay_bytes: int = 256 * 1024 * 1024
    durable: bool = False
    passive: bool = False
    """The exchange is others': it must be there, and is taken as it is."""
    spool_bytes: int = 64 * 1024 * 1024
    spool_drops: bool = False
    """Whether a full spool drops the oldest instead of holding up whoever publishes."""
    timeout: float = 10.0
    """Seconds without a byte from the broker that an answer of it may take."""
    confirm_timeout: float = 30.0
    """Seconds without progress after which a publish that is not confirmed has failed; 0: never."""


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Files in PEM form, read once at the start."""

    certificate: str
    key: str
    client_ca: str | None = None


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """Where the server is reached. An empty host is every address; port 0 takes a free one."""

    hosts: tuple[str, ...] = ("",)
    port: int | None = 80
    """None: no TCP listener."""
    unix_path: str | None = None
    unix_mode: int = 0o600
    unix_owner: int = -1
    """The numbers of user and group; -1 leaves those of the server."""
    unix_group: int = -1
    tls: TlsSettings | None = None
    redirect_port: int | None = None
    redirect_headers: tuple[tuple[str, str], ...] = ()
    names_urls: bool = True
    """Whether the start names the URLs that work from this machine and from the network."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Everything, for the one who builds the parts."""

    program: ProgramSettings = field(default_factory=ProgramSettings)
    client: ClientSettings = field(default_factory=ClientSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    listen: ListenSettings = field(default_factory=ListenSettings)
    channel: ChannelSettings = field(default_factory=ChannelSettings)
    broker: BrokerSettings | None = None
    guard: bool = True
    once: bool = False
