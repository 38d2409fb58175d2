"""The addresses of one broker, for example of the nodes of a RabbitMQ cluster: in which order a process tries them."""

from __future__ import annotations

from typing import NamedTuple


class Turn(NamedTuple):
    """One attempt to connect."""

    url: str
    others_wait: bool
    """Whether other addresses of the round are still to be tried."""


class Addresses:
    """Decides which address is next. A round tries each address once.

    The first round begins with the first address. When a link is lost, the next round begins with the address behind it: a node
    that accepts connections and cannot serve the channel does not keep it from the others.
    """

    def __init__(self, urls: tuple[str, ...]) -> None:
        self.urls = urls
        self._first = 0

    def round(self) -> list[Turn]:
        """Return the attempts of the next round. The round after it begins one address later, unless `lost` says where."""
        order = self.urls[self._first :] + self.urls[: self._first]
        self._first = (self._first + 1) % len(self.urls)
        return [*(Turn(url, True) for url in order[:-1]), Turn(order[-1], False)]

    def lost(self, url: str) -> None:
        """Take note that the link to an address was lost: the next round begins with the address behind it."""
        self._first = (self.urls.index(url) + 1) % len(self.urls)
