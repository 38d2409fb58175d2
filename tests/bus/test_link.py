"""The opening of a link whose attempts fail, without a broker. Its other behaviour is tested in test_contract.py, at a real broker."""

from __future__ import annotations

from collections.abc import Callable

import aiormq
import pytest

from wsbridge.bus.exchange import ExchangeSettings
from wsbridge.bus.rabbitmq.link import Link
from wsbridge.errors import BusError

URL = "amqp://nowhere/"
NOT_LOADED = aiormq.exceptions.ConnectionInternalError("INTERNAL_ERROR")


def link_with(attempt: Callable[[Link, int], None], *, timeout: float = 60) -> Link:
    """Return a link whose attempts call `attempt` with their number, instead of the broker."""
    link, number = Link(ExchangeSettings((URL,), timeout=timeout), "temps", URL), 0

    async def opened() -> None:
        nonlocal number
        number += 1
        attempt(link, number)

    link._open = opened
    return link


async def test_loss_of_an_earlier_attempt() -> None:
    """A link that opens after the broker has closed the connection of an earlier attempt counts no connection as lost."""

    def attempt(link: Link, number: int) -> None:
        if number == 1:
            link.connection_lost("INTERNAL_ERROR", is_suspect=True)
            raise NOT_LOADED

    link = link_with(attempt)
    await link.open()
    assert (link.is_lost, link.is_connection_lost) == (False, False)
    link.lose("the exchange was deleted")
    assert (link.is_lost, link.is_connection_lost) == (True, False)


@pytest.mark.parametrize("with_connection", [False, True])
async def test_missing_object(with_connection: bool) -> None:
    """If an object of the channel is still missing at the timeout, the error belongs to the channel."""

    def attempt(link: Link, number: int) -> None:
        if with_connection:
            link.connection_lost("INTERNAL_ERROR", is_suspect=True)
        raise NOT_LOADED

    with pytest.raises(BusError) as caught:
        await link_with(attempt, timeout=0.01).open()
    assert caught.value.exchange == "temps"


async def test_unreachable_broker() -> None:
    """An error of the connection belongs to no channel."""

    def refuse(link: Link, number: int) -> None:
        raise ConnectionRefusedError

    with pytest.raises(BusError) as caught:
        await link_with(refuse).open()
    assert caught.value.exchange == ""
