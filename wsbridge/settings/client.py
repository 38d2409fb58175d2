"""How the server treats a connected client."""

from typing import Annotated

from wsbridge.settings.declare import KIBIBYTE, MEBIBYTE, Part, Seconds, Setting, Size, Unit


class ClientSettings(Part, frozen=True, kw_only=True):
    """How the server treats a connected client."""

    max_client_message: Annotated[
        Size,
        Setting(
            "Close with 1009 when a message from a client exceeds this size, in bytes (0: no limit)",
            "Limit a message from a client, all its fragments together (0: no limit). A longer message closes the session with 1009",
            flag="maxframesize",
            minimum=0,
            is_clamped=True,
        ),
    ] = MEBIBYTE
    ping: Annotated[
        Seconds,
        Setting(
            "Ping the client at this interval, in milliseconds; disconnect it after two intervals of silence (0: no pings)",
            (
                "Set the time between pings. wsbridge drops a client that sends no frame for two intervals; every "
                "kind of frame counts. The deadline does not run while the program reads nothing from this client (0:"
                " no pings; the kernel's TCP keepalive detects a lost client after 150 s)"
            ),
            flag="pingms",
            unit=Unit.MILLISECONDS,
            minimum=0,
        ),
    ] = 25.0
    write_timeout: Annotated[
        Seconds,
        Setting(
            "Disconnect a client that accepts no data for this long, in seconds (0: never)",
            "Set the write timeout: drop a client that accepts none of its pending data for this long (0: never)",
            flag="send-timeout",
            minimum=0,
        ),
    ] = 60.0
    send_buffer: Annotated[
        Size,
        Setting(
            "Pause the program when this much output waits for its client, in bytes",
            "Set the size of the send buffer of a client. When it is full, wsbridge stops reading from the program",
            flag="sendbuffer",
            minimum=0,
        ),
    ] = 256 * KIBIBYTE
    compress: Annotated[
        bool,
        Setting(
            "Accept permessage-deflate compression",
            "Accept permessage-deflate. It uses 42 KiB more memory per bridge session",
            flag="compress",
        ),
    ] = False
