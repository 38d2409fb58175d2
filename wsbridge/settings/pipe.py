"""The settings of `publish` and `subscribe`, which no configuration file has."""

from wsbridge.settings.broker import BrokerSettings
from wsbridge.settings.channel import ChannelSettings
from wsbridge.settings.declare import MEBIBYTE, Part


class PipeSettings(Part, frozen=True, kw_only=True):
    """The settings of `publish` and `subscribe`: either a broker and a channel, or the URL of a server."""

    channel: ChannelSettings = ChannelSettings(exchange="")
    broker: BrokerSettings | None = None
    url: str = ""
    framing: str = "lines"
    max_message: int = 16 * MEBIBYTE
    count: int = 0
    since: str = ""
    show_position: bool = False
