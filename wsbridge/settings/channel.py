"""A channel: its history, its subscribers, its program, and its storage on the broker."""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from wsbridge.channel.ring import Join, Slow
from wsbridge.rules.restarts import Restart
from wsbridge.settings.declare import MEBIBYTE, Fault, Part, Setting, Size

EXCHANGE_NAME = re.compile(r"[A-Za-z0-9 _.:@#,/+-]{1,127}\Z")
"""Exchange names that pamqp, the AMQP codec, accepts. For queue names it accepts more, hence the prefix `wsbridge.` there."""
LONGEST_NAME = 255
"""Bytes of a name in AMQP."""


class Role(StrEnum):
    """The role of a channel's program."""

    PRODUCER = "producer"
    THROUGH = "through"
    """The program consumes the exchange, and its output goes to this node's clients."""
    NONE = "none"


class Input(StrEnum):
    """Where the server sends messages from clients."""

    NONE = "none"
    PROGRAM = "program"
    EXCHANGE = "exchange"


class SpoolFull(StrEnum):
    """The policy for a full spool."""

    BLOCK = "block"
    DROP_OLDEST = "drop-oldest"


class ChannelSettings(Part, frozen=True, kw_only=True):
    """The channel of a broadcast."""

    exchange: Annotated[
        str,
        Setting(
            "Name the channel; the exchange on the broker has the same name",
            (
                "Name the channel, and the exchange on the broker. With a broker, NAME has at most 127 characters: "
                "letters (A-Z, a-z), digits, space and `-_.:@#,/+`"
            ),
            (
                "Name the channel, and the exchange on the broker. With a broker, a name has at most 127 characters: "
                "letters (A-Z, a-z), digits, space and `-_.:@#,/+`"
            ),
            flag="exchange",
            metavar="NAME",
        ),
    ]
    through: Annotated[
        bool,
        Setting(
            "Filter: <command> reads messages from the exchange, and its output goes to this node's browsers",
            (
                "Make <command> the consumer of the exchange; see [a program that consumes the "
                "exchange](#a-program-that-consumes-the-exchange)"
            ),
            (
                "Make the program the consumer of the exchange; see [a program that consumes the "
                "exchange](#a-program-that-consumes-the-exchange)"
            ),
            flag="through",
        ),
    ] = False
    input: Annotated[
        Input,
        Setting(
            "Send messages from browsers to none (close 1003), program (its stdin) or exchange",
            (
                "Select where messages from clients go: `none` (disconnect the client with 1003), `program` (to <command>'s "
                "stdin), `exchange` (publish them)"
            ),
            (
                "Select where messages from clients go: `none` (disconnect the client with 1003), `program` (to the program's stdin), "
                "`exchange` (publish them)"
            ),
            flag="input",
            metavar="WHERE",
        ),
    ] = Input.NONE
    restart: Annotated[
        Restart,
        Setting(
            "Restart <command> after it exits: always, on-failure or never",
            "Select when the supervisor restarts <command> after <command> has ended: `always`, `on-failure`, `never`",
            "Select when the supervisor restarts the program after it has ended: `always`, `on-failure`, `never`",
            flag="restart",
            metavar="WHEN",
        ),
    ] = Restart.ALWAYS
    history: Annotated[
        int,
        Setting(
            "Keep this many messages for clients that join or reconnect",
            "Keep at most N messages for clients that join or reconnect",
            "Keep at most this many messages for clients that join or reconnect",
            flag="history",
            minimum=0,
        ),
    ] = 1000
    history_size: Annotated[
        Size,
        Setting(
            "Keep at most this much history, in bytes",
            "Limit these messages to BYTES",
            "Limit the bytes of the kept messages",
            flag="history-bytes",
            minimum=0,
        ),
    ] = MEBIBYTE
    join: Annotated[
        Join,
        Setting(
            "Send a browser without a position the history, the last message or none first",
            (
                "Select what a client without a position receives first: `history` (the kept messages), `last` (the "
                "last message), `none` (only new messages)"
            ),
            flag="join",
            metavar="HOW",
        ),
    ] = Join.NONE
    queue: Annotated[
        Size,
        Setting(
            "Let a browser fall this far behind, in bytes",
            "Set how many bytes a client may fall behind",
            flag="queue",
            minimum=0,
        ),
    ] = MEBIBYTE
    slow: Annotated[
        Slow,
        Setting(
            "When a browser falls further behind: drop-oldest, latest, or close (1013)",
            (
                "Select what to do with a client that falls further behind: `drop-oldest` (continue with the newest "
                "`<queue>` bytes), `latest` (continue with the next new message), `close` (disconnect it with 1013; it can"
                " reconnect)"
            ),
            flag="slow",
            metavar="HOW",
        ),
    ] = Slow.DROP_OLDEST
    max_clients: Annotated[
        int,
        Setting(
            "Serve at most N clients at once; refuse further clients with 429 (0: no limit)",
            (
                "Limit the number of simultaneous clients (0: limited only by the number of open files); see [the "
                "client limit](#the-client-limit)"
            ),
            flag="maxclients",
            minimum=0,
            default_shown="0",
        ),
    ] = 0
    broker: Annotated[
        str,
        Setting("Carry the channel through this broker", "Carry the channel through the broker of this name: the NAME of `[broker.NAME]`"),
    ] = ""
    replay: Annotated[
        bool,
        Setting(
            "Keep the channel in a stream on the broker: no confirmed message is lost, and clients can resume on any node",
            "Keep the channel in a stream of the broker",
            flag="replay",
            needs="broker",
        ),
    ] = False
    replay_size: Annotated[
        Size,
        Setting(
            "With <replay>, keep at most this much of the channel on the broker, in bytes",
            "Limit this stream to BYTES",
            "Limit the bytes of the stream of `<replay>`",
            flag="replay-bytes",
            is_positive=True,
            needs="replay",
        ),
    ] = 256 * MEBIBYTE
    durable: Annotated[
        bool,
        Setting(
            "Declare the exchange as durable: it survives a restart of the broker",
            "Declare the exchange durable",
            flag="durable",
            needs="broker",
        ),
    ] = False
    passive: Annotated[
        bool,
        Setting(
            "Use an existing fanout exchange; do not declare it",
            (
                "Use an existing exchange; do not declare it. wsbridge "
                "[refuses](broker.md#permissions-with---passive) an exchange of a type that routes by key (topic, "
                "direct, headers)"
            ),
            flag="passive",
            needs="broker",
        ),
    ] = False
    spool: Annotated[
        Size,
        Setting(
            "Buffer messages while the broker is away or slow, in bytes",
            "Limit the bytes that wait for an unreachable or slow broker",
            flag="spool",
            minimum=0,
            needs="broker",
        ),
    ] = 64 * MEBIBYTE
    spool_full: Annotated[
        SpoolFull,
        Setting(
            "When that buffer is full: block (pause the program) or drop-oldest (and count the messages)",
            (
                "Select what to do when the spool is full: `block` (pause the publishers of this node, and so the "
                "program) or `drop-oldest` (drop the oldest messages, count them, and report them as lost)"
            ),
            flag="spool-full",
            metavar="HOW",
            needs="broker",
        ),
    ] = SpoolFull.BLOCK

    def faults(self) -> Iterator[Fault]:
        yield from exchange_faults(self.exchange, at_broker=bool(self.broker))
        if self.durable and self.passive:
            yield Fault(("durable",), "<durable> and <passive> cannot be used together: <passive> does not declare the exchange")


def exchange_faults(name: str, *, at_broker: bool) -> Iterator[Fault]:
    """Yield the fault of an exchange name that AMQP 0-9-1 forbids or that RabbitMQ reserves."""
    if not name:
        yield Fault(("exchange",), "<exchange> is missing: add <exchange>=NAME, the name of the channel")
    elif at_broker and not EXCHANGE_NAME.match(name):
        wrong = next((character for character in name if not EXCHANGE_NAME.match(character)), "")
        what = f"it contains {wrong!r}" if wrong else f"it has {len(name)} characters"
        allowed = "write at most 127 of A-Z, a-z, 0-9, space and - _ . : @ # , / +"
        yield Fault(("exchange",), f"<exchange> is not a valid name for a broker: {what}; {allowed}")
    elif len(name.encode()) > LONGEST_NAME:
        yield Fault(("exchange",), f"<exchange> is longer than {LONGEST_NAME} bytes")
    elif name.startswith("amq."):
        yield Fault(("exchange",), f"<exchange>={name}: RabbitMQ reserves the names that begin with amq.; use another name")
