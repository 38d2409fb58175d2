"""All settings of a server."""

import msgspec

from wsbridge import __version__
from wsbridge.settings.broker import BrokerSettings
from wsbridge.settings.declare import Part
from wsbridge.settings.endpoint import EndpointSettings
from wsbridge.settings.listen import ListenSettings
from wsbridge.settings.process import ProcessSettings


class ServerSettings(Part, frozen=True, kw_only=True):
    """All settings of a server."""

    server: ProcessSettings = ProcessSettings()
    listeners: tuple[ListenSettings, ...] = ()
    endpoints: tuple[EndpointSettings, ...] = ()
    brokers: dict[str, BrokerSettings] = msgspec.field(default_factory=dict)
    """By their names, which channels refer to."""
    software: str = f"wsbridge/{__version__}"
    """The value of SERVER_SOFTWARE."""
    once: bool = False
    """Whether the server ends after one session. Only the command line sets this field, `software` and `names_urls`."""
    names_urls: bool = True
    """Whether the start log lists the URLs that work from this machine and from the network."""
