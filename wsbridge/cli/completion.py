"""Completion in a shell: of commands, flags and values. The scripts for the shells are click's.

A script runs wsbridge with a variable that names the shell, and with the words of the command line in other variables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from wsbridge.cli.commands import BRIDGE, BROADCAST, CHECK, COMMANDS, COMPLETION, COMPLETION_VARIABLE, CONFIG, SERVE, Command
from wsbridge.cli.option import Option
from wsbridge.errors import UsageError
from wsbridge.settings.declare import Kind

SHELLS = ("bash", "zsh", "fish")
PROGRAM = "wsbridge"
FILES = CompletionItem("", type="file")
FOLDERS = CompletionItem("", type="dir")
NAMES_A_FILE = ("FILE", "PATH")
"""The metavars of flags whose values are files."""


def print_script(words: Sequence[str]) -> int:
    """Print the script for a shell; return the exit status."""
    if len(words) != 1 or words[0] not in SHELLS:
        raise UsageError(f"completion needs the name of a shell: {', '.join(SHELLS[:-1])} or {SHELLS[-1]}")
    print(_shell(words[0]).source())
    return 0


def print_completions(environ: Mapping[str, str]) -> int:
    """Print the completions of the command line that a script passes in the environment; return the exit status."""
    shell = environ[COMPLETION_VARIABLE].removesuffix("_complete")
    if shell not in SHELLS:
        return 1
    complete = _shell(shell)
    for item in completions(*complete.get_completion_args()):
        print(complete.format_completion(item))
    return 0


def completions(words: Sequence[str], incomplete: str) -> list[CompletionItem]:
    """Return the completions of the last word of a command line, which may be empty; `words` are those before it."""
    line = _Line.of(words, incomplete)
    if line.flag is not None:
        return [*_values(line.flag, line.prefix, line.value)]
    if line.is_past_flags:
        return [FILES]
    if incomplete.startswith("-"):
        hyphens = "--" if incomplete.startswith("--") or incomplete == "-" else "-"
        flags = ((f"{hyphens}{option.name}", option.help) for option in line.shape.options)
        return [CompletionItem(flag, help=text) for flag, text in flags if flag.startswith(incomplete)]
    return [*_words(line, incomplete)]


class _Line(NamedTuple):
    """A command line up to the word to complete."""

    shape: Command
    names: tuple[str, ...]
    """The commands at its beginning: none, `config`, or `config broadcast`."""
    is_bare: bool
    """Whether nothing but these commands precedes the word."""
    is_past_flags: bool
    """Whether COMMAND or `--` precedes the word."""
    flag: Option | None
    """The flag whose value the word is."""
    prefix: str
    """The part of the word before the value, such as `--framing=`."""
    value: str

    @classmethod
    def of(cls, words: Sequence[str], incomplete: str) -> _Line:
        if incomplete == "=":
            # bash takes "=" as a word; the value begins after it.
            words, incomplete = [*words, incomplete], ""
        rest = [*_joined(words)]
        names: list[str] = []
        if rest and rest[0] in COMMANDS:
            names.append(rest.pop(0))
        if names == [CONFIG.name] and rest and rest[0] in (BRIDGE.name, BROADCAST.name):
            names.append(rest.pop(0))
        shape = COMMANDS[names[-1]] if names else BRIDGE
        options = {option.name: option for option in (BRIDGE if shape is CONFIG else shape).options}
        is_bare, flag = not rest, None
        while rest and rest[0].startswith("-") and rest[0] not in ("-", "--"):
            name, equals, value = rest.pop(0).lstrip("-").partition("=")
            flag = options.get(name)
            if flag is not None and (value or (flag.is_boolean and not equals)):
                flag = None
            elif flag is not None and rest and not equals:
                rest.pop(0)
                flag = None
        name, equals, value = incomplete.lstrip("-").partition("=")
        if flag is None and incomplete.startswith("-") and equals and not rest:
            return cls(shape, tuple(names), False, False, options.get(name), incomplete.removesuffix(value), value)
        return cls(shape if shape is not CONFIG else BRIDGE, tuple(names), is_bare, bool(rest), None if rest else flag, "", incomplete)


def _joined(words: Sequence[str]) -> Iterator[str]:
    """Yield the words of a command line; bash passes `--port=80` as three of them."""
    parts = list(words)
    while parts:
        word = parts.pop(0)
        if word.startswith("-") and parts and parts[0] == "=":
            parts.pop(0)
            word = f"{word}={parts.pop(0) if parts else ''}"
        yield word


def _values(option: Option, prefix: str, value: str) -> Iterator[CompletionItem]:
    """Yield the completions of a flag's value."""
    field = option.field
    if field is not None and field.choices:
        yield from (CompletionItem(f"{prefix}{choice}") for choice in field.choices if choice.startswith(value))
    elif field is not None and field.setting.place == "folder":
        yield FOLDERS
    elif option.metavar in NAMES_A_FILE:
        yield FILES
    elif option.kind is Kind.BOOLEAN:
        yield from (CompletionItem(f"{prefix}{choice}") for choice in ("true", "false") if choice.startswith(value))


def _words(line: _Line, incomplete: str) -> Iterator[CompletionItem]:
    """Yield the completions of a word that is no flag: a command, a program or an argument."""
    commands: tuple[Command, ...] = ()
    if line.is_bare and not line.names:
        commands = tuple(COMMANDS.values())
    elif line.is_bare and line.names == (CONFIG.name,):
        commands = (BRIDGE, BROADCAST)
    shape = COMMANDS[line.names[-1]] if line.names else BRIDGE
    if shape in (SERVE, CHECK, CONFIG, BRIDGE, BROADCAST):
        # The shell offers files if no other completion fits.
        yield FILES
    if shape is COMPLETION:
        yield from (CompletionItem(shell) for shell in SHELLS if shell.startswith(incomplete))
    yield from (CompletionItem(command.name, help=command.summary) for command in commands if command.name.startswith(incomplete))


def _shell(name: str) -> ShellComplete:
    found = get_completion_class(name)
    assert found is not None
    return found(click.Command(PROGRAM), {}, PROGRAM, COMPLETION_VARIABLE)
