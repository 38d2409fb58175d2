"""Addresses that exclude each other."""

from __future__ import annotations

import pytest

from wsbridge.rules.overlap import Occupied


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("", ""),
        ("", "*"),
        ("", "0.0.0.0"),
        ("0.0.0.0", ""),
        ("", "[::]"),
        ("", "127.0.0.1"),
        ("127.0.0.1", ""),
        ("[::1]", "*"),
        ("0.0.0.0", "127.0.0.1"),
        ("[::]", "[::1]"),
        ("[::1]", "[0:0::1]"),
        ("[FE80::1]", "[fe80::1]"),
        ("localhost", "127.0.0.1"),
        ("LocalHost", "localhost"),
        ("0.0.0.0", "localhost"),
        ("a.example", "A.Example"),
        ("", "a.example"),
    ],
)
def test_excluded(first: str, second: str) -> None:
    """Of two such addresses, only one can be bound; at different ports, both can."""
    occupied = Occupied[int]()
    assert occupied.claim(first, 80, 1) is None
    assert occupied.claim(second, 81, 2) is None
    assert occupied.claim(second, 80, 3) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("127.0.0.1", "127.0.0.2"),
        ("0.0.0.0", "[::]"),
        ("0.0.0.0", "[::1]"),
        ("127.0.0.1", "[::1]"),
        ("[::1]", "localhost"),
        ("a.example", "b.example"),
        ("0.0.0.0", "a.example"),
    ],
)
def test_compatible(first: str, second: str) -> None:
    """Both of these can be bound, or only the resolver can tell."""
    occupied = Occupied[int]()
    assert [occupied.claim(host, 80, 1) for host in (first, second)] == [None, None]


def test_many() -> None:
    """A lookup does not search all addresses of a port."""
    occupied = Occupied[int]()
    assert [occupied.claim(f"10.0.{number // 250}.{number % 250}", 80, number) for number in range(5000)] == [None] * 5000
    assert occupied.claim("10.0.3.7", 80, 0) == 757
    assert occupied.claim("", 80, 0) == 0
