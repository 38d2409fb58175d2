"""The texts of `--help` and of the usage, with click's formatter."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Mapping
from contextlib import suppress

import click

from wsbridge.cli.commands import BRIDGE, COMMANDS, Command
from wsbridge.cli.option import Option
from wsbridge.rules.units import show_size
from wsbridge.settings.declare import Kind

WIDEST, NARROWEST = 110, 40
"""Characters per line of help: longer lines are hard to read, and shorter lines cannot hold a flag with its text."""


def full_help(name: str, shape: Command = BRIDGE, *, width: int) -> str:
    """Return the full help, in lines of at most `width` characters."""
    formatter = click.HelpFormatter(width=width)
    formatter.write_text(shape.summary)
    formatter.write_paragraph()
    for usage in shape.usages:
        formatter.write_usage(name, usage)
    for title, options in shape.groups.items():
        with formatter.section(title):
            formatter.write_dl([(option.shown, _described(option)) for option in options], col_max=min(24, width // 3))
    if shape.options:
        formatter.write_paragraph()
        formatter.write_text(_spelling(shape))
    others = [other for other in COMMANDS.values() if other is not shape] if name != "websocketd" else []
    if others:
        with formatter.section("Other commands"):
            formatter.write_dl([(f"{name} {other.name} --help", other.summary) for other in others], col_max=min(30, width // 2))
    formatter.write_paragraph()
    lines = [line for words, what in shape.examples for line in _example(f"{name} {words}", what, width)]
    return formatter.getvalue() + "\n".join(["Examples:", *lines, ""])


def _example(command: str, what: str, width: int) -> list[str]:
    """Return the lines of an example, which can be pasted into a shell.

    The explanation follows the command, or precedes it if the line would be too long.
    """
    line = f"  {command}" + (f"  # {what}" if what else "")
    if len(line) <= width:
        return [line]
    parts = textwrap.wrap(command, width - 8, break_long_words=False, break_on_hyphens=False)
    above = textwrap.wrap(what, width, initial_indent="  # ", subsequent_indent="  # ")
    return [*above, *" \\\n      ".join([f"  {parts[0]}", *parts[1:]]).splitlines()]


def _spelling(shape: Command) -> str:
    """Return how to write flags, with flags of this command as examples."""
    long = [option.variable for option in shape.options if "-" in option.name][:1]
    variables = dict.fromkeys([shape.options[0].variable, *long])
    takes_command = any("COMMAND" in usage for usage in shape.usages)
    is_repeatable = any(option.is_repeatable for option in shape.options)
    return (
        ("Flags end at COMMAND: all words after it are arguments of the program. " if takes_command else "")
        + "A flag begins with - or --. Its value follows = or a space; a boolean flag accepts a value only after =. "
        + f"Each flag is also an environment variable: {', '.join(variables)}{', ...' if len(shape.options) > len(variables) else ''}"
        + ("; the variable of a repeatable flag holds one value per line." if is_repeatable else ".")
    )


def short_help(name: str, shape: Command = BRIDGE) -> str:
    """Return the usage text that accompanies an error."""
    usages = "\n   or: ".join(f"{name} {usage}" for usage in shape.usages)
    word = "" if shape is BRIDGE else f"{shape.name} "
    return f"Usage: {usages}\nTry '{name} {word}--help' for {'all flags' if shape.options else 'more'}.\n"


def _described(option: Option) -> str:
    if option.default in (None, "", False, 0) or option.is_boolean:
        return option.help
    default = str(option.default)
    if option.kind is Kind.SIZE:
        default = show_size(option.default)
    elif option.kind is Kind.SECONDS:
        default = f"{option.default:g}"
    # A help text may end with the meaning of 0, in parentheses.
    return f"{option.help[:-1]}; default {default})" if option.help.endswith(")") else f"{option.help} (default {default})"


def help_width(environ: Mapping[str, str]) -> int:
    """Return the width of help: COLUMNS, else the width of the terminal, even if stdout is a pipe to a pager, else 80."""
    columns = environ.get("COLUMNS", "")
    width = int(columns) if columns.isascii() and columns.isdecimal() and int(columns) else _terminal_columns()
    return max(NARROWEST, min(WIDEST, width))


def _terminal_columns() -> int:
    for stream in (sys.stdout, sys.stderr, sys.stdin):
        with suppress(OSError, ValueError, AttributeError):
            if columns := os.get_terminal_size(stream.fileno()).columns:
                return columns
    return 80
