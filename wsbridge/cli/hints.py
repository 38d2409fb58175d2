"""Remedies for common mistakes: each function returns a text to add to an error, or an empty string."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing

from wsbridge.errors import ListenError
from wsbridge.process.spawn import is_executable, near_program
from wsbridge.settings import BridgeSettings, BroadcastSettings, EndpointSettings, ServerSettings

SHELL_CHARACTERS = re.compile(r"[|&;<>$`*?]")
PORTS_TO_TRY = 100


def hint_for_command(argv: Sequence[str], path: str) -> str:
    """Return the remedy for a COMMAND that was not found."""
    word = argv[0]
    if not word.strip():
        return ""
    if " " in word.strip():
        return _hint_for_line(word, argv[1:], path)
    if "/" in word:
        return _hint_for_near(word)
    local = f"./{word}"
    if os.path.isdir(local):
        return f"; {local} is a directory; write --dir={word} to serve the scripts in it"
    if os.path.isfile(local):
        more = "" if is_executable(local) else f", and make it executable first: chmod +x {word}"
        return f"; the file is in this directory: write {local}{more}"
    return _hint_for_near(local)


def _hint_for_line(line: str, more: Sequence[str], path: str) -> str:
    """Return how to write a command line that was given as a single word."""
    try:
        words = shlex.split(line)
    except ValueError:
        return ""
    if SHELL_CHARACTERS.search(line):
        return f"; this line needs a shell: write sh -c {shlex.quote(line)}"
    if not words or not (is_executable(words[0]) or shutil.which(words[0], path=path) or os.path.isfile(f"./{words[0]}")):
        return "; write COMMAND and its arguments as separate words, without quotes around all of them"
    if "/" not in words[0] and not shutil.which(words[0], path=path):
        words[0] = f"./{words[0]}"
    return f"; write separate words, without quotes around all of them: {shlex.join([*words, *more])}"


def _hint_for_near(path: str) -> str:
    """Return a hint that names the most similar executable in the same folder."""
    near = near_program(path)
    return f"; did you mean {near}?" if near else ""


def hint_for_address(address: str) -> str:
    """Return why an address can never be bound, as a whole sentence; empty if the address looks right."""
    scheme, separator, rest = address.partition("://")
    place = rest.partition("/")[0].rpartition("@")[2] if separator else scheme
    found = re.fullmatch(r"([^][:]*|\[[^][]+\]):([0-9]+)", place)
    if not found and not separator:
        return ""
    host, port = found.groups() if found else (place, "")
    what = "is a URL" if separator else "contains a port"
    right = [f"--{flag}={value}" for flag, value in (("address", host), ("port", port)) if value]
    return f"--address={address} {what}; write {' '.join(right)}"


def hint_for_listening(error: ListenError, settings: ServerSettings) -> str:
    """Return the remedy for an address that cannot be bound."""
    listeners = [listen for listen in settings.listeners if listen.is_tcp]
    redirects = error.port in {listen.redirect_port for listen in listeners} - {listen.port for listen in listeners}
    command = next((word for endpoint in settings.endpoints for word in _commands(endpoint)), ())
    return _hint_for_binding(error, "redirport" if redirects else "port") + _hint_for_flags_of_command(command)


def _commands(endpoint: EndpointSettings) -> Iterator[tuple[str, ...]]:
    if isinstance(endpoint, BridgeSettings | BroadcastSettings):
        yield endpoint.program.command


def _hint_for_flags_of_command(command: Sequence[str]) -> str:
    """Return a hint that a flag after COMMAND, such as --port, is not a flag of the server."""
    found = next((word for word in command[1:] if re.match(r"--?(port|address|redirport)\b", word)), None)
    if found is None:
        return ""
    return f"; {found} comes after COMMAND, so it is an argument of {command[0]}; write flags of the server before COMMAND"


def _hint_for_binding(error: ListenError, flag: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            free = free_port_near(error.host, error.port)
            choices = [f"another port, such as --{flag}={free}, which is free now"] if free else []
            choices += ["--port=0 for any free port"] if flag == "port" else []
            return f"; another program listens on this port; choose {', or '.join(choices) or 'another port'}"
        case errno.EADDRNOTAVAIL:
            return "; this machine has no such address (`ip address` lists its addresses); remove --address to listen on all of them"
        case errno.EACCES:
            return f"; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE; choose another port, such as --{flag}=8080"
    return ""


def free_port_near(host: str, port: int) -> int:
    """Return the next free port of a host, or 0 if no nearby port is free."""
    first = port + 1 if port >= 1024 else 8080
    for candidate in range(first, min(first + PORTS_TO_TRY, 65536)):
        if _is_free(host, candidate):
            return candidate
    return 0


def _is_free(host: str, port: int) -> bool:
    try:
        found = socket.getaddrinfo(host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in found:
            with closing(socket.create_server(address[:2] if family == socket.AF_INET else (address[0], port), family=family)):
                pass
    except OSError:
        return False
    return True
