"""The `wsbridge` command: this module selects the subcommand, runs it, and reports its exit status to the shell.

exit status   0 normal end, or --help, --version, --license
              1 wsbridge cannot apply the command line
              2 the command line cannot be parsed
              3 the server cannot listen
              4 the broker, or the server at --url, is unreachable or refuses
              70 an internal error, with its traceback on stderr
              with --once, the status of the program; 128 + N if signal N ended it
"""

from __future__ import annotations

import asyncio
import difflib
import gc
import os
import platform
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING

from wsbridge import __version__, mentions
from wsbridge.cli.commands import (
    BRIDGE,
    BROADCAST,
    CHECK,
    COMMANDS,
    COMPLETION,
    COMPLETION_VARIABLE,
    CONFIG,
    PUBLISH,
    SCHEMA,
    SERVE,
    SUBSCRIBE,
    Command,
)
from wsbridge.cli.config import make_settings
from wsbridge.cli.filecommands import check_file, print_config, print_schema
from wsbridge.cli.help import full_help, help_width, short_help
from wsbridge.cli.hints import hint_for_listening
from wsbridge.cli.option import PREFIX, written
from wsbridge.cli.parse import parse, unknown_variables, without_passwords
from wsbridge.cli.pipeconfig import make_pipe_settings
from wsbridge.errors import BusError, ConfigurationError, InvalidConfiguration, ListenError, UsageError
from wsbridge.logs import ERROR, FATAL, INFO, LEVELS, JsonFormatter, LineFormatter, escape, logger, send_to
from wsbridge.metrics import Metrics
from wsbridge.pipes.run import die_of, run_pipe
from wsbridge.rules.origins import admits_null, schemeless
from wsbridge.settings import PipeSettings, ServerSettings

if TYPE_CHECKING:
    from wsbridge.server.server import Server

FAULT = 70
"""EX_SOFTWARE of sysexits.h. Python's own status would be 1, after which the systemd units do not restart wsbridge."""

LICENSE = """\
wsbridge, Copyright (c) 2026 The wsbridge authors. MIT License.

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


TOOLS = (CHECK.name, SCHEMA.name, COMPLETION.name)
"""The commands that have no flags and run no server."""


def run(program: str, words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command line; return the exit status. `program` is the name under which wsbridge was called."""
    try:
        status = _complete(environ) if COMPLETION_VARIABLE in environ else _run(program, words, environ)
        if sys.stdout is not None:
            # Flush here: if Python flushed at its exit, a closed pipe would cause a traceback.
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        return die_of(signal.SIGPIPE)
    except Exception:
        traceback.print_exc()
        return FAULT


def _run(program: str, words: Sequence[str], environ: Mapping[str, str]) -> int:
    name = "websocketd" if os.path.basename(program) == "websocketd" else "wsbridge"
    shape = BRIDGE
    if name == "wsbridge" and list(words[:1]) == ["help"]:
        words = _asked_by_help(words[1:])
    if name == "wsbridge" and words and words[0] in COMMANDS:
        shape, words = COMMANDS[words[0]], words[1:]
    if shape not in (SERVE, CHECK):
        mentions.use(written)
    # The words after `config` are a command line of a server.
    asked, is_config = shape, shape is CONFIG
    if is_config:
        if words and words[0] in COMMANDS and words[0] not in (BRIDGE.name, BROADCAST.name):
            return _complain(
                name,
                asked,
                f"config accepts a command line of wsbridge or of wsbridge broadcast, not of wsbridge {words[0]}",
                UsageError.exit_status,
            )
        shape, words = (COMMANDS[words[0]], words[1:]) if words and words[0] in (BRIDGE.name, BROADCAST.name) else (BRIDGE, words)
    ours = [*words, *(value for name, value in environ.items() if name.startswith(PREFIX))]
    try:
        flags = parse(words, environ, shape)
        if flags.help:
            print(full_help(name, asked, width=help_width(environ)), file=sys.stderr if name == "websocketd" else sys.stdout)
            return 0
        if shape.name in TOOLS:
            return _run_tool(shape, flags.command, environ)
        if shape is SERVE:
            return _serve_file(flags.command, environ, watches=flags.watch)
        if flags.version:
            print(_version(name))
            return 0
        if flags.license:
            print(LICENSE, end="")
            return 0
        if shape in (PUBLISH, SUBSCRIBE):
            return _run_pipe(make_pipe_settings(flags, shape), shape, level=LEVELS[flags.loglevel], unknown=unknown_variables(environ))
        settings = make_settings(flags, environ, name=name, shape=shape)
        if is_config:
            return print_config(settings)
    except UsageError as error:
        return _complain(name, asked, without_passwords(str(error), ours), error.exit_status)
    except ConfigurationError as error:
        if not words and asked is BRIDGE:
            print("Command line arguments are missing.")
        hint = _subcommand_meant(flags.command, str(error)) if shape is BRIDGE and name == "wsbridge" else ""
        complaint = f"{error}{_variable_of(str(error), shape, flags.given, environ)}{hint}"
        return _complain(name, asked, without_passwords(complaint, ours), error.exit_status)
    return serve(settings, environ=environ, hint=lambda error: hint_for_listening(error, settings))


def _complete(environ: Mapping[str, str]) -> int:
    """Print the completions that a shell requests; return the exit status."""
    from wsbridge.cli.completion import print_completions

    return print_completions(environ)


def _run_tool(shape: Command, words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command that has no flags; return the exit status. Raises UsageError."""
    if shape is CHECK:
        return check_file(words, environ)
    if shape is SCHEMA:
        return print_schema(words)
    from wsbridge.cli.completion import print_script

    return print_script(words)


def _serve_file(words: Sequence[str], environ: Mapping[str, str], *, watches: bool) -> int:
    """Serve the endpoints of a configuration file until a signal; return the exit status. Raises UsageError."""
    hangups: list[int] = []
    # From here on, no signal for a reload may end the process. The imports take a moment, too.
    signal.signal(signal.SIGHUP, lambda number, _: hangups.append(number))
    from wsbridge.cli.servefile import file_of, load

    file = file_of(words)
    try:
        configuration = load(file, environ)
    except InvalidConfiguration as error:
        for fault in error.faults:
            print(escape(fault), file=sys.stderr)
        return error.exit_status
    from wsbridge.server.reload import Reloader

    def reloads(server: Server) -> AbstractAsyncContextManager[None]:
        return Reloader(
            server,
            lambda: load(file, environ),
            name=file,
            files=configuration.files,
            watches=watches,
            hung_up=lambda: bool(hangups),
        ).reloading()

    return serve(configuration.settings, environ=environ, hint=configuration.hint, reloads=reloads, private=configuration.private)


def _asked_by_help(words: Sequence[str]) -> list[str]:
    """Return the command line that `help` or `help broadcast` stands for. Any other word leads to the general help."""
    return [*(word for word in words[:1] if word in COMMANDS), "--help"]


def serve(
    settings: ServerSettings,
    *,
    environ: Mapping[str, str],
    hint: Callable[[ListenError], str],
    reloads: Callable[[Server], AbstractAsyncContextManager[None]] | None = None,
    private: Sequence[str] = (),
) -> int:
    """Run a server until it ends; return the exit status.

    `hint` returns the remedy for an address that cannot be bound. `reloads` returns the object that changes the settings of the server
    meanwhile. `private` are files that no endpoint serves.
    """
    for fd in (0, 1, 2):
        _open_if_closed(fd)
    # Imported here, so that --help and errors in flags do not wait for the large libraries.
    from wsbridge.logwriter import LogHandler
    from wsbridge.net.busypoll import make_loop
    from wsbridge.process.inherited import reset_signals
    from wsbridge.server.server import Server

    reset_signals()
    metrics = Metrics()
    level = LEVELS[settings.server.log_level]
    output = LogHandler(1, JsonFormatter() if settings.server.log_format == "json" else LineFormatter(), metrics)
    send_to(output, level)
    _warn(settings, environ)

    async def main() -> int:
        output.attach(asyncio.get_running_loop())
        _set_garbage_collection()
        server = Server(settings, metrics, may_change=reloads is not None, private=private)
        async with reloads(server) if reloads is not None else nullcontext():
            return await server.run()

    try:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            status = runner.run(main())
        # From here on the log waits for a slow reader.
        output.attach(None)
        logger("server").log(INFO, "%s", f"Server stopped. {metrics.nonzero()}".rstrip())
        return status
    except (ListenError, BusError, ConfigurationError) as error:
        output.attach(None)
        _report(f"{error}{hint(error)}" if isinstance(error, ListenError) else str(error), level)
        return error.exit_status
    finally:
        output.attach(None)
        output.finish()


def _report(sentence: str, level: int) -> None:
    """Report the reason that the server cannot start: in the log, or on stderr if the log level hides fatal errors."""
    if level <= FATAL:
        logger("server").log(FATAL, "Can't start server: %s", sentence)
    else:
        print(f"Can't start server: {escape(sentence)}", file=sys.stderr)


def _set_garbage_collection() -> None:
    # The objects loaded so far stay alive, so later collections need not scan them. A session makes some hundred objects, and
    # hardly any in a cycle. A collection after each 700 objects would cost a tenth of a session.
    gc.enable()
    gc.freeze()
    gc.set_threshold(10_000)


def _warn(settings: ServerSettings, environ: Mapping[str, str]) -> None:
    """Log the doubtful settings and variables with which the server starts."""
    _warn_of_origins(settings)
    for variable in unknown_variables(environ):
        logger("server").error("ignoring the environment variable %s: no flag uses it", variable)


def _warn_of_origins(settings: ServerSettings) -> None:
    """Warn about pages that the allowed origins admit, and that a user may not expect."""
    log = logger("server")
    name = mentions.written("<origins>")
    allowed = [origin for endpoint in settings.endpoints for origin in endpoint.access.rules.allowed or ()]
    if any(listen.tls for listen in settings.listeners):
        for entry in schemeless(allowed):
            log.error("%s=%s without a scheme admits pages that were not loaded over TLS; write https://%s", name, entry, entry)
    if admits_null(allowed):
        log.log(INFO, "%s: file:// and null also admit sandboxed frames from any site, because browsers send Origin: null for both", name)


def _run_pipe(settings: PipeSettings, shape: Command, *, level: int, unknown: Sequence[str]) -> int:
    """Run `publish` or `subscribe` until it ends; return the exit status."""
    from wsbridge.process.inherited import reset_signals

    reset_signals()
    # Until the loop installs its handlers, a signal ends the process without output.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for fd in (0, 1, 2):
        _open_if_closed(fd)
    if shape is PUBLISH:
        from wsbridge.pipes.publish import publish as work
    else:
        from wsbridge.pipes.subscribe import subscribe as work
    if level <= ERROR:
        for variable in unknown:
            print(f"wsbridge: ignoring the environment variable {escape(variable)}: no flag uses it", file=sys.stderr)
    return run_pipe(work, settings, level=level)


def _complain(name: str, shape: Command, complaint: str, status: int) -> int:
    print(f"{name}: {complaint}\n\n{short_help(name, shape)}", end="", file=sys.stderr)
    return status


def _variable_of(complaint: str, shape: Command, given: frozenset[str], environ: Mapping[str, str]) -> str:
    """Return the name of the variable that set the flag at the beginning of a complaint; empty if no variable set it."""
    flag = re.match(r"--([a-z-]+)", complaint)
    for option in shape.options:
        if flag and option.name == flag[1] and option.attribute not in given and environ.get(option.variable):
            return f" ({option.variable})"
    return ""


def _subcommand_meant(command: Sequence[str], complaint: str) -> str:
    """Return a hint that names the subcommand most similar to COMMAND, if the complaint is that no such program exists."""
    is_missing = bool(command) and "/" not in command[0] and f"COMMAND {command[0]!r}" in complaint
    near = difflib.get_close_matches(command[0], COMMANDS, 1) if is_missing else []
    return f"; did you mean the subcommand {near[0]}?" if near else ""


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    parts = []
    for library in ("aiohttp", "aiofastnet"):
        try:
            parts.append(f"{library}/{version(library)}")
        except PackageNotFoundError:
            parts.append(f"{library}/none")
    return f"{name} {__version__} (Python {platform.python_version()} {sys.platform}-{platform.machine()}) {' '.join(parts)}"


def _open_if_closed(fd: int) -> None:
    """Open /dev/null on a standard descriptor that is closed, so that no pipe of a program gets its number."""
    try:
        os.fstat(fd)
    except OSError:
        os.open(os.devnull, os.O_RDWR)
