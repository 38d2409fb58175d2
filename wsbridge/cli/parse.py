"""Parses the command line and its environment variables into plain values, with click."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import click

from wsbridge.cli.commands import BRIDGE, COMMANDS, Command
from wsbridge.cli.gostyle import to_click
from wsbridge.cli.option import PREFIX, Option
from wsbridge.errors import UsageError


class GoValue(click.ParamType[Any]):
    """A value in Go's notation, or with a unit."""

    def __init__(self, option: Option) -> None:
        self.name = option.kind.value
        self._read = option.read

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

    `help` is True if the command line asks for help. The value of a repeatable flag is a tuple. `given` holds the attributes that
    the command line sets; all other values come from variables or are defaults.
    """
    takes_value = {option.name: not option.is_boolean for option in shape.options}
    arguments = to_click(words, takes_value, elsewhere=_owners(shape))
    if arguments == ["--help"]:
        return SimpleNamespace(help=True)
    command = click.Command(
        "wsbridge",
        params=[*(_click_option(option) for option in shape.options), click.Argument(["command"], nargs=-1, type=click.UNPROCESSED)],
        callback=lambda **values: SimpleNamespace(help=False, given=_given(values), **values),
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


def _given(values: Mapping[str, Any]) -> frozenset[str]:
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


def _click_option(option: Option) -> click.Option:
    default = () if option.is_repeatable else False if option.is_boolean and option.default is None else option.default
    return click.Option(
        [f"--{option.name}", option.attribute], type=GoValue(option), default=default, multiple=option.is_repeatable, expose_value=True
    )


def _from_environment(option: Option, environ: Mapping[str, str]) -> Any:
    value = environ[option.variable]
    if option.is_repeatable:
        return tuple(filter(None, value.split("\n")))
    try:
        return GoValue(option).convert(value, None, None)
    except UsageError as error:
        raise UsageError(str(error).replace("for flag -", f"for variable {option.variable}")) from None
