"""Sizes and times with units, as values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsbridge.cli.commands import COMMANDS, Command
from wsbridge.cli.parse import parse
from wsbridge.errors import UsageError
from wsbridge.rules.units import parse_milliseconds, parse_seconds, parse_size, parse_unsigned_milliseconds, show_size
from wsbridge.settings.declare import Kind


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 65536),
        ("0x10", 16),
        ("0x1B", 27),
        ("010", 8),
        ("-1", -1),
        ("1_000", 1000),
        ("16M", 16 * 1024**2),
        ("16MiB", 16 * 1024**2),
        ("16 MiB", 16 * 1024**2),
        ("16mib", 16 * 1024**2),
        ("16MB", 16_000_000),
        ("64k", 65536),
        ("64K", 65536),
        ("64KiB", 65536),
        ("64kB", 64_000),
        ("1.5M", 1_572_864),
        ("1g", 1024**3),
        ("2T", 2 * 1024**4),
        ("100B", 100),
        ("1_000k", 1_024_000),
    ],
)
def test_size(text: str, size: int) -> None:
    """A plain number is bytes, in Go's syntax. k, M, G and T are powers of 1024, also with iB; kB, MB, GB and TB are powers of 1000."""
    assert parse_size(text) == size


NO_SIZES = ["", " ", "M", "16X", "16MM", "16iB", "-16M", "+16M", "16M ", " 16M", "016M", "1.M", "0.3k", "1e3", "16 MiB!", "٣M"]


@pytest.mark.parametrize("text", NO_SIZES)
def test_invalid_size(text: str) -> None:
    """Any other text is an error that shows the correct form; a size is a whole number of bytes."""
    with pytest.raises(ValueError, match="64k or 16MiB"):
        parse_size(text)


def test_size_out_of_range() -> None:
    """A size beyond 63 bits is an error."""
    with pytest.raises(ValueError, match="out of range"):
        parse_size("99999999T")


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("0", 0),
        ("25000", 25_000),
        ("0x10", 16),
        ("-1", -1),
        ("500ms", 500),
        ("25s", 25_000),
        ("25 s", 25_000),
        ("1.5s", 1500),
        ("1m", 60_000),
        ("1min", 60_000),
        ("1m30s", 90_000),
        ("1h 30m", 5_400_000),
        ("2d", 172_800_000),
        ("25S", 25_000),
    ],
)
def test_milliseconds(text: str, ms: int) -> None:
    """A plain number is milliseconds; a time may have several units in sequence."""
    assert parse_milliseconds(text) == ms


@pytest.mark.parametrize("text", ["", "s", "25x", "25sx", "-25s", "0.5ms", "1.5", "025s", "25s!", "1:30", "25s 3"])
def test_invalid_milliseconds(text: str) -> None:
    """Any other text is an error that shows the correct form; fractions of a millisecond are invalid."""
    with pytest.raises(ValueError, match="500ms, 25s or 1m"):
        parse_milliseconds(text)


def test_unsigned() -> None:
    """A time without a sign has units too, and no plus."""
    assert [parse_unsigned_milliseconds(text) for text in ("0", "100", "1s")] == [0, 100, 1000]
    for text in ("-1", "+1", "-1s"):
        with pytest.raises(ValueError, match="write"):
            parse_unsigned_milliseconds(text)


SECONDS = [("60", 60.0), ("2.5", 2.5), ("0", 0.0), ("-1", -1.0), ("1e1", 10.0), ("60s", 60.0), ("500ms", 0.5), ("1m30s", 90.0)]


@pytest.mark.parametrize(("text", "seconds"), SECONDS)
def test_seconds(text: str, seconds: float) -> None:
    """A plain number is seconds."""
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "nan", "inf", "s", "60 x", "1:30"])
def test_invalid_seconds(text: str) -> None:
    """Any other text is an error that shows the correct form."""
    with pytest.raises(ValueError, match="500ms, 25s or 1m"):
        parse_seconds(text)


@given(st.integers(0, 2**62))
def test_shown_size_is_valid(size: int) -> None:
    """A flag accepts a size in the form in which help shows it."""
    assert parse_size(show_size(size)) == size


@pytest.mark.parametrize(("size", "text"), [(0, "0"), (1000, "1000"), (65536, "64 KiB"), (16 * 1024**2, "16 MiB"), (1024**3, "1 GiB")])
def test_show(size: int, text: str) -> None:
    """A whole number of a unit is shown with that unit."""
    assert show_size(size) == text


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_size_and_time_accepts_units(command: Command) -> None:
    """Each flag for BYTES, MS or SECONDS accepts a unit, on the command line and as a variable."""
    kinds = {"BYTES": (Kind.SIZE, "16k", 16384), "MS": (Kind.SECONDS, "25s", 25_000), "SECONDS": (Kind.SECONDS, "1m", 60.0)}
    for option in command.options:
        if option.metavar in kinds:
            kind, text, value = kinds[option.metavar]
            assert option.kind is kind, f"--{option.name}"
            for flags in (parse([f"--{option.name}={text}"], {}, command), parse([], {option.variable: text}, command)):
                assert getattr(flags, option.attribute) == value


def test_message() -> None:
    """The error for an invalid value names the flag or the variable, and shows the correct form."""
    with pytest.raises(UsageError, match='invalid value "16Q" for flag -maxline: write a number of bytes, or a size such as 64k or 16MiB'):
        parse(["--maxline=16Q"], {})
    with pytest.raises(UsageError, match='invalid value "25x" for variable WSBRIDGE_PINGMS: write a whole number of milliseconds'):
        parse([], {"WSBRIDGE_PINGMS": "25x"})
