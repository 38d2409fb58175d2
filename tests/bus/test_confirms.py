"""When a publish is overdue, as a pure function."""

from __future__ import annotations

from wsbridge.bus.rabbitmq.confirms import Confirms


def sent(*numbers: int, at: float = 0.0, timeout: float = 10.0) -> Confirms:
    confirms = Confirms(timeout)
    for number in numbers:
        confirms.sent(number, at)
    return confirms


def test_nothing_sent() -> None:
    """Without an unconfirmed publish, nothing is overdue."""
    assert not sent().is_overdue(1e9)


def test_timeout() -> None:
    """A publish is overdue when its timeout has passed, and not before."""
    confirms = sent(1, at=5.0)
    assert not confirms.is_overdue(14.9)
    assert confirms.is_overdue(15.0)


def test_confirmed() -> None:
    """A confirmed publish is not overdue, and its confirm restarts the timeout of the later ones."""
    confirms = sent(1, 2)
    confirms.settled(1, 9.0)
    assert not confirms.is_overdue(18.9)
    assert confirms.is_overdue(19.0)
    confirms.settled(2, 19.0)
    assert not confirms.is_overdue(1e9)


def test_skipped() -> None:
    """A publish that the broker skips becomes overdue, even if the broker continually confirms others."""
    confirms = sent(1, 2)
    confirms.settled(2, 1.0)
    for number in range(3, 20):
        confirms.sent(number, float(number))
        confirms.settled(number, number + 0.5)
        assert confirms.is_overdue(number + 0.5) is (number + 0.5 >= 11)


def test_out_of_order() -> None:
    """A confirm that arrives after those of later publishes is still in time."""
    confirms = sent(1, 2, 3)
    confirms.settled(3, 1.0)
    confirms.settled(1, 9.0)
    assert not confirms.is_overdue(10.9)
    confirms.settled(2, 10.9)
    assert not confirms.is_overdue(1e9)


def test_slow_link() -> None:
    """While the broker accepts bytes of a publish, however slowly, it is not overdue."""
    confirms = Confirms(10.0)
    confirms.sent(1, 0.0, end=1000)
    for now in range(1, 101):
        confirms.accepted(10 * now, float(now))
        assert not confirms.is_overdue(now + 9.0)
    assert confirms.is_overdue(100.0 + 10)


def test_bytes_of_other_links() -> None:
    """Bytes that the broker accepts after the end of a publish do not extend its timeout."""
    confirms = Confirms(10.0)
    confirms.sent(1, 0.0, end=1000)
    confirms.sent(2, 0.0, end=5000)
    confirms.accepted(1000, 1.0)
    for now in range(2, 6):
        confirms.accepted(1000 * now, float(now))
    assert confirms.is_overdue(11.0)
    confirms.settled(1, 10.9)
    assert not confirms.is_overdue(20.8)


def test_alarm() -> None:
    """The timeout does not include the time in which the broker blocks publishers, not even for skipped publishes."""
    confirms = sent(1, 2)
    confirms.settled(2, 1.0)
    confirms.restart(100.0)
    assert not confirms.is_overdue(109.9)
    assert confirms.is_overdue(110.0)


def test_no_timeout() -> None:
    """With a timeout of 0, no publish is ever overdue."""
    assert not sent(1, timeout=0.0).is_overdue(1e9)
