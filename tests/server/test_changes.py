"""A change of the settings in words."""

from __future__ import annotations

from wsbridge.server.changes import changes_of, needs_restart
from wsbridge.server.deployment import Served
from wsbridge.server.plan import Plan
from wsbridge.settings import ConsoleSettings, ListenSettings, ProcessSettings


def at(path: str, *hosts: str) -> Served:
    return Served(ConsoleSettings(path=path, hosts=hosts), None)


NONE: Plan[ListenSettings] = Plan((), (), (), ())


def test_places() -> None:
    """Endpoints are named by their hosts and paths, listeners by their addresses; what stays is not named."""
    endpoints = Plan((at("/kept"),), ((at("/a"), at("/a")),), (at("/b", "x.example", "y.example"), at("/c")), (at("/d"),))
    listeners = Plan((), (), (ListenSettings(address=":80"),), (ListenSettings(address="unix:/s"),))
    changes = changes_of(endpoints, listeners, restart=())
    assert str(changes) == "added x.example,y.example/b, /c, listener :80; changed /a; removed /d, listener unix:/s"


def test_nothing() -> None:
    """If nothing has changed, the log says so."""
    assert str(changes_of(Plan((at("/"),), (), (), ()), NONE, restart=())) == "no endpoint and no listener has changed"


def test_restart() -> None:
    """Some settings of the process need a restart."""
    before, after = ProcessSettings(), ProcessSettings(guard=False, log_level="none", log_format="json", keepalive_timeout=1)
    assert needs_restart(before, before) == ()
    assert needs_restart(before, after) == ("guard", "keepalive_timeout", "log_format")
