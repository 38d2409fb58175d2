"""The commands: the words that select them, their usage, their flags and their examples."""

from __future__ import annotations

from dataclasses import dataclass

from wsbridge.cli.option import Option
from wsbridge.cli.options import BRIDGE_GROUPS, BROADCAST_GROUPS, PUBLISH_GROUPS, SUBSCRIBE_GROUPS, WATCH, Groups


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its words in the help and on the command line. Some commands have no flags of their own."""

    name: str
    summary: str
    usages: tuple[str, ...]
    groups: Groups
    examples: tuple[tuple[str, str], ...]
    """Command lines, each without the name `wsbridge`, and with its purpose."""

    @property
    def options(self) -> tuple[Option, ...]:
        return tuple(option for group in self.groups.values() for option in group)


BRIDGE = Command(
    "bridge",
    "Put any program that reads stdin and writes stdout on the web: each WebSocket connection gets its own process.",
    ("[FLAGS] COMMAND [ARGUMENTS]", "[FLAGS] --dir=DIR"),
    BRIDGE_GROUPS,
    (
        ("--port 8080 ./count.sh", "a script"),
        ("--port 8080 --devconsole bc -q", "a program, and a page to try it out"),
        ("--port 8080 --dir scripts --staticdir public", ""),
        ("--port 8443 --ssl --sslcert c.pem --sslkey k.pem --sameorigin ./chat.py", ""),
    ),
)
BROADCAST = Command(
    "broadcast",
    "Send the output of one program to any number of browsers, across any number of nodes.",
    ("broadcast --exchange=NAME [FLAGS] COMMAND [ARGUMENTS]", "broadcast --exchange=NAME [FLAGS]"),
    BROADCAST_GROUPS,
    (
        ("broadcast --port 8080 --exchange temps ./sensor.py", "one node, nothing to install"),
        ("broadcast --port 8080 --exchange temps --broker amqp://rabbit/ ./sensor.py", "several nodes; omit COMMAND on all but one"),
        ("broadcast --port 8080 --exchange talk --input exchange --join history", "a chat"),
    ),
)
PUBLISH = Command(
    "publish",
    "Publish messages from stdin to a channel.",
    ("publish --exchange=NAME --broker=URL [FLAGS]", "publish --url=ws://HOST:PORT/ [FLAGS]"),
    PUBLISH_GROUPS,
    (("publish --exchange temps --broker amqp://rabbit/", ""), ("publish --url ws://localhost:8080/", "to a server with --input")),
)
SUBSCRIBE = Command(
    "subscribe",
    "Print the messages of a channel.",
    ("subscribe --exchange=NAME --broker=URL [FLAGS]", "subscribe --url=ws://HOST:PORT/ [FLAGS]"),
    SUBSCRIBE_GROUPS,
    (("subscribe --exchange temps --broker amqp://rabbit/", ""), ("subscribe --url ws://localhost:8080/ -n 1", "the next message")),
)
SERVE = Command(
    "serve",
    "Serve the endpoints of a configuration file. On SIGHUP, read the file again and apply the changes.",
    ("serve [FLAGS] FILE",),
    {"Changes": (WATCH,)},
    (
        ("serve wsbridge.toml", ""),
        ("serve --watch wsbridge.toml", "apply each change of the file"),
    ),
)
CHECK = Command(
    "check",
    "Check a configuration file, and print every mistake in it.",
    ("check FILE",),
    {},
    (("check wsbridge.toml", ""),),
)
CONFIG = Command(
    "config",
    "Print the configuration file that is equivalent to a command line of wsbridge or of wsbridge broadcast.",
    ("config [FLAGS] COMMAND [ARGUMENTS]", "config broadcast --exchange=NAME [FLAGS] [COMMAND [ARGUMENTS]]"),
    {},
    (("config --port 8080 --pty ./count.sh > wsbridge.toml", ""),),
)
SCHEMA = Command(
    "schema",
    "Print the JSON schema that editors use to check and complete a configuration file.",
    ("schema",),
    {},
    (("schema > wsbridge.schema.json", ""),),
)
COMPLETION = Command(
    "completion",
    "Print a shell script that completes commands, flags and values.",
    ("completion bash|zsh|fish",),
    {},
    (("completion bash > ~/.local/share/bash-completion/completions/wsbridge", "for bash"),),
)
COMPLETION_VARIABLE = "_WSBRIDGE_COMPLETE"
"""The variable with which the script of a shell requests completions, such as `bash_complete`."""
COMMANDS = {command.name: command for command in (BRIDGE, BROADCAST, SERVE, PUBLISH, SUBSCRIBE, CHECK, CONFIG, SCHEMA, COMPLETION)}
"""The words that choose a command if they come first; without them, the command is the bridge."""
OPTIONS = BRIDGE.options
