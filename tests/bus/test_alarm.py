"""How a process learns of an alarm of the broker."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from aiormq.connection import Connection

from wsbridge.bus.rabbitmq.alarm import HANDLERS, Alarm


@pytest.mark.parametrize("name", HANDLERS)
def test_private_names(name: str) -> None:
    """aiormq has the methods that wsbridge replaces."""
    assert callable(getattr(Connection, name))


async def test_begins_and_ends() -> None:
    """An alarm, with its reason, lasts from its frame to the frame that ends it; aiormq receives both frames."""
    heard: list[object] = []

    async def handle(frame: object) -> None:
        heard.append(frame)

    connection = SimpleNamespace(**dict.fromkeys(HANDLERS, handle))
    alarm, loop = Alarm(), asyncio.get_running_loop()
    alarm.watch(connection)
    begin, end = (getattr(connection, name) for name in HANDLERS)
    assert (alarm.reason, alarm.over_at()) == ("", 0.0)
    blocked = SimpleNamespace(reason="low on disk")
    await begin(blocked)
    assert await alarm.changed() == alarm.reason == "low on disk"
    assert alarm.over_at() <= loop.time()
    await end("unblocked")
    assert await alarm.changed() == alarm.reason == ""
    assert 0.0 < alarm.over_at() <= loop.time()
    assert heard == [blocked, "unblocked"]


async def test_without_a_reason() -> None:
    """An alarm with an empty reason is still an alarm."""

    async def handle(frame: object) -> None:
        """Do nothing."""

    connection = SimpleNamespace(**dict.fromkeys(HANDLERS, handle))
    alarm = Alarm()
    alarm.watch(connection)
    await getattr(connection, HANDLERS[0])(SimpleNamespace(reason=""))
    assert alarm.reason


async def test_followers() -> None:
    """Each link of a connection learns of its alarm, even a link that joins during the alarm. A link that has left does not."""

    async def handle(frame: object) -> None:
        """Do nothing."""

    connection = SimpleNamespace(**dict.fromkeys(HANDLERS, handle))
    leader, links = Alarm(), [Alarm(), Alarm()]
    leader.watch(connection)
    begin, end = (getattr(connection, name) for name in HANDLERS)
    links[0].follow(leader)
    assert links[0].over_at() == 0.0
    await begin(SimpleNamespace(reason="low on disk"))
    links[1].follow(leader)
    for link in links:
        assert await link.changed() == "low on disk"
    links[0].unfollow(leader)
    assert await links[0].changed() == ""
    assert [link.reason for link in links] == ["", "low on disk"]
    await end("unblocked")
    assert await links[1].changed() == ""
    await begin(SimpleNamespace(reason="low on memory"))
    assert [link.reason for link in links] == ["", "low on memory"]
