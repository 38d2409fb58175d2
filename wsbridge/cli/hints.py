"""Remedies for common mistakes: each function returns a text to add to an error, or an empty string."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

from wsbridge.errors import ListenError
from wsbridge.process.spawn import is_executable, near_program
from wsbridge.rules.overlap import Occupied
from wsbridge.settings import BridgeSettings, BroadcastSettings, EndpointSettings, ServerSettings

SHELL_CHARACTERS = re.compile(r"[|&;<>$`*?]")
PORTS_TO_TRY = 100
ADDRESS, REDIRECT_PORT = "address", "redirect_port"
"""The names of the settings of a listener that can name an address in use."""


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
    """Return the reason that an address can never be bound, as a whole sentence; empty if the address looks right."""
    scheme, separator, rest = address.partition("://")
    place = rest.partition("/")[0].rpartition("@")[2] if separator else scheme
    found = re.fullmatch(r"([^][:]*|\[[^][]+\]):([0-9]+)", place)
    if not found and not separator:
        return ""
    host, port = found.groups() if found else (place, "")
    what = "is a URL" if separator else "contains a port"
    right = [f"--{flag}={value}" for flag, value in (("address", host), ("port", port)) if value]
    return f"--address={address} {what}; write {' '.join(right)}"


class Remedy(NamedTuple):
    """How a hint writes other addresses to listen on."""

    place: str
    """The place of these settings, as the beginning of a clause; empty for flags."""
    port: Callable[[int], str]
    """Returns how to select another port."""
    any_port: str
    """How to select any free port; empty if that is not possible."""
    every_address: str
    """How to listen on every address of the machine."""
    path: str
    """How to select another path of a Unix socket."""


def hint_for_listening(error: ListenError, settings: ServerSettings) -> str:
    """Return the remedy for an address that flags name and that cannot be bound."""
    if error.errno == errno.EADDRINUSE and (other := overlaps(settings).get(f"{error.host}:{error.port}")):
        return hint_for_overlap(other)
    found = _listener_of(error, settings)
    flag = "redirport" if found is not None and found[1] == REDIRECT_PORT else "port"
    remedy = Remedy(
        place="",
        port=lambda port: f"--{flag}={port}",
        any_port="--port=0" if flag == "port" else "",
        every_address="remove --address",
        path="--unixsocket=PATH",
    )
    command = next((word for endpoint in settings.endpoints for word in _commands(endpoint)), ())
    return _hint_for_binding(error, remedy) + _hint_for_flags_of_command(command)


def overlaps(settings: ServerSettings) -> dict[str, str]:
    """Return the TCP addresses on which a server cannot listen because it already listens on another one, each with that one."""
    occupied: Occupied[str] = Occupied()
    found = {}
    for listen in settings.listeners:
        for _, port in listen.ports:
            address = f"{listen.host}:{port}"
            if other := occupied.claim(listen.host, port, address):
                found[address] = other
    return found


def hint_for_overlap(other: str) -> str:
    """Return the reason and the remedy for an address that another address of the same server excludes."""
    return f"; this server itself listens on {other}; choose another port, or remove one of the two addresses"


def hint_in_file(error: ListenError, settings: ServerSettings, find: Callable[[int, str], tuple[str, str]]) -> str:
    """Return the remedy for an address that a configuration file names and that cannot be bound.

    `find` returns the place and the name of a key of a listener: `("wsbridge.toml:2", "listen[1].address")` for `(0, "address")`.
    """
    found = _listener_of(error, settings)
    if found is None:
        return ""
    number, key = found
    place, name = find(number, key)
    listen = settings.listeners[number]
    remedy = Remedy(
        place=f"in {place}, ",
        port=lambda port: f"{name}={port}" if key == REDIRECT_PORT else f'{name}="{listen.host}:{port}"',
        any_port=f'{name}="{listen.host}:0"' if key == ADDRESS else "",
        every_address=f'write {name}=":{listen.port}"' if listen.is_tcp else "",
        path=f'{name}="unix:PATH"',
    )
    return _hint_for_binding(error, remedy)


def _listener_of(error: ListenError, settings: ServerSettings) -> tuple[int, str] | None:
    """Return the number, from 0, of the listener that could not be opened, and the name of the setting at fault; None if unknown."""
    if error.path:
        return next(((number, ADDRESS) for number, listen in enumerate(settings.listeners) if listen.unix_path == error.path), None)
    listeners = [(number, listen) for number, listen in enumerate(settings.listeners) if listen.is_tcp and listen.host == error.host]
    candidates = [(number, ADDRESS) for number, listen in listeners if listen.port == error.port]
    candidates += [(number, REDIRECT_PORT) for number, listen in listeners if error.port and listen.redirect_port == error.port]
    # A free port that the kernel selected for one address of the host may be in use at another address of it.
    candidates += [(number, ADDRESS) for number, listen in listeners if listen.port == 0]
    return next(iter(candidates), None)


def _commands(endpoint: EndpointSettings) -> Iterator[tuple[str, ...]]:
    if isinstance(endpoint, BridgeSettings | BroadcastSettings):
        yield endpoint.program.command


def _hint_for_flags_of_command(command: Sequence[str]) -> str:
    """Return a hint that a flag after COMMAND, such as --port, is not a flag of the server."""
    found = next((word for word in command[1:] if re.match(r"--?(port|address|redirport)\b", word)), None)
    if found is None:
        return ""
    return f"; {found} comes after COMMAND, so it is an argument of {command[0]}; write flags of the server before COMMAND"


def _hint_for_binding(error: ListenError, remedy: Remedy) -> str:
    if error.path:
        return _hint_for_path(error, remedy)
    match error.errno:
        case errno.EADDRINUSE:
            free = free_port_near(error.host, error.port)
            choices = [f"another port, such as {remedy.port(free)}, which is free now"] if free else []
            choices += [f"{remedy.any_port} for any free port"] if remedy.any_port else []
            return f"; another program listens on this port; {remedy.place}choose {', or '.join(choices) or 'another port'}"
        case errno.EADDRNOTAVAIL:
            remove = f"{remedy.place}{remedy.every_address} to listen on all of them"
            return f"; this machine has no such address (`ip address` lists its addresses); {remove}"
        case errno.EACCES:
            other = f"{remedy.place}choose another port, such as {remedy.port(8080)}"
            return f"; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE; {other}"
    return ""


def _hint_for_path(error: ListenError, remedy: Remedy) -> str:
    folder = os.path.dirname(error.path) or "."
    reasons = {
        errno.EADDRINUSE: "stop that server, or ",
        errno.ENOENT: f"create the directory {folder}, or ",
        errno.EACCES: f"give this user write permission for {folder}, or ",
    }
    return f"; {reasons.get(error.errno, '')}{remedy.place}choose another path: {remedy.path}"


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
