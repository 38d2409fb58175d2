"""The settings of all parts, declared once: one struct per part, one file per struct.

Each value is in its final form, sizes in bytes and times in seconds. These modules read no command line and no file. wsbridge.cli
and wsbridge.config make the structs, and the server distributes them.
"""

from wsbridge.settings.access import AccessSettings, Busy
from wsbridge.settings.broker import BrokerSettings
from wsbridge.settings.channel import ChannelSettings, Input, Role, SpoolFull
from wsbridge.settings.client import ClientSettings
from wsbridge.settings.endpoint import (
    BridgeSettings,
    BroadcastSettings,
    CgiSettings,
    ConsoleSettings,
    EndpointSettings,
    FilesSettings,
    register_kind,
)
from wsbridge.settings.http import HttpSettings, HttpTimings
from wsbridge.settings.listen import ListenSettings, TlsSettings
from wsbridge.settings.pipe import PipeSettings
from wsbridge.settings.process import ProcessSettings
from wsbridge.settings.program import PLAIN, ProgramSettings, TerminalSize
from wsbridge.settings.server import ServerSettings

__all__ = [
    "PLAIN",
    "AccessSettings",
    "BridgeSettings",
    "BroadcastSettings",
    "BrokerSettings",
    "Busy",
    "CgiSettings",
    "ChannelSettings",
    "ClientSettings",
    "ConsoleSettings",
    "EndpointSettings",
    "FilesSettings",
    "HttpSettings",
    "HttpTimings",
    "Input",
    "ListenSettings",
    "PipeSettings",
    "ProcessSettings",
    "ProgramSettings",
    "Role",
    "ServerSettings",
    "SpoolFull",
    "TerminalSize",
    "TlsSettings",
    "register_kind",
]
