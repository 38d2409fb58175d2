"""The order in which a process tries the addresses of its broker, as a pure function."""

from __future__ import annotations

from wsbridge.bus.rabbitmq.addresses import Addresses, Turn


def order(addresses: Addresses) -> str:
    return "".join(turn.url for turn in addresses.round())


def test_one_address() -> None:
    """With a single address, no attempt has other addresses after it, in any round and after each loss."""
    addresses = Addresses(("a",))
    for _ in range(3):
        assert addresses.round() == [Turn("a", others_wait=False)]
        addresses.lost("a")


def test_first_round() -> None:
    """The first round goes from the first address to the last; all attempts but the last have other addresses after them."""
    assert Addresses(("a", "b", "c")).round() == [Turn("a", True), Turn("b", True), Turn("c", False)]


def test_rounds_that_fail() -> None:
    """Each round tries every address once and begins one address later, so that each address is soon the last of a round."""
    addresses = Addresses(("a", "b", "c"))
    assert [order(addresses) for _ in range(4)] == ["abc", "bca", "cab", "abc"]


def test_round_after_a_loss() -> None:
    """After the loss of a link, the next round begins with the next address and ends with the lost one."""
    addresses = Addresses(("a", "b", "c"))
    addresses.round()
    addresses.lost("b")
    assert order(addresses) == "cab"
    addresses.lost("c")
    assert order(addresses) == "abc"
    addresses.lost("a")
    assert order(addresses) == "bca"


def test_round_after_a_fault_of_the_link_alone() -> None:
    """If the connection still serves other links, the next round begins with the same address."""
    addresses = Addresses(("a", "b", "c"))
    addresses.round()
    addresses.lost("b", is_good=True)
    assert order(addresses) == "bca"
