"""The description of a change of the settings."""

from __future__ import annotations

import asyncio

import msgspec

from wsbridge.metrics import Metrics
from wsbridge.server.changes import Changes, changes_of
from wsbridge.server.deployment import Served
from wsbridge.server.openlisteners import ListenerChanges
from wsbridge.server.plan import Plan
from wsbridge.server.server import Server
from wsbridge.settings import BrokerSettings, ConsoleSettings, ListenSettings, ProcessSettings, ServerSettings


def at(path: str, *hosts: str) -> Served:
    return Served(ConsoleSettings(path=path, hosts=hosts), None)


LOCAL = ListenSettings(address="127.0.0.1:0")
NONE: Plan[ListenSettings] = Plan((), (), (), ())
EMPTY = ServerSettings()


def changes(
    endpoints: Plan[Served] = Plan((at("/"),), (), (), ()),  # noqa: B008 (a frozen value)
    listeners: Plan[ListenSettings] = NONE,
    renewed: tuple[ListenSettings, ...] = (),
    before: ServerSettings = EMPTY,
    after: ServerSettings = EMPTY,
) -> Changes:
    return changes_of(before, after, endpoints=endpoints, listeners=ListenerChanges(listeners, renewed), at_start=before.server)


def test_places() -> None:
    """Endpoints are named by their hosts and paths, listeners by their addresses; unchanged parts are not named."""
    endpoints = Plan((at("/unchanged"),), ((at("/a"), at("/a")),), (at("/b", "x.example", "y.example"), at("/c")), (at("/d"),))
    listeners = Plan((), (), (ListenSettings(address=":80"),), (ListenSettings(address="unix:/s"),))
    said = str(changes(endpoints, listeners, (LOCAL,)))
    changed = "changed /a, certificate of listener 127.0.0.1:0"
    assert said == f"added x.example,y.example/b, /c, listener :80; {changed}; removed /d, listener unix:/s"


def test_nothing() -> None:
    """If nothing has changed, the log says so."""
    assert str(changes()) == "nothing has changed"


def test_brokers() -> None:
    """Brokers are named, whether or not a channel uses them."""
    before = {name: BrokerSettings(url=("amqp://a",)) for name in ("kept", "other", "gone")}
    after = before | {"other": BrokerSettings(url=("amqp://b",)), "new": BrokerSettings(url=("amqp://b",))}
    del after["gone"]
    said = str(changes(before=ServerSettings(brokers=before), after=ServerSettings(brokers=after)))
    assert said == "added broker new; changed broker other; removed broker gone"


def test_settings_of_the_process() -> None:
    """A setting of the process changes at once, or needs a restart."""
    after = ServerSettings(server=ProcessSettings(guard=False, log_level="none", max_sessions=1, log_format="json", keepalive_timeout=1))
    found = changes(after=after)
    assert str(found) == "changed server.max_sessions, server.log_level"
    assert found.restart == ("guard", "keepalive_timeout", "log_format")


async def test_restart_stays_necessary() -> None:
    """The server names a setting that needs a restart at each change, until the setting has its first value again."""
    began = ServerSettings(server=ProcessSettings(guard=False, log_level="none"), endpoints=(ConsoleSettings(),), listeners=(LOCAL,))
    other = msgspec.structs.replace(began, server=ProcessSettings(guard=False, log_level="none", keepalive_timeout=1))
    server = Server(began, Metrics(), may_change=True)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.run())
        await server.is_ready.wait()
        try:
            assert [(await server.change(settings)).restart for settings in (other, other, began)] == [("keepalive_timeout",)] * 2 + [()]
        finally:
            server.stop()
