"""The settings of a program: its terminal, and settings that conflict."""

from __future__ import annotations

import pytest

from wsbridge.settings.program import PLAIN, ProgramSettings, TerminalSize, parse_pty_size


def test_terminal() -> None:
    """Without a size, the program gets the plain terminal; without --pty, it gets none."""
    assert ProgramSettings(pty_size="80x24").terminal is None
    assert ProgramSettings(pty=True).terminal is PLAIN
    assert ProgramSettings(pty=True, pty_size="132x43").terminal == TerminalSize(132, 43)
    assert ProgramSettings(pty=True, pty_size="2x0").terminal is not PLAIN


@pytest.mark.parametrize("text", ["", "80", "80x", "x24", "80X24", "-1x24", "65536x24", "80x24\n"])
def test_no_size(text: str) -> None:
    """The check refuses anything but two numbers of 16 bits, and shows an example."""
    with pytest.raises(ValueError, match="such as 132x43"):
        parse_pty_size(text)


def test_faults() -> None:
    """--passstderr requires the framing lines, because its JSON records are lines of text."""
    assert [*ProgramSettings(pass_stderr=True).faults()] == []
    (fault,) = ProgramSettings(pass_stderr=True, framing="nul").faults()
    assert (fault.path, "<framing>=nul" in fault.sentence) == (("pass_stderr",), True)
