"""The addresses of one broker, for example of the nodes of a RabbitMQ cluster, and the order in which a process tries them."""

from __future__ import annotations

from typing import NamedTuple


class Turn(NamedTuple):
    """One attempt to connect."""

    url: str
    others_wait: bool
    """Whether this round still has addresses to try after this one."""


class Addresses:
    """Decides which address to try next. A round tries each address once.

    The first round begins with the first address. After a lost link, the next round begins with the address after that link's
    address. So a node that accepts connections but cannot serve the channel does not block the other nodes. If only the link was
    lost, and its connection still serves other links, the next round begins with the same address.
    """

    def __init__(self, urls: tuple[str, ...]) -> None:
        self.urls = urls
        self._first = 0

    def round(self) -> list[Turn]:
        """Return the attempts of the next round. The round after it begins one address later, unless `lost` sets its start."""
        order = self.urls[self._first :] + self.urls[: self._first]
        self._first = (self._first + 1) % len(self.urls)
        return [*(Turn(url, True) for url in order[:-1]), Turn(order[-1], False)]

    def lost(self, url: str, *, is_good: bool = False) -> None:
        """Record the loss of a link: the next round begins with its address if that is good, otherwise with the next address."""
        self._first = (self.urls.index(url) + (not is_good)) % len(self.urls)
