"""Messages in both directions between the programs of WebsocketdBro and wsbridge, over one exchange and with the real wire format."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from tests.support.client import DEADLINE, Client
from tests.support.rabbit import Broker, bro_consume, bro_publish
from tests.support.server import LISTEN, Server
from tests.support.tool import command

LINES = ["one", "", "drei °C", "  four  ", "five\ttabs", "6" * 5000]


def name() -> str:
    return f"bro-{secrets.token_hex(4)}"


def broadcast(broker: Broker, exchange: str, *words: str) -> Server:
    return Server(f"--exchange={exchange}", *words, listen=("broadcast", *LISTEN), env={"WSBRIDGE_BROKER": broker.url})


def printed(bodies: list[bytes]) -> list[str]:
    """Return the output of bro's consumer: each body with a line feed after it."""
    return b"".join(body + b"\n" for body in bodies).decode().split("\n")[:-1]


@pytest.mark.parametrize("flags", [(), ("--replay",)], ids=["plain", "replay"])
async def test_program_to_bro(broker: Broker, flags: tuple[str, ...]) -> None:
    """bro's consumer prints exactly the lines that a program prints, in order."""
    exchange, bound = name(), asyncio.Event()
    # Each line is a body of its own: the program waits for its viewer before it prints the next one.
    consuming = asyncio.create_task(bro_consume(broker.url, exchange, len(LINES), bound=bound))
    await bound.wait()
    server = broadcast(broker, exchange, "--input=program", *flags, "cat")
    await asyncio.to_thread(server.start)
    try:
        client = await asyncio.to_thread(server.connect)
        with client:
            for line in LINES:
                client.send_text(line)
                assert await asyncio.to_thread(client.receive_text) == line
        assert printed(await consuming) == LINES
    finally:
        await asyncio.to_thread(server.stop)


@pytest.mark.parametrize("flags", [(), ("--replay",)], ids=["plain", "replay"])
async def test_burst_to_bro(broker: Broker, flags: tuple[str, ...]) -> None:
    """Lines that a program prints at once travel as one AMQP message, and bro's consumer prints them as separate lines."""
    exchange, bound = name(), asyncio.Event()
    consuming = asyncio.create_task(bro_consume(broker.url, exchange, 1, bound=bound))
    await bound.wait()
    program = ("sh", "-c", "printf 'one\\ntwo\\n\\ndrei\\n'; exec sleep 600")
    server = broadcast(broker, exchange, *flags, *program)
    await asyncio.to_thread(server.start)
    try:
        assert printed(await consuming) == ["one", "two", "", "drei"]
    finally:
        await asyncio.to_thread(server.stop)


@pytest.mark.parametrize("flags", [(), ("--replay",)], ids=["plain", "replay"])
async def test_bro_to_browsers(broker: Broker, flags: tuple[str, ...]) -> None:
    """Browsers receive what bro's publisher sends line by line, however many lines it sends at once."""
    exchange = name()
    server = broadcast(broker, exchange, *flags)
    await asyncio.to_thread(server.start)
    try:
        client = await asyncio.to_thread(server.connect)
        with client:
            await bro_publish(broker.url, exchange, "one line\n")
            await bro_publish(broker.url, exchange, "".join(f"{line}\n" for line in LINES))
            await bro_publish(broker.url, exchange, "")
            await bro_publish(broker.url, exchange, "the last")
            expected = ["one line", *LINES, "", "the last"]
            assert await asyncio.to_thread(receive, client, len(expected)) == expected
    finally:
        await asyncio.to_thread(server.stop)


@pytest.mark.parametrize("flags", [(), ("--replay",)], ids=["plain", "replay"])
async def test_existing_exchange(broker: Broker, flags: tuple[str, ...]) -> None:
    """With --passive, wsbridge uses an existing durable exchange; without it, wsbridge exits with status 4 and a hint."""
    exchange = name()
    await asyncio.to_thread(declare_durable, broker, exchange)
    refused = broadcast(broker, exchange, *flags)
    with pytest.raises(AssertionError, match="ended with 4"):
        await asyncio.to_thread(refused.start)
    assert "--passive" in refused.errors + refused.log
    server = broadcast(broker, exchange, "--passive", *flags, *command("ticks"))
    await asyncio.to_thread(server.start)
    try:
        client = await asyncio.to_thread(server.connect)
        with client:
            assert await asyncio.to_thread(receive, client, 5) == ["0"] * 5
    finally:
        await asyncio.to_thread(server.stop)


def receive(client: Client, count: int) -> list[str]:
    return [client.receive_text(DEADLINE) for _ in range(count)]


def declare_durable(broker: Broker, exchange: str) -> None:
    resource = f'rabbit_misc:r(<<"/">>, exchange, <<"{exchange}">>)'
    broker.eval(f'rabbit_exchange:declare({resource}, fanout, true, false, false, [], <<"guest">>)')
