"""The lines that the server logs at its start for each listener."""

from __future__ import annotations

import socket

from wsbridge.server.announcement import announcement
from wsbridge.settings import BridgeSettings, ConsoleSettings, ListenSettings, ProgramSettings, ServerSettings

SETTINGS = ServerSettings(endpoints=(BridgeSettings(program=ProgramSettings(command=("/bin/cat",))),))


def announced(address: str, actual: str) -> list[str]:
    """Return the lines for one listener."""
    return list(announcement(SETTINGS, [(ListenSettings(address=address), [actual])]))


def test_inherited_socket_with_one_address() -> None:
    """An inherited socket that is bound to one address is not announced at the other addresses of the machine."""
    assert announced("systemd:web", "127.0.0.1:8080") == ["Starting WebSocket server   : ws://127.0.0.1:8080/"]


def test_inherited_socket_for_every_address() -> None:
    """An inherited socket that is bound to every address is announced like a listener of the server's own."""
    first, local, *_ = announced("systemd:web", f"{socket.gethostname()}:8080")
    assert first == f"Starting WebSocket server   : ws://{socket.gethostname()}:8080/"
    assert local == "From this machine           : http://localhost:8080/"
    assert announced(":8080", f"{socket.gethostname()}:8080")[1] == local


def test_one_address() -> None:
    """A listener at one address is announced there only."""
    assert announced("127.0.0.1:0", "127.0.0.1:8080") == ["Starting WebSocket server   : ws://127.0.0.1:8080/"]


def pages(*consoles: ConsoleSettings) -> list[str]:
    """Return the URLs of the pages of these endpoints."""
    lines = announcement(ServerSettings(endpoints=consoles), [(ListenSettings(address="127.0.0.1:80"), ["127.0.0.1:80"])])
    return [line.partition(" : ")[2] for line in lines if line.startswith("Developer console")]


def test_page_at_any_path() -> None:
    """The URL of a page can be copied: its path is percent-encoded."""
    assert pages(ConsoleSettings(path="/my folder/100%?")) == ["http://127.0.0.1:80/my%20folder/100%25%3F/"]


def test_page_for_some_hosts() -> None:
    """The announced URL of a page with host names has one of these names, and no pattern."""
    assert pages(ConsoleSettings(hosts=("*.example", "B.example", "c.example"))) == ["http://b.example:80/"]
    assert pages(ConsoleSettings(hosts=("*.example",))) == []
