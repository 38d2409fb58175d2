"""Write the generated parts of the documentation: the tables of flags and of keys, and the man pages.

Both come from `wsbridge/cli/options.py` and from the declarations in `wsbridge/settings`. A table stands between two comments of
a page: `<!-- flags: COMMAND WHICH -->`, where WHICH is the title of a group or the names of flags, and `<!-- end of flags -->`. In
the same way, `<!-- keys: TABLE -->` begins the keys of a configuration file. The man pages are in docs/man.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from wsbridge import __version__
from wsbridge.cli.commands import BRIDGE, COMMANDS, Command
from wsbridge.cli.option import Option
from wsbridge.config.sentences import in_keys
from wsbridge.rules.units import show_size
from wsbridge.settings import BrokerSettings, EndpointSettings, ListenSettings, ProcessSettings
from wsbridge.settings.declare import Field, Kind, fields_of
from wsbridge.settings.endpoint import KINDS, settings_of

ROOT = Path(__file__).resolve().parents[1]

TABLE = re.compile(r"(<!-- flags: (\w+) ([^>]+?) -->\n).*?(<!-- end of flags -->\n)", re.DOTALL)
KEYS = re.compile(r"(<!-- keys: (\w+) -->\n).*?(<!-- end of keys -->\n)", re.DOTALL)
LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")
STATUS = re.compile(r"^\| ([0-9N]+) \| (.+) \|$", re.MULTILINE)


def main(words: Sequence[str] | None = None) -> int:
    """Write the files, or with --check only name those that are stale."""
    parser = argparse.ArgumentParser(prog="scripts/docs", description="Write the flag tables of docs/ and the man pages in docs/man.")
    parser.add_argument("--check", action="store_true", help="write nothing, name the stale files, and exit with 1 if there are any")
    arguments = parser.parse_args(words)
    stale = [path for path, text in generated() if not path.exists() or path.read_text() != text]
    for path, text in generated():
        if path in stale and not arguments.check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    if arguments.check and stale:
        print("stale, run scripts/docs:", *(path.relative_to(ROOT) for path in stale), file=sys.stderr)
    return int(arguments.check and bool(stale))


def generated() -> Iterator[tuple[Path, str]]:
    """Yield each file with generated content, and its whole text."""
    for path in sorted((ROOT / "docs").glob("*.md")):
        text = path.read_text()
        made = TABLE.sub(lambda found: f"{found[1]}{table(COMMANDS[found[2]], found[3])}{found[4]}", text)
        made = KEYS.sub(lambda found: f"{found[1]}{key_table(found[2])}{found[3]}", made)
        if TABLE.search(text) or KEYS.search(text):
            yield path, made
    for command in COMMANDS.values():
        yield ROOT / "docs/man" / f"{page_name(command)}.1", man_page(command)


def table(command: Command, which: str) -> str:
    """Return the Markdown table of a group of flags, or of the flags that `which` names."""
    rows = [
        f"| `{cell(option.shown)}` | {cell(option.description or option.help)} | {cell(default(option))} |"
        for option in chosen(command, which)
    ]
    return "\n".join(["| flag | what it does | default |", "|---|---|---|", *rows, ""]).replace(" |  |", " | |")


def chosen(command: Command, which: str) -> tuple[Option, ...]:
    """Return a group by its title, or flags by their names."""
    if which in command.groups:
        return command.groups[which]
    options = {option.name: option for option in command.options}
    return tuple(options[name] for name in which.split())


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def default(option: Option) -> str:
    """Return the default of a flag in Markdown; empty if there is none."""
    if option.default_shown is not None:
        return option.default_shown
    if option.is_boolean:
        return "off"
    if option.default in (None, ""):
        return ""
    if option.kind is Kind.SIZE:
        return show_size(option.default)
    if option.kind is Kind.SECONDS:
        return f"{option.default:g}"
    return str(option.default) if option.kind is Kind.INTEGER else f"`{option.default}`"


def key_table(which: str) -> str:
    """Return the Markdown table of the keys of a table, or of a part of the endpoints."""
    tables = {"server": ProcessSettings, "listen": ListenSettings, "broker": BrokerSettings, "endpoint": EndpointSettings}
    if which in tables:
        return key_rows(dict.fromkeys(fields_of(tables[which]), ""))
    # The settings of a part, or the settings that only this kind has.
    kinds: dict[str, list[str]] = {}
    fields: dict[str, Field] = {}
    general = {field.name for field in fields_of(EndpointSettings)}
    for kind, struct in KINDS.items():
        for part, field, _ in settings_of(struct):
            if field.name not in general and which == (part or kind):
                fields[field.name] = field
                kinds.setdefault(field.name, []).append(f"`{kind}`")
    shown = {fields[name]: ", ".join(kinds[name]) for name in fields}
    # If all keys belong to the same kinds, the text above the table names the kinds.
    return key_rows(shown if len({*shown.values()}) > 1 else dict.fromkeys(shown, ""))


def key_rows(kinds: Mapping[Field, str]) -> str:
    """Return a table of keys, with the kinds of endpoint to which each belongs."""
    header = ["key", "flag", *(["kinds"] if any(kinds.values()) else []), "what it does", "default"]
    rows = [
        [f"`{field.name}`", flag_cell(field), *([kinds[field]] if kinds[field] else []), description_of(field), key_default(field)]
        for field in kinds
    ]
    lines = [f"| {' | '.join(map(cell, row))} |" for row in (header, *rows)]
    lines.insert(1, "|---" * len(header) + "|")
    return "\n".join([*lines, ""]).replace(" |  |", " | |")


def flag_cell(field: Field) -> str:
    return f"`--{field.setting.flag}`" if field.setting.flag else ""


def description_of(field: Field) -> str:
    setting = field.setting
    # A link within a page means the page on broadcast.
    return in_keys(setting.of_key or setting.description or setting.help, field.name).replace("](#", "](broadcast.md#")


def key_default(field: Field) -> str:
    """Return the default of a key in Markdown; empty if there is none."""
    if field.is_required:
        return "required"
    if field.setting.default_shown is not None and field.kind not in (Kind.SECONDS, Kind.INTEGER):
        return in_keys(field.setting.default_shown, field.name)
    match field.kind:
        case Kind.BOOLEAN:
            return f"`{str(field.default).lower()}`"
        case Kind.SIZE:
            return show_size(field.default)
        case Kind.SECONDS:
            return f"{field.default:g} s" if field.default else "0"
        case Kind.INTEGER:
            return str(field.default)
        case Kind.TEXTS:
            return ", ".join(f"`{item}`" for item in field.default)
    return f"`{field.default}`" if field.default else ""


def page_name(command: Command) -> str:
    return "wsbridge" if command is BRIDGE else f"wsbridge-{command.name}"


def man_page(command: Command) -> str:
    """Return the man page of a command (man(7))."""
    name = page_name(command)
    lines = [
        f'.TH {name.upper()} 1 "" "wsbridge {__version__}" "User Commands"',
        ".SH NAME",
        f"{roff(name)} \\- {roff(command.summary.rstrip('.'))}",
        ".SH SYNOPSIS",
    ]
    for usage in command.usages:
        lines += [f".B wsbridge\n{roff(usage)}", ".br"]
    lines += [".SH DESCRIPTION", roff(command.summary)]
    for title, options in command.groups.items():
        lines += [f".SS {roff(title)}"]
        for option in options:
            lines += [".TP", flag_of(option), sentence_of(option)]
    if command.options:
        lines += [
            ".SH ENVIRONMENT",
            roff(
                f"Each flag is also an environment variable, such as {command.options[0].variable}. "
                "The variable of a repeatable flag holds one value on each line. The command line overrides variables."
            ),
        ]
    lines.append(".SH EXIT STATUS")
    for status, meaning in STATUS.findall((ROOT / "docs/flags.md").read_text().partition("## Exit status")[2]):
        lines += [".TP", f".B {status}", roff(plain(meaning)) + "."]
    lines.append(".SH EXAMPLES")
    for words, what in command.examples:
        lines += [".TP", f".B wsbridge {roff(words)}", roff(what[:1].upper() + what[1:]) + "." if what else ""]
    others = [f".BR {roff(page_name(other))} (1)" for other in COMMANDS.values() if other is not command]
    lines += [".SH SEE ALSO", " ,\n".join(others)]
    return "\n".join(filter(None, lines)) + "\n"


def flag_of(option: Option) -> str:
    flag = f"\\fB{roff('--' + option.name)}\\fR"
    return flag if option.is_boolean else f"{flag}=\\fI{roff(option.metavar)}\\fR"


def sentence_of(option: Option) -> str:
    shown = "" if option.is_boolean else plain(default(option))
    return roff(plain(option.description or option.help) + "." + (f" Default: {shown}." if shown else ""))


def plain(text: str) -> str:
    """Return Markdown as plain text."""
    return LINK.sub(r"\1", text).replace("`", "")


def roff(text: str) -> str:
    """Return text with the special characters of roff escaped."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    sys.exit(main())
