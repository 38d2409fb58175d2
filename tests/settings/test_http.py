"""The settings of HTTP beside the WebSocket: settings that conflict."""

from __future__ import annotations

from wsbridge.settings.http import HttpSettings


def test_console_without_pages() -> None:
    """The console is a page, so it conflicts with `page=false`."""
    assert [*HttpSettings(console=True).faults(), *HttpSettings(page=False).faults()] == []
    (fault,) = HttpSettings(console=True, page=False).faults()
    assert fault.path == ("console",)
