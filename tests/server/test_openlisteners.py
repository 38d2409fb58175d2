"""The listeners of a server while its settings change. The listeners are twins: tests/net/test_listeners.py opens real ones."""

from __future__ import annotations

import errno

import pytest

from wsbridge.errors import ListenError
from wsbridge.server.openlisteners import OpenListeners
from wsbridge.settings import ListenSettings


class Twin:
    """A listener that opens no socket."""

    def __init__(self, house: House, settings: ListenSettings) -> None:
        self._house = house
        self.settings = settings
        self.addresses = [settings.address]
        self.renewals = 0
        self.is_closed = False

    def renew(self) -> None:
        self._house.read_certificate(self.settings)
        self.renewals += 1

    def change(self, settings: ListenSettings) -> None:
        self._house.read_certificate(settings)
        self.settings = settings

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._house.bound -= self._house.names(self.settings)


class House:
    """Opens twins. `bound` are the names that nothing else can bind, `:80` and `a:80` alike; `damaged` are certificates."""

    def __init__(self) -> None:
        self.bound: set[str] = set()
        self.inherited = {"systemd:web"}
        self.damaged: set[str] = set()
        self.thief: str | None = None
        """A name that another process binds as soon as it is free."""

    @staticmethod
    def names(settings: ListenSettings) -> set[str]:
        return {settings.address.rpartition(":")[2]}

    def read_certificate(self, settings: ListenSettings) -> None:
        if settings.certificate in self.damaged:
            raise ListenError(f"{settings.certificate} is damaged")

    async def open(self, settings: ListenSettings) -> Twin:
        self.read_certificate(settings)
        if settings.inherited is not None:
            if settings.address not in self.inherited:
                raise ListenError("no such socket is left")
            self.inherited.remove(settings.address)
        elif self.names(settings) & {*self.bound, self.thief}:
            raise ListenError("address already in use", errno=errno.EADDRINUSE)
        self.bound |= self.names(settings)
        return Twin(self, settings)

    def close(self) -> None:
        """Do nothing."""


def at(address: str, certificate: str = "") -> ListenSettings:
    return ListenSettings(address=address, certificate=certificate)


async def opened(house: House, *listeners: ListenSettings) -> tuple[OpenListeners, list[Twin]]:
    """Open listeners; return the twins, too."""
    twins: list[Twin] = []
    open_one = house.open

    async def open_and_note(settings: ListenSettings) -> Twin:
        twins.append(await open_one(settings))
        return twins[-1]

    house.open = open_and_note  # type: ignore[method-assign]
    found = OpenListeners(house)  # type: ignore[arg-type]
    await found.open(listeners)
    return found, twins


def addresses(listeners: OpenListeners) -> list[str]:
    return [settings.address for settings, _ in listeners.addresses]


async def test_change() -> None:
    """A listener whose settings stay reads its certificate again; the others open, change and close."""
    listeners, twins = await opened(House(), at("a:1", "one"), at("b:2", "two"), at("c:3"))
    plan = await listeners.change((at("d:4"), at("a:1", "one"), at("b:2", "new")))
    assert [listen.address for listen in (*plan.added, *plan.removed)] == ["d:4", "c:3"]
    assert addresses(listeners) == ["d:4", "a:1", "b:2"]
    assert [twin.renewals for twin in twins] == [1, 0, 0, 0]
    assert [twin.settings.certificate for twin in twins] == ["one", "new", "", ""]
    assert [twin.is_closed for twin in twins] == [False, False, True, False]


async def test_address_of_a_removed_listener() -> None:
    """A new listener may need the port of one that is removed."""
    listeners, _ = await opened(House(), at("127.0.0.1:1"))
    await listeners.change((at(":1"),))
    assert addresses(listeners) == [":1"]


async def test_address_in_use() -> None:
    """If an address is in use, all listeners are as before; connections to one that was to be removed may have been refused."""
    house = House()
    listeners, twins = await opened(house, at("a:1"), at("b:2"))
    house.bound.add("9")
    with pytest.raises(ListenError, match="in use"):
        await listeners.change((at("a:1"), at("c:3"), at("d:9")))
    assert addresses(listeners) == ["a:1", "b:2"]
    assert house.bound == {"1", "2", "9"}
    assert [twin.settings.address for twin in twins if not twin.is_closed] == ["a:1", "b:2"]


async def test_inherited_socket_stays_open() -> None:
    """A change that fails keeps an inherited socket: the server could not open it again."""
    house = House()
    listeners, twins = await opened(house, at("systemd:web"), at("b:2"))
    house.bound.add("9")
    with pytest.raises(ListenError, match="in use"):
        await listeners.change((at("d:9"),))
    assert addresses(listeners) == ["systemd:web", "b:2"]
    assert [twin.settings.address for twin in twins if not twin.is_closed] == ["systemd:web", "b:2"]


async def test_address_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    """A listener that cannot open again after a failed change is logged; the next change opens it."""
    house = House()
    listeners, _ = await opened(house, at("a:1"), at("b:2"))
    house.bound.add("9")
    house.thief = "2"
    with pytest.raises(ListenError, match="in use"):
        await listeners.change((at("a:1"), at("d:9")))
    assert "the listener at b:2 is closed: address already in use" in caplog.text
    assert addresses(listeners) == ["a:1"]
    house.thief = None
    await listeners.change((at("a:1"), at("b:2")))
    assert addresses(listeners) == ["a:1", "b:2"]


async def test_damaged_certificate(caplog: pytest.LogCaptureFixture) -> None:
    """If a certificate cannot be used, the listeners have their old settings again, as far as their files are still usable."""
    house = House()
    listeners, twins = await opened(house, at("a:1", "old a"), at("b:2", "old b"), at("c:3"), at("d:4"))
    house.damaged |= {"new c", "old a"}
    with pytest.raises(ListenError, match="new c is damaged"):
        await listeners.change((at("a:1", "new a"), at("b:2", "new b"), at("c:3", "new c"), at("e:5")))
    assert [(twin.settings.certificate, twin.is_closed) for twin in twins] == [
        ("new a", False),
        ("old b", False),
        ("", False),
        ("", False),
        ("", True),
    ]
    assert "the listener at a:1 has its new settings already: old a is damaged" in caplog.text
