"""Turns parsed flags into settings, and checks that they fit together before wsbridge opens anything."""

from __future__ import annotations

import grp
import os
import pwd
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

from wsbridge import __version__
from wsbridge.channel.position import parse_position
from wsbridge.channel.ring import Join, Slow
from wsbridge.cli.hints import hint_for_address, hint_for_command
from wsbridge.cli.options import BRIDGE, BROADCAST, SUBSCRIBE, Command
from wsbridge.errors import ConfigurationError, reason_of
from wsbridge.framing import FRAMINGS
from wsbridge.logs import LEVELS
from wsbridge.process.spawn import find_program
from wsbridge.process.terminal import PLAIN
from wsbridge.rules.cgi import HOP_BY_HOP
from wsbridge.rules.environ import passed_on
from wsbridge.rules.forwarded import parse_trusted
from wsbridge.rules.hosts import Hosts, own_names, parse_hosts
from wsbridge.rules.origins import Rules, parse_allowed
from wsbridge.rules.restarts import Restart
from wsbridge.settings import (
    AccessSettings,
    BrokerSettings,
    ChannelSettings,
    ClientSettings,
    EndpointSettings,
    HttpSettings,
    HttpTimings,
    Input,
    ListenSettings,
    PipeSettings,
    ProgramSettings,
    Role,
    ServerSettings,
    TerminalSize,
    TlsSettings,
)

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""Characters that the value of a header must not contain (RFC 9110, section 5.5)."""
FRAMING_HEADERS = HOP_BY_HOP | {"content-length", "sec-websocket-accept"}
"""Headers that determine where a response ends or how its connection continues: a second one makes the response ambiguous."""
EXCHANGE_NAME = re.compile(r"[A-Za-z0-9 _.:@#,/+-]{1,127}\Z")
"""Exchange names that pamqp, the AMQP codec, accepts. For queue names it accepts more, hence the prefix `wsbridge.` there."""
BETWEEN_ADDRESSES = re.compile(r"\s*,\s*(?=[a-z]+://|,|$)", re.IGNORECASE)
"""Matches between two addresses. A comma elsewhere belongs to a user, a password or a virtual host."""
BROKER_PARAMETERS = ("heartbeat", "cafile", "certfile", "keyfile")
"""Parameters that the query of a broker's URL may have."""
Number = TypeVar("Number", int, float)
OCTAL = re.compile(r"(0o?)?[0-7]{3}\Z")
LAST_ID = 2**32 - 2
"""The highest number of a user or group: for chown(2), the next number means no change."""
HOSTS_FILE_CHARACTERS = 64 * 1024
LOG_FORMATS = ("text", "json")
UNSENT_BYTES = 64 * 1024
"""Bytes that may wait in the kernel for one subscriber. Data in the channel can still be dropped, and is stored once for all
subscribers."""

SPOOL_BYTES = 8 * 1024 * 1024
"""Bytes that `publish` has read and the broker has not confirmed: twice the volume that is under way at once."""


def make_settings(flags: SimpleNamespace, environ: Mapping[str, str], *, name: str, shape: Command = BRIDGE) -> ServerSettings:
    """Return the settings of a server. Raises ConfigurationError, which names the flags and the remedy."""
    if shape is BROADCAST:
        return _broadcast(flags, environ, name)
    if flags.command and flags.dir:
        raise ConfigurationError("ambiguous: provided COMMAND and --dir argument; use only one of them")
    if not (flags.command or flags.dir or flags.staticdir or flags.cgidir):
        raise ConfigurationError("nothing to serve: specify COMMAND or provide --dir, --staticdir or --cgidir")
    if flags.once and not (flags.command or flags.dir):
        raise ConfigurationError("--once needs COMMAND or --dir")
    return _server(flags, environ, name)


def _broadcast(flags: SimpleNamespace, environ: Mapping[str, str], name: str) -> ServerSettings:
    """Return the settings of a broadcast: those of a bridge, with a channel."""
    flags = _split_addresses(flags)
    channel = _channel(flags)
    of_the_bridge = {option.attribute: option.default for option in BRIDGE.options}
    merged = {**of_the_bridge, **vars(flags), "sendbuffer": 0}
    settings = _server(SimpleNamespace(**merged), environ, name)
    (bridge,) = settings.endpoints
    broadcast = replace(
        bridge,
        kind="broadcast",
        channel=channel,
        broker=broker_settings(flags, spool=_not_negative("spool", flags.spool), spool_full=flags.spool_full),
        client=replace(bridge.client, unsent_bytes=UNSENT_BYTES),
        access=replace(bridge.access, max_sessions=_not_negative("maxclients", flags.maxclients)),
        http=replace(
            bridge.http,
            max_scripts=flags.maxforks,
            page="" if flags.no_page else "Live channel",
            page_everywhere=flags.devconsole,
            status=not flags.no_status,
        ),
    )
    return replace(settings, endpoints=(broadcast,))


def _channel(flags: SimpleNamespace) -> ChannelSettings:
    for flag, choices in (("input", Input), ("join", Join), ("slow", Slow), ("restart", Restart)):
        _one_of(flag, getattr(flags, flag), tuple(choice.value for choice in choices))
    check_exchange(flags.exchange, at_broker=bool(flags.broker))
    if flags.through and not flags.command:
        raise ConfigurationError("--through needs COMMAND, the program that reads the messages from the exchange")
    if flags.through and not flags.broker and flags.input != Input.EXCHANGE:
        raise ConfigurationError("no messages would reach COMMAND: with --through, add --broker or --input=exchange")
    if flags.input == Input.PROGRAM and not flags.command:
        raise ConfigurationError("--input=program needs COMMAND")
    if flags.input == Input.PROGRAM and flags.through:
        raise ConfigurationError("--input=program and --through cannot be used together; use --input=exchange instead")
    if not flags.command:
        _check_needless(flags, ("restart", "pty", "pty-size", "framing", "binary"), "COMMAND")
    if not flags.command and not flags.broker and flags.input != Input.EXCHANGE:
        raise ConfigurationError("the channel has no source of messages: specify COMMAND, --broker or --input=exchange")
    role = Role.THROUGH if flags.through else Role.PRODUCER if flags.command else Role.NONE
    return ChannelSettings(
        exchange=flags.exchange,
        role=role,
        input=Input(flags.input),
        restart=Restart(flags.restart),
        history=_not_negative("history", flags.history),
        history_bytes=_not_negative("history-bytes", flags.history_bytes),
        join=Join(flags.join),
        queue_bytes=_not_negative("queue", flags.queue),
        slow=Slow(flags.slow),
    )


def make_pipe_settings(flags: SimpleNamespace, shape: Command) -> PipeSettings:
    """Return the settings of `publish` or `subscribe`. Raises ConfigurationError."""
    if flags.command:
        stream = "prints to stdout" if shape is SUBSCRIBE else "reads stdin"
        raise ConfigurationError(f"{shape.name} {stream} and accepts no COMMAND; remove {flags.command[0]!r}")
    _one_of("loglevel", flags.loglevel, tuple(LEVELS))
    _one_of("framing", flags.framing, FRAMINGS)
    flags = _one_source(_split_addresses(flags))
    if not flags.url:
        if not flags.broker:
            raise ConfigurationError(
                "no channel specified: use --broker and --exchange, or use --url with the URL of a wsbridge server:"
                " without a broker, a channel exists only in its server"
            )
        check_exchange(flags.exchange, at_broker=True)
    else:
        _check_url("url", flags.url, ("ws", "wss"), "not a WebSocket URL; write ws://host:port/ or wss://host:port/")
    settings = PipeSettings(
        exchange=flags.exchange,
        broker=broker_settings(flags, spool=SPOOL_BYTES),
        url=flags.url,
        framing=flags.framing,
        max_message_bytes=_not_negative("maxline", flags.maxline),
    )
    if shape is not SUBSCRIBE:
        return settings
    for flag, value in (("since", flags.since), ("show-position", flags.show_position)):
        if value and settings.broker is not None and not settings.broker.replay:
            raise ConfigurationError(f"--{flag} needs --replay or --url: without --replay, the broker stores no messages")
    if flags.since and parse_position(flags.since) is None:
        raise ConfigurationError(f"--since={flags.since} is not a position; use a position that --show-position prints")
    return replace(settings, count=_not_negative("n", flags.n), since=flags.since, show_position=flags.show_position)


def _one_source(flags: SimpleNamespace) -> SimpleNamespace:
    """Return the flags with either a URL or a broker.

    A flag on the command line for one of the two overrides a variable for the other. Raises ConfigurationError if both are
    equally explicit.
    """
    said = flags.said
    of_the_broker = ("broker", "exchange", "replay", "durable", "passive")
    if not flags.url or (flags.broker and "broker" in said and "url" not in said):
        return SimpleNamespace(**{**vars(flags), "url": ""})
    if flags.broker and ("broker" in said) == ("url" in said):
        raise ConfigurationError("--url and --broker cannot be used together; give one of them")
    for flag in of_the_broker:
        if flag in said:
            raise ConfigurationError(f"--{flag} cannot be used with --url: the server configures its channel itself; remove --{flag}")
    return SimpleNamespace(**{**vars(flags), **dict.fromkeys(of_the_broker, ""), "broker": ()})


def check_exchange(name: str, *, at_broker: bool) -> None:
    """Check the name of an exchange. Raises ConfigurationError for a name that AMQP 0-9-1 forbids or RabbitMQ reserves."""
    if not name:
        raise ConfigurationError("--exchange is missing: add --exchange=NAME, the name of the channel")
    if at_broker and not EXCHANGE_NAME.match(name):
        wrong = next((character for character in name if not EXCHANGE_NAME.match(character)), "")
        what = f"it contains {wrong!r}" if wrong else f"it has {len(name)} characters"
        allowed = "write at most 127 of A-Z, a-z, 0-9, space and - _ . : @ # , / +"
        raise ConfigurationError(f"--exchange is not a valid name for a broker: {what}; {allowed}")
    if len(name.encode()) > 255:
        raise ConfigurationError("--exchange is longer than 255 bytes")
    if name.startswith("amq."):
        raise ConfigurationError(f"--exchange={name}: RabbitMQ reserves the names that begin with amq.; use another name")


def broker_settings(flags: SimpleNamespace, *, spool: int = 64 * 1024 * 1024, spool_full: str = "block") -> BrokerSettings | None:
    """Return the settings of the broker, or None without a broker. Raises ConfigurationError."""
    _one_of("spool-full", spool_full, ("block", "drop-oldest"))
    if not flags.broker:
        for flag in ("replay", "durable", "passive"):
            if getattr(flags, flag):
                raise ConfigurationError(f"--{flag} needs --broker")
        _check_needless(flags, ("spool", "spool-full", "replay-bytes", "broker-timeout", "confirm-timeout"), "--broker")
        return None
    if not flags.replay:
        _check_needless(flags, ("replay-bytes",), "--replay")
    if flags.durable and flags.passive and flags.said >= {"durable", "passive"}:
        raise ConfigurationError("--durable and --passive cannot be used together: --passive does not declare the exchange")
    _check_addresses(flags.broker)
    return BrokerSettings(
        urls=flags.broker,
        replay=flags.replay,
        replay_bytes=_positive("replay-bytes", flags.replay_bytes),
        durable=flags.durable,
        passive=flags.passive,
        spool_bytes=spool,
        spool_drops=spool_full == "drop-oldest",
        timeout=_positive("broker-timeout", flags.broker_timeout),
        # `subscribe` publishes nothing and has no such flag.
        confirm_timeout=_not_negative("confirm-timeout", getattr(flags, "confirm_timeout", 0.0)),
    )


def _split_addresses(flags: SimpleNamespace) -> SimpleNamespace:
    """Return the flags with each address of `--broker` as a separate item, without duplicates."""
    urls = dict.fromkeys(url for value in flags.broker for url in BETWEEN_ADDRESSES.split(value.strip()) if url)
    return SimpleNamespace(**{**vars(flags), "broker": tuple(urls)})


def _check_addresses(urls: tuple[str, ...]) -> None:
    """Check the addresses of the broker. Raises ConfigurationError, which gives the number of the address, not the address."""
    for number, url in enumerate(urls, 1):
        name = f"broker (address {number} of {len(urls)})" if len(urls) > 1 else "broker"
        _check_url(name, url, ("amqp", "amqps"), "not a broker URL; write amqp://user:password@host:port/vhost, or amqps://")
        _check_broker_query(name, url)


def _server(flags: SimpleNamespace, environ: Mapping[str, str], name: str) -> ServerSettings:
    _one_of("loglevel", flags.loglevel, tuple(LEVELS))
    _one_of("log-format", flags.log_format, LOG_FORMATS)
    if flags.no_page and flags.devconsole:
        raise ConfigurationError("--devconsole serves a page, and --no-page turns all pages off; use only one of them")
    endpoint = EndpointSettings(
        kind="bridge" if flags.command or flags.dir else "files" if flags.staticdir else "cgi",
        program=_program(flags, environ),
        client=ClientSettings(
            max_frame_bytes=max(0, flags.maxframesize),
            ping_ms=_not_negative("pingms", flags.pingms),
            send_timeout=_not_negative("send-timeout", flags.send_timeout),
            send_buffer_bytes=_not_negative("sendbuffer", flags.sendbuffer),
            compress=flags.compress,
        ),
        access=_access(flags, environ),
        http=HttpSettings(
            static_directory=_directory("staticdir", flags.staticdir),
            dotfiles=flags.dotfiles,
            cgi_directory=_directory("cgidir", flags.cgidir),
            max_body_bytes=_not_negative("maxbody", flags.maxbody),
            body_seconds=_not_negative("body-timeout", flags.body_timeout),
            page="Developer console" if flags.devconsole else "",
            introduces=not flags.no_page and name != "websocketd",
        ),
    )
    return ServerSettings(
        endpoints=(endpoint,),
        trusted=parse_trusted(flags.trust_proxy),
        reverse_lookup=flags.reverselookup,
        software=f"{name}/{__version__}",
        timings=HttpTimings(keepalive_seconds=_not_negative("keepalive-timeout", flags.keepalive_timeout)),
        listen=replace(_listen(flags), names_urls=name != "websocketd"),
        guard=not flags.no_guard,
        once=flags.once,
    )


def _program(flags: SimpleNamespace, environ: Mapping[str, str]) -> ProgramSettings:
    framing = flags.framing
    _one_of("framing", framing, FRAMINGS)
    if flags.binary:
        if framing not in ("lines", "chunks"):
            raise ConfigurationError(f"--binary is --framing=chunks and cannot be used with --framing={framing}")
        framing = "chunks"
    if flags.passstderr and framing != "lines":
        other = "--binary" if flags.binary else f"--framing={framing}"
        raise ConfigurationError(f"--passstderr cannot be used with {other}: its JSON records are lines of text")
    argv = tuple(flags.command)
    if argv:
        path = environ.get("PATH", os.defpath)
        try:
            argv = (find_program(argv[0], path), *argv[1:])
        except ConfigurationError as error:
            raise ConfigurationError(f"{error}{hint_for_command(argv, path)}") from None
    return ProgramSettings(
        argv=argv,
        directory=_directory("dir", flags.dir),
        framing=framing,
        max_message_bytes=_not_negative("maxline", flags.maxline),
        close_ms=_not_negative("closems", flags.closems),
        drain_ms=_not_negative("drainms", flags.drainms),
        pty=_terminal_size(flags),
        pass_stderr=flags.passstderr,
    )


def _terminal_size(flags: SimpleNamespace) -> TerminalSize | None:
    if not flags.pty:
        _check_needless(flags, ("pty-size",), "--pty")
        return None
    if not flags.pty_size:
        return PLAIN
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", flags.pty_size)
    if found is None or max(map(int, found.groups())) > 65535:
        raise ConfigurationError(f"--pty-size={flags.pty_size} is not a size; write columns and rows, such as 132x43")
    return TerminalSize(int(found[1]), int(found[2]))


def _access(flags: SimpleNamespace, environ: Mapping[str, str]) -> AccessSettings:
    _one_of("busy", flags.busy, ("429", "close"))
    subprotocols = tuple(part.strip() for value in flags.subprotocol for part in value.split(",") if part.strip())
    for subprotocol in subprotocols:
        if not TOKEN.match(subprotocol):
            raise ConfigurationError(f"--subprotocol: {subprotocol!r} is not a valid token for a header")
    return AccessSettings(
        origins=Rules(flags.sameorigin, parse_allowed(flags.origin) if flags.origin else None),
        hosts=Hosts(parse_hosts(flags.host), own_names(socket.gethostname(), _hosts_file()), is_strict=flags.sameorigin),
        max_sessions=flags.maxforks,
        busy_close=flags.busy == "close",
        subprotocols=subprotocols,
        passed=passed_on(flags.passenv.split(","), environ),
        headers=tuple(_header("header", value) for value in flags.header),
        headers_ws=tuple(_header("header-ws", value) for value in flags.header_ws),
        headers_http=tuple(_header("header-http", value) for value in flags.header_http),
    )


def _mode(flags: SimpleNamespace) -> int:
    """Return the mode of the Unix socket. A client needs write permission to connect, so a group set by a flag gets it."""
    text = flags.unixsocket_mode
    if not text:
        return 0o660 if flags.unixsocket_group else 0o600
    if not OCTAL.match(text):
        raise ConfigurationError(f"--unixsocket-mode={text}: write three octal digits, such as 660")
    return int(text.removeprefix("0o"), 8)


def _number_of(flag: str, name: str, find: Callable[[str], int]) -> int:
    """Return the numeric id of a user or group given by name or number; -1 if none is given. Raises ConfigurationError."""
    if not name:
        return -1
    if name.isascii() and name.isdecimal() and int(name) <= LAST_ID:
        return int(name)
    try:
        return find(name)
    except KeyError:
        kind = "user" if flag.endswith("owner") else "group"
        raise ConfigurationError(f"--{flag}={name}: this machine has no such {kind}") from None


def _hosts_file() -> str:
    """Return the beginning of /etc/hosts, which holds the names of this machine.

    Megabytes of entries that block advertisements may follow.
    """
    try:
        with open("/etc/hosts", encoding="utf-8", errors="replace") as file:
            return file.read(HOSTS_FILE_CHARACTERS)
    except OSError:
        return ""


def _listen(flags: SimpleNamespace) -> ListenSettings:
    tls = None
    if flags.ssl or flags.sslcert or flags.sslkey or flags.sslca:
        if not (flags.ssl and flags.sslcert and flags.sslkey):
            raise ConfigurationError("TLS needs all three of --ssl, --sslcert and --sslkey")
        tls = TlsSettings(flags.sslcert, flags.sslkey, flags.sslca or None)
    if not flags.unixsocket:
        _check_needless(flags, ("unixsocket-mode", "unixsocket-owner", "unixsocket-group"), "--unixsocket")
    for address in flags.address:
        if complaint := hint_for_address(address):
            raise ConfigurationError(complaint)
    port = flags.port
    if port is None:
        only_unix = flags.unixsocket and not flags.address and not flags.redirport
        port = None if only_unix else 443 if tls else 80
    return ListenSettings(
        hosts=flags.address or ("",),
        port=port,
        unix_path=flags.unixsocket or None,
        unix_mode=_mode(flags),
        unix_owner=_number_of("unixsocket-owner", flags.unixsocket_owner, lambda name: pwd.getpwnam(name).pw_uid),
        unix_group=_number_of("unixsocket-group", flags.unixsocket_group, lambda name: grp.getgrnam(name).gr_gid),
        tls=tls,
        redirect_port=flags.redirport or None,
        redirect_headers=tuple(_header("header", value) for value in (*flags.header, *flags.header_http)),
    )


def _directory(flag: str, path: str) -> str | None:
    if not path:
        return None
    if not os.path.isdir(path):
        raise ConfigurationError(f"--{flag}={path} is not a directory")
    return os.path.abspath(path)


def _header(flag: str, text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    name, value = name.strip(), value.strip()
    if not TOKEN.match(name):
        raise ConfigurationError(f"--{flag}={text!r} is not a header; write 'Name: value'")
    if CONTROL.search(value):
        raise ConfigurationError(f"--{flag}={text!r} has a control character in its value, which HTTP forbids; remove it")
    if name.lower() in FRAMING_HEADERS:
        raise ConfigurationError(f"--{flag}: {name} controls how a response is sent, and only the server sets it; remove it")
    if name.lower() == "sec-websocket-extensions":
        raise ConfigurationError(f"--{flag}: the handshake negotiates {name}; use --compress instead")
    return "-".join(part.capitalize() for part in name.split("-")), value


def _check_url(flag: str, url: str, schemes: tuple[str, ...], what: str) -> None:
    """Check a URL. Raises ConfigurationError, which does not show the URL: it may contain a password."""
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_one = False
    if is_one and "," in (parts.hostname or ""):
        raise ConfigurationError(f"--{flag} has a comma in its host; begin each address with {schemes[0]}://")
    # If a password contains a slash, the rest of it would count as the path, which messages show.
    _, *behind_host = re.split("[/?#]", url.partition("://")[2], maxsplit=1)
    if "@" in "".join(behind_host):
        raise ConfigurationError(f"--{flag} has an @ after its host; in user, password and path, write @ as %40, / as %2F, : as %3A")
    if not is_one:
        raise ConfigurationError(f"--{flag} is {what}")


def _check_broker_query(flag: str, url: str) -> None:
    """Check the query of a broker's URL. Raises ConfigurationError for an unknown parameter or an unusable file."""
    for name, value in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if name not in BROKER_PARAMETERS:
            raise ConfigurationError(f"--{flag}: unknown parameter {name!r} in its URL, which accepts {', '.join(BROKER_PARAMETERS)}")
        if name == "heartbeat" and not (value.isascii() and value.isdecimal()):
            raise ConfigurationError(f"--{flag}: heartbeat in its URL is not a number of seconds")
        if name != "heartbeat" and not os.path.isfile(value):
            raise ConfigurationError(f"--{flag}: the {name} in its URL is not a file: {value}")
        if name != "heartbeat" and (complaint := _why_unusable(name, value)):
            raise ConfigurationError(f"--{flag}: the {name} in its URL, {value}, cannot be used: {complaint}")


def _why_unusable(name: str, path: str) -> str:
    """Return the fault of a certificate or key that a URL names, and the remedy; empty if no fault is found."""
    from wsbridge.net.certificates import FILE_BYTES, why_unusable

    try:
        with open(path, "rb") as file:
            return why_unusable(path, file.read(FILE_BYTES), is_key=name == "keyfile", swapped="")
    except OSError as error:
        return reason_of(error).lower()


def _check_needless(flags: SimpleNamespace, names: tuple[str, ...], missing: str) -> None:
    """Raises ConfigurationError for a flag on the command line that has no effect without `missing`."""
    for name in names:
        attribute = name.replace("-", "_")
        if attribute in flags.said and getattr(flags, attribute) is not False:
            raise ConfigurationError(f"--{name} needs {missing}")


def _one_of(flag: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"--{flag}={value}: write {', '.join(choices[:-1])} or {choices[-1]}")


def _not_negative(flag: str, value: Number) -> Number:
    if value < 0:
        raise ConfigurationError(f"--{flag}={value} must not be negative")
    return value


def _positive(flag: str, value: Number) -> Number:
    if value <= 0:
        raise ConfigurationError(f"--{flag}={value} must be more than 0")
    return value
