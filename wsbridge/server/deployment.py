"""The endpoints of a server while it runs: they open, get their place in the site, are replaced, and end."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from wsbridge.endpoints.base import Endpoint, Services
from wsbridge.endpoints.kinds import Make, make_endpoint
from wsbridge.http.app import App
from wsbridge.logs import logger
from wsbridge.process.termination import make_ladder
from wsbridge.rules.routes import Routes
from wsbridge.server.plan import Plan, make_plan
from wsbridge.sessions.ending import end_sessions
from wsbridge.sessions.registry import RECONFIGURED, SHUTTING_DOWN
from wsbridge.settings import BroadcastSettings, BrokerSettings, EndpointSettings, ServerSettings

log = logger("server")


class Served(NamedTuple):
    """The settings that determine an endpoint: an endpoint with equal settings need not change."""

    settings: EndpointSettings
    broker: BrokerSettings | None

    @property
    def place(self) -> tuple[tuple[str, ...], str]:
        """The place in the site, at which there is one endpoint at most."""
        return self.settings.host_names, self.settings.path

    @property
    def channel_key(self) -> Hashable:
        """The exchange and broker of a channel, which keeps its viewers when it moves to another place. None for the other kinds."""
        if isinstance(self.settings, BroadcastSettings):
            return self.settings.channel.exchange, self.broker
        return None


def served_by(settings: ServerSettings) -> tuple[Served, ...]:
    """Return the endpoints of these settings."""
    return tuple(Served(endpoint, settings.brokers.get(endpoint.broker_name)) for endpoint in settings.endpoints)


class Opened(NamedTuple):
    """Endpoints that are open, but not in place yet."""

    endpoints: dict[Served, Endpoint]
    successors: frozenset[Served]
    """The endpoints that take over the sessions of their predecessors."""


class Deployment:
    """The open endpoints. `routes` leads to their Apps."""

    def __init__(self, routes: Routes[App], *, force: asyncio.Event, make: Make = make_endpoint) -> None:
        """`force` requests an immediate end. `make` makes an endpoint from its settings."""
        self._routes = routes
        self._force = force
        self._make = make
        self._running: dict[Served, Endpoint] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(self._running.values())

    def plan(self, settings: ServerSettings) -> Plan[Served]:
        """Return the steps to these settings."""
        return make_plan(tuple(self._running), served_by(settings), lambda served: served.place, lambda served: served.channel_key)

    async def prepare(self, plan: Plan[Served], services: Services) -> Opened:
        """Open the endpoints that a plan adds or changes; `commit` then puts them in place.

        Raises the first error in the order of the plan; then it has released all opened endpoints.
        """
        successors = {
            new: endpoint for old, new in plan.changed if (endpoint := self._running[old].succeed(new.settings, services)) is not None
        }
        wanted = (*plan.added, *(new for _, new in plan.changed))
        endpoints = {served: successors.get(served) or self._make(served.settings, services) for served in wanted}
        opened = Opened(endpoints, frozenset(successors))
        try:
            results = await asyncio.gather(*(endpoint.open() for endpoint in endpoints.values()), return_exceptions=True)
            if error := next((result for result in results if isinstance(result, BaseException)), None):
                raise error
        except BaseException:
            await self.discard(opened)
            raise
        return opened

    async def discard(self, opened: Opened) -> None:
        """Release endpoints that will not be put in place."""
        at_once = asyncio.Event()
        at_once.set()
        await self._finish(opened.endpoints.values(), at_once)

    def commit(self, plan: Plan[Served], opened: Opened) -> None:
        """Put the opened endpoints in place, and end the replaced and removed endpoints. The caller then calls `start`."""
        for old, new in plan.changed:
            endpoint = self._running.pop(old)
            if old.place != new.place:
                self._routes.remove(*old.place)
            if new not in opened.successors:
                self._retire(endpoint)
        for served in plan.removed:
            self._routes.remove(*served.place)
            self._retire(self._running.pop(served))
        for served, endpoint in opened.endpoints.items():
            self._routes.put(*served.place, endpoint.app)
            self._running[served] = endpoint

    @staticmethod
    def start(opened: Opened) -> None:
        """Begin the work of endpoints that are in place."""
        for endpoint in opened.endpoints.values():
            endpoint.start()

    def _retire(self, endpoint: Endpoint) -> None:
        task = asyncio.get_running_loop().create_task(self._end(endpoint), name=f"end of the endpoint at {endpoint.settings.path}")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _end(self, endpoint: Endpoint) -> None:
        await self._finish((endpoint,), self._force)
        await end_sessions([endpoint.registry], RECONFIGURED, seconds=ladder_seconds(endpoint.settings), force=self._force)

    async def finish(self) -> None:
        """End the work of all endpoints, before their sessions end. A further call does nothing."""
        await self._finish(self._running.values(), self._force)

    @staticmethod
    async def _finish(endpoints: Iterable[Endpoint], force: asyncio.Event) -> None:
        """End the work of endpoints; log an internal error, so that the other endpoints and all sessions still end."""
        ending = tuple(endpoints)
        results = await asyncio.gather(*(endpoint.finish(force) for endpoint in ending), return_exceptions=True)
        for endpoint, fault in zip(ending, results, strict=True):
            if isinstance(fault, Exception):
                log.error("internal error while closing the endpoint at %s: %r", endpoint.settings.place, fault, exc_info=fault)

    async def end_sessions(self) -> None:
        """End all sessions, also the sessions of replaced and removed endpoints."""
        seconds = max((ladder_seconds(endpoint.settings) for endpoint in self.endpoints), default=0.0)
        await end_sessions([endpoint.registry for endpoint in self.endpoints], SHUTTING_DOWN, seconds=seconds, force=self._force)
        if self._retiring:
            await asyncio.wait(self._retiring)


def ladder_seconds(settings: EndpointSettings) -> float:
    """Return the time of the ladder of an endpoint's programs, in seconds."""
    return sum(step.grace for step in make_ladder(settings.program.close_delay))
