"""Questions to a real broker about an existing exchange, and the permissions that they need."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import takewhile
from pathlib import Path

import aiormq
import pytest

from tests.bus.node import Exchange, Receiver, spool, until
from tests.support.rabbit import Broker, binary
from wsbridge.errors import BusError
from wsbridge.flow import Batch, Kind

pytestmark = pytest.mark.usefixtures("clean")

PASSWORD = "not-to-be-seen"
ONE = Batch(Kind.TEXT, [b"one"])


@pytest.fixture(params=[False, True], ids=["plain", "replay"])
def passive(request: pytest.FixtureRequest, broker: Broker) -> Exchange:
    """A channel that uses an existing exchange."""
    return Exchange(f"topology-{secrets.token_hex(4)}", broker.url, {"replay": request.param, "passive": True})


@asynccontextmanager
async def external_channel(broker: Broker) -> AsyncIterator[aiormq.abc.AbstractChannel]:
    connection = await aiormq.connect(broker.url)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def refusal(exchange: Exchange, **options: object) -> str:
    """Open a bus that must fail; return its error."""
    bus = exchange.bus(**options)  # type: ignore[arg-type]
    with pytest.raises(BusError) as raised:
        await bus.open(Receiver())
    await bus.close(1)
    assert PASSWORD not in str(raised.value)
    return str(raised.value)


@asynccontextmanager
async def user_with(broker: Broker, configure: str, write: str, read: str) -> AsyncIterator[str]:
    """Make a user of the broker with these patterns for configure, write and read; yield its URL."""
    user = f"user-{secrets.token_hex(4)}"
    await asyncio.to_thread(broker.add_user, user, PASSWORD, configure, write, read)
    try:
        yield f"amqp://{user}:{PASSWORD}@127.0.0.1:{broker.port}/"
    finally:
        await asyncio.to_thread(broker.delete_user, user)


# The type of an existing exchange


@pytest.mark.parametrize("kind", ["topic", "direct", "headers"])
@pytest.mark.parametrize("consumes", [True, False], ids=["takes", "publishes only"])
async def test_exchange_that_routes_by_key(passive: Exchange, broker: Broker, kind: str, consumes: bool) -> None:
    """The bus rejects an exchange that routes by key, names its type and binds nothing to it."""
    async with external_channel(broker) as channel:
        await channel.exchange_declare(passive.name, exchange_type=kind, durable=True)
    message = await refusal(passive, consumes=consumes)
    assert f"refuses exchange {passive.name}: its type is {kind}, but a channel needs a fanout" in message
    assert passive.name not in dict(await asyncio.to_thread(broker.bindings))


@pytest.mark.parametrize(
    "made",
    [
        {},
        {"durable": True},
        {"auto_delete": True},
        {"arguments": {"alternate-exchange": "elsewhere"}},
        {"durable": True, "arguments": {"x-anything": 5}},
    ],
    ids=str,
)
async def test_fanout_of_any_kind(passive: Exchange, broker: Broker, made: Mapping[str, object]) -> None:
    """The bus uses an existing fanout, whatever its other properties are."""
    async with external_channel(broker) as channel:
        await channel.exchange_declare(passive.name, exchange_type="fanout", **made)  # type: ignore[arg-type]
        receiver = Receiver()
        async with passive.open(receiver):
            await channel.basic_publish(b"one", exchange=passive.name, routing_key="any.key")
            await receiver.has(1)


async def test_question_declares_no_exchange(passive: Exchange, broker: Broker) -> None:
    """A question about the type of a missing exchange does not declare it."""
    assert f"no exchange {passive.name}" in await refusal(passive)
    assert passive.name not in await asyncio.to_thread(broker.exchanges)


async def test_type_that_cannot_be_checked(passive: Exchange, broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """A user without the permission to configure the exchange uses it unchecked, and the log names the assumption."""
    caplog.set_level(logging.INFO)
    stream = f"^wsbridge\\.{passive.name}$"
    async with external_channel(broker) as channel, user_with(broker, f"{stream}|^amq\\.gen", ".*", ".*") as url:
        await channel.exchange_declare(passive.name, exchange_type="fanout")
        receiver = Receiver()
        async with passive.open(receiver, url=url) as bus:
            bus.publish(ONE)
            await receiver.has(1)
    assumed = [record for record in caplog.records if record.getMessage().startswith("assuming a fanout exchange: the user has no permis")]
    assert [record.fields for record in assumed] == [{"exchange": passive.name}]


# Permissions

PAGE = Path(__file__).parents[2] / "docs" / "broker.md"


def permissions() -> list[tuple[str, list[list[str]]]]:
    """Return the rows of the table in docs/broker.md: the mode, and the names to configure, write and read."""
    section = PAGE.read_text().partition("## Permissions\n")[2]
    lines = section.partition("| configure | write | read |\n|---|---|---|---|\n")[2]
    rows = [row.strip("|").split("|") for row in takewhile(lambda line: line.startswith("|"), lines.splitlines())]
    return [(mode.strip(), [re.findall("`(.*?)`", cell) for cell in cells]) for mode, *cells in rows]


def pattern(names: Sequence[str], name: str) -> str:
    """Return RabbitMQ's regular expression for names of the table."""
    return "^(" + "|".join(re.escape(one.replace("NAME", name)).replace("…", ".*") for one in names) + ")$"


async def add_users(broker: Broker, users: Mapping[str, Sequence[str]]) -> None:
    """Make several users at once, each with its three patterns."""
    rows = [(user, *patterns) for user, patterns in users.items()]
    terms = ",".join("{" + ",".join(map(binary, row)) + "}" for row in rows)
    add = f'rabbit_auth_backend_internal:add_user(U, <<"{PASSWORD}">>, <<"test">>)'
    permit = 'rabbit_auth_backend_internal:set_permissions(U, <<"/">>, C, W, R, <<"test">>)'
    await asyncio.to_thread(broker.eval, f"[begin {add}, {permit} end || {{U, C, W, R}} <- [{terms}]]")


async def remove_users(broker: Broker, users: Iterable[str]) -> None:
    terms = ",".join(map(binary, users))
    await asyncio.to_thread(broker.eval, f'[rabbit_auth_backend_internal:delete_user(U, <<"test">>) || U <- [{terms}]]')


@pytest.mark.parametrize("number", range(6))
async def test_permissions(broker: Broker, number: int, caplog: pytest.LogCaptureFixture) -> None:
    """A user needs exactly the permissions in docs/broker.md: with them the channel works, without any of them it fails."""
    modes = permissions()
    assert len(modes) == 6
    mode, names = modes[number]
    name = f"allowed-{secrets.token_hex(4)}"
    replay, publishes, takes = number % 2 == 1, number not in (2, 3), number < 4
    fewer = [
        [*names[:kind], [other for other in cell if other != one], *names[kind + 1 :]] for kind, cell in enumerate(names) for one in cell
    ]
    without_declaring = [[one for one in names[0] if one != "NAME"], *names[1:]]
    users = {f"{name}-{at}": [pattern(cell, name) for cell in cells] for at, cells in enumerate((names, without_declaring, *fewer))}
    urls = [f"amqp://{user}:{PASSWORD}@127.0.0.1:{broker.port}/" for user in users]
    exchange = Exchange(name, broker.url, {"replay": replay})
    await add_users(broker, users)
    try:
        async with exchange.open(Receiver()) as other:
            for passive, url in ((False, urls[0]), (True, urls[1])):
                receiver = Receiver()
                async with exchange.open(receiver, url=url, passive=passive, consumes=takes) as bus:
                    if publishes:
                        bus.publish(ONE)
                        await until(lambda bus=bus: spool(bus).is_empty, f"a confirmation for {mode}")
                    if takes and not publishes:
                        other.publish(ONE)
                    if takes:
                        await until(lambda receiver=receiver: receiver.count, f"a message for {mode}")
            for cells, url in zip(fewer, urls[2:], strict=True):
                assert "ACCESS_REFUSED" in await denial(exchange, url, caplog, consumes=takes, publishes=publishes), (mode, cells)
    finally:
        await remove_users(broker, users)


async def denial(exchange: Exchange, url: str, caplog: pytest.LogCaptureFixture, *, consumes: bool, publishes: bool) -> str:
    """Use a channel as a user without one permission; return the error, at the start or at the first message."""
    bus, receiver = exchange.bus(url=url, consumes=consumes), Receiver()
    caplog.clear()
    try:
        await bus.open(receiver)
        assert publishes, "the channel opened"
        bus.publish(ONE)
        await until(lambda: False in receiver.connects, "the rejection of a published message")
        return caplog.text
    except BusError as error:
        return str(error)
    finally:
        await bus.close(0)
