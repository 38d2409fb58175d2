"""In which order a process tries the addresses of its broker: values in, values out."""

from __future__ import annotations

from wsbridge.bus.rabbitmq.addresses import Addresses, Turn


def order(addresses: Addresses) -> str:
    return "".join(turn.url for turn in addresses.round())


def test_one_address() -> None:
    """No other address waits for the only one, in any round and after each loss."""
    addresses = Addresses(("a",))
    for _ in range(3):
        assert addresses.round() == [Turn("a", others_wait=False)]
        addresses.lost("a")


def test_first_round() -> None:
    """The first round goes from the first address to the last; others wait for all but that one."""
    assert Addresses(("a", "b", "c")).round() == [Turn("a", True), Turn("b", True), Turn("c", False)]


def test_rounds_that_fail() -> None:
    """Each round tries every address once and begins one address later, so that each is the last one before long."""
    addresses = Addresses(("a", "b", "c"))
    assert [order(addresses) for _ in range(4)] == ["abc", "bca", "cab", "abc"]


def test_round_after_a_loss() -> None:
    """After the loss of a link the next round begins with the address behind it, and ends with its own."""
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
