"""The endpoints of a server: opening, replacement, shutdown and failure. The endpoints are twins that the test controls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.proc import turns, until
from wsbridge.closecodes import GOING_AWAY, SERVICE_RESTART
from wsbridge.errors import BusError
from wsbridge.flow import End
from wsbridge.metrics import Metrics
from wsbridge.rules.routes import Routes
from wsbridge.server.deployment import Deployment, Opened
from wsbridge.sessions.registry import Registry
from wsbridge.settings import BridgeSettings, EndpointSettings, ProgramSettings, ServerSettings

SERVICES: Any = None
"""The twins need no services."""
CLOSE_DELAY = 1000.0
"""Seconds that a program may take to exit, more than a test lasts."""


class Session:
    """A session that ends at `shut_down`, or a stubborn session that ends only by force."""

    def __init__(self, registry: Registry, *, is_stubborn: bool = False) -> None:
        self._registry = registry
        self._is_stubborn = is_stubborn
        self.reason: End | None = None
        registry.add(self)

    def shut_down(self, reason: End) -> None:
        self.reason = reason
        if not self._is_stubborn:
            self._registry.remove(self)

    def force(self) -> None:
        self._registry.remove(self)


@dataclass(slots=True)
class Twin:
    """An endpoint whose `open` and `finish` do what the test defines."""

    settings: EndpointSettings
    opening: Callable[[], Any]
    finishing: Callable[[asyncio.Event], Any]
    heir: Callable[[EndpointSettings], Twin | None]
    registry: Registry = field(default_factory=lambda: Registry(max_sessions=0, metrics=Metrics()))
    calls: list[str] = field(default_factory=list)

    @property
    def app(self) -> Any:
        return self

    async def open(self) -> None:
        self.calls.append("open")
        await self.opening()

    def start(self) -> None:
        self.calls.append("start")

    def succeed(self, settings: EndpointSettings, services: object) -> Twin | None:
        return self.heir(settings)

    async def finish(self, force: asyncio.Event) -> None:
        self.calls.append("finish")
        await self.finishing(force)

    def served(self) -> Iterator[str]:
        yield from ()


async def nothing(*_: object) -> None:
    """Succeed at once."""


async def fail(*_: object) -> None:
    raise BusError("the broker is away")


async def blocked(*_: object) -> None:
    """Wait for the cancellation."""
    await asyncio.Event().wait()


class Town:
    """A deployment of twins. `openings` and `finishings` are by path; an endpoint at a path of `heirs` has a successor."""

    def __init__(self) -> None:
        self.force = asyncio.Event()
        self.routes: Routes[Any] = Routes()
        self.openings: dict[str, Callable[[], Any]] = {}
        self.finishings: dict[str, Callable[[asyncio.Event], Any]] = {}
        self.heirs: set[str] = set()
        self.made: list[Twin] = []
        self.deployment = Deployment(self.routes, force=self.force, make=self._make)  # type: ignore[arg-type]

    def _make(self, settings: EndpointSettings, services: object) -> Twin:
        path = settings.path
        twin = Twin(settings, self.openings.get(path, nothing), self.finishings.get(path, nothing), self._heir)
        self.made.append(twin)
        return twin

    def _heir(self, settings: EndpointSettings) -> Twin | None:
        return self._make(settings, None) if settings.path in self.heirs else None

    async def prepare(self, *endpoints: EndpointSettings) -> Opened:
        return await self.deployment.prepare(self.deployment.plan(ServerSettings(endpoints=endpoints)), SERVICES)

    async def change(self, *endpoints: EndpointSettings) -> list[Twin]:
        """Change to these endpoints; return the new ones."""
        plan = self.deployment.plan(ServerSettings(endpoints=endpoints))
        opened = await self.deployment.prepare(plan, SERVICES)
        self.deployment.commit(plan, opened)
        self.deployment.start(opened)
        return self.made[-len(opened.endpoints) :] if opened.endpoints else []

    def at(self, path: str) -> Twin | None:
        """Return the endpoint that serves a request."""
        found = self.routes.find("", path)
        return found[0] if found is not None else None


def bridge(path: str, word: str = "") -> BridgeSettings:
    return BridgeSettings(path=path, program=ProgramSettings(command=("cat", word), close_delay=CLOSE_DELAY))


@pytest.fixture
def town() -> Town:
    return Town()


async def test_endpoint_that_cannot_open(town: Town) -> None:
    """If one of several endpoints cannot open, all are released, and the endpoints that run stay as they are."""
    (old,) = await town.change(bridge("/a"))
    town.openings["/d"] = fail
    with pytest.raises(BusError):
        await town.prepare(bridge("/a", "new"), bridge("/b"), bridge("/c"), bridge("/d"))
    assert [twin.calls for twin in town.made] == [["open", "start"]] + [["open", "finish"]] * 4
    assert (town.at("/a"), town.at("/b")) == (old, None)
    assert town.deployment.endpoints == (old,)


async def test_opening_is_cancelled(town: Town) -> None:
    """A cancelled change releases the endpoints that are open and those that are opening."""
    town.openings["/b"] = blocked
    preparing = asyncio.ensure_future(town.prepare(bridge("/a"), bridge("/b")))
    await turns()
    preparing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await preparing
    assert [twin.calls for twin in town.made] == [["open", "finish"]] * 2


async def test_successor(town: Town) -> None:
    """A successor takes the place of an endpoint, which the deployment does not end; another endpoint at the place ends it."""
    town.heirs.add("/a")
    (first,) = await town.change(bridge("/a"))
    (second,) = await town.change(bridge("/a", "second"))
    assert town.at("/a") is second
    town.heirs.clear()
    (third,) = await town.change(bridge("/a", "third"))
    await until(lambda: "finish" in second.calls, "the end of the second endpoint")
    assert town.at("/a") is third
    assert "finish" not in first.calls


async def test_removed_and_added_again(town: Town) -> None:
    """An endpoint can return to a place where sessions of its predecessor still end; both ends are waited for."""
    (old,) = await town.change(bridge("/a"))
    ending = Session(old.registry, is_stubborn=True)
    await town.change()
    assert town.at("/a") is None
    (new,) = await town.change(bridge("/a"))
    session = Session(new.registry)
    await until(lambda: ending.reason, "the end of the old session")
    assert ending.reason is not None
    assert (ending.reason.code, session.reason) == (SERVICE_RESTART, None)
    shutdown = asyncio.ensure_future(town.deployment.end_sessions())
    await until(lambda: session.reason, "the end of the new session")
    assert not shutdown.done()
    ending.force()
    await shutdown


async def test_failed_end_of_a_removed_endpoint(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    """The sessions of a removed endpoint end, whatever happens to its work; the log reports the fault."""
    town.finishings["/a"] = fail
    (removed,) = await town.change(bridge("/a"))
    session = Session(removed.registry)
    await town.change()
    await until(lambda: session.reason, "the end of the session")
    assert "internal error while closing the endpoint at /a" in caplog.text


async def test_failed_end_at_the_shutdown(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    """At the shutdown, each endpoint has enough time to finish its work, although another endpoint fails at once."""
    end = asyncio.Event()

    async def slow(force: asyncio.Event) -> None:
        await end.wait()

    town.finishings |= {"/a": fail, "/b": slow}
    await town.change(bridge("/a"), bridge("/b"))
    finishing = asyncio.ensure_future(town.deployment.finish())
    await turns()
    assert not finishing.done()
    end.set()
    await finishing
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_force_holds_for_all(town: Town) -> None:
    """A forced shutdown applies to every endpoint, also to those that are already ending, in each step."""

    async def forced(force: asyncio.Event) -> None:
        await force.wait()
        # The sessions of the other endpoint end first.
        await turns()

    town.finishings["/b"] = forced
    for twin in await town.change(bridge("/a"), bridge("/b"), bridge("/c")):
        Session(twin.registry, is_stubborn=True)
    await town.change(bridge("/c"))
    await turns()
    town.force.set()
    await town.deployment.finish()
    await town.deployment.end_sessions()
    assert [len(twin.registry) for twin in town.made] == [0, 0, 0]


async def test_reason_at_the_shutdown(town: Town) -> None:
    """At the shutdown, a client gets the reason that the server is going away."""
    (twin,) = await town.change(bridge("/a"))
    session = Session(twin.registry)
    await town.deployment.finish()
    await town.deployment.end_sessions()
    assert session.reason == End(GOING_AWAY, "server is shutting down")
