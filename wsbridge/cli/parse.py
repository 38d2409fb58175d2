"""Parses the command line and its environment variables into plain values, with click."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import click

from wsbridge.cli.gostyle import parse_bool, parse_int, to_click
from wsbridge.cli.options import BRIDGE, COMMANDS, PREFIX, Command, Option
from wsbridge.cli.units import (
    Milliseconds,
    Size,
    UnsignedMilliseconds,
    parse_milliseconds,
    parse_seconds,
    parse_size,
    parse_unsigned_milliseconds,
    show_size,
)
from wsbridge.errors import UsageError

WIDEST, NARROWEST = 110, 40
"""Characters per line of help: longer lines are hard to read, and shorter lines cannot hold a flag with its text."""

READERS: dict[type, Callable[[str], Any]] = {
    bool: parse_bool,
    int: parse_int,
    float: parse_seconds,
    str: str,
    Size: parse_size,
    Milliseconds: parse_milliseconds,
    UnsignedMilliseconds: parse_unsigned_milliseconds,
}


class GoValue(click.ParamType[Any]):
    """A value in Go's notation, or with a unit."""

    def __init__(self, kind: type) -> None:
        self.name = kind.__name__
        self._read = READERS[kind]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            name = param.name.replace("_", "-") if param and param.name else ""
            raise UsageError(f'invalid value "{value}" for flag -{name}: {error}') from None


def parse(words: Sequence[str], environ: Mapping[str, str], shape: Command = BRIDGE) -> SimpleNamespace:
    """Return every flag's value by its attribute name, and `command`: the words from COMMAND on. Raises UsageError.

    `help` is True if the command line asks for help. The value of a repeatable flag is a tuple. `said` holds the attributes that
    the command line sets; all other values come from variables or are defaults.
    """
    takes_value = {option.name: option.kind is not bool for option in shape.options}
    arguments = to_click(words, takes_value, elsewhere=_owners(shape))
    if arguments == ["--help"]:
        return SimpleNamespace(help=True)
    command = click.Command(
        "wsbridge",
        params=[*(_click_option(option) for option in shape.options), click.Argument(["command"], nargs=-1, type=click.UNPROCESSED)],
        callback=lambda **values: SimpleNamespace(help=False, said=_said(values), **values),
        context_settings={"allow_interspersed_args": False},
        add_help_option=False,
    )
    defaults = {option.attribute: _from_environment(option, environ) for option in shape.options if environ.get(option.variable)}
    try:
        values = command.main(arguments, prog_name="wsbridge", standalone_mode=False, default_map=defaults)
    except click.UsageError as error:
        raise UsageError(error.format_message()) from None
    assert isinstance(values, SimpleNamespace)
    return values


def _said(values: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the values that come from the command line."""
    context = click.get_current_context()
    return frozenset(name for name in values if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE)


def _owners(shape: Command) -> dict[str, str]:
    """Return the flags of other commands, each with the name of its command."""
    return {option.name: other.name for other in reversed(COMMANDS.values()) if other is not shape for option in other.options}


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the variables that look like wsbridge's but stand for no flag: misspelt names that would otherwise stay unnoticed."""
    known = {option.variable for shape in COMMANDS.values() for option in shape.options} | {f"{PREFIX}FASTNET"}
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in known)


def without_passwords(sentence: str, words: Iterable[str]) -> str:
    """Return a sentence with user and password removed from each URL that these words contain.

    The user may have written such a URL in the wrong place on the command line.
    """
    for word in words:
        for rest in _behind_schemes(word):
            user, at, _ = rest.rpartition("@")
            for written in (user, repr(user)[1:-1]):
                sentence = sentence.replace(f"://{written}{at}", "://…@") if at else sentence
    return sentence


def _behind_schemes(word: str) -> Iterator[str]:
    """Yield the text after each `://`: up to the end of the word, and up to the last comma before the next `://`.

    An error may quote a list cut at its commas.
    """
    _, *parts = re.split("://", word)
    for number, part in enumerate(parts):
        yield "://".join(parts[number:])
        yield part.rpartition(",")[0]


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
    formatter.write_paragraph()
    formatter.write_text(_spelling(shape))
    formatter.write_paragraph()
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
    long = next(option for option in shape.options if "-" in option.name)
    takes_command = any("COMMAND" in usage for usage in shape.usages)
    is_repeatable = any(option.repeatable for option in shape.options)
    return (
        ("Flags end at COMMAND: the words after it are the command's own. " if takes_command else "")
        + "-flag, --flag, --flag=value and --flag value are equivalent; a boolean flag accepts a value only after =. "
        + f"Each flag is also an environment variable: {shape.options[0].variable}, {long.variable}, ..."
        + ("; the variable of a repeatable flag holds one value a line." if is_repeatable else "")
    )


def short_help(name: str, shape: Command = BRIDGE) -> str:
    """Return the usage text that accompanies an error."""
    usages = "\n   or: ".join(f"{name} {usage}" for usage in shape.usages)
    word = "" if shape is BRIDGE else f"{shape.name} "
    return f"Usage: {usages}\nTry '{name} {word}--help' for all flags.\n"


def _described(option: Option) -> str:
    if option.default in (None, "", False, 0) or option.kind is bool:
        return option.help
    default = str(option.default)
    if option.kind is Size and isinstance(option.default, int):
        default = show_size(option.default)
    elif option.kind is float:
        default = f"{option.default:g}"
    # A help text may end with the meaning of 0, in parentheses.
    return f"{option.help[:-1]}; default {default})" if option.help.endswith(")") else f"{option.help} (default {default})"


def _click_option(option: Option) -> click.Option:
    default = () if option.repeatable else False if option.kind is bool and option.default is None else option.default
    return click.Option(
        [f"--{option.name}", option.attribute], type=GoValue(option.kind), default=default, multiple=option.repeatable, expose_value=True
    )


def _from_environment(option: Option, environ: Mapping[str, str]) -> Any:
    value = environ[option.variable]
    if option.repeatable:
        return tuple(filter(None, value.split("\n")))
    try:
        return GoValue(option.kind).convert(value, None, None)
    except UsageError as error:
        raise UsageError(str(error).replace("for flag -", f"for variable {option.variable}")) from None


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
