"""The spawn server: a small process that starts programs for the server, so that the server never waits for an exec.

posix_spawn suspends its caller until the new process has called exec. On a busy machine that lasts as long as a turn of the
scheduler (8 ms at a load of 8). In that time an event loop would serve no client. So a few threads of this process wait
instead. The process inherits what the server inherited (working directory, umask, limits), and passes it on unchanged.

It runs as a separate script, `python -I -S spawnd.py SIGNAL…`, and imports nothing of wsbridge. It communicates over the socket
at its descriptor 0, one message at a time. Requests from the server:

    S id argc envc large, cwd NUL argv NUL environment, and descriptors    start a program with these as stdin, stdout and stderr
    P id 0 0 0                                                             answer

Messages to the server:

    S id pid errno     the program has started, or its start has failed with errno
    P id 0 0           the answer
    E (pid status)…    these programs have exited and are reaped; the status is minus N after signal N

If the strings are too long for a message, `large` is 1, and the strings are in a file whose descriptor comes last.

The arguments are the signals whose disposition is reset in programs. The process is started with HUP, INT, QUIT and TERM blocked.
When the socket closes, it ends the programs that it is just starting, and then exits.
"""

from __future__ import annotations

import _thread
import array
import ctypes
import errno
import os
import signal
import socket
import struct
import sys

THREADS = 4
"""Programs that start at the same time. Each start waits for the scheduler, not for a processor."""
REQUEST = struct.Struct("<cIIIB")
REPLY = struct.Struct("<cIii")
EXIT = struct.Struct("<ii")
EXITS = 8
"""Maximum exits in one message: each exit ends a session, and the server handles one such message in a turn of its loop."""
MESSAGE_BYTES = 64 * 1024
"""Maximum bytes of the strings in a request; longer strings are in a file."""

SETSIGDEF, SETSIGMASK, SETSID = 4, 8, 128
"""Flags of posix_spawnattr_setflags, the same in glibc (spawn.h) and musl."""
OPAQUE_BYTES = 1024
"""Bytes of a buffer: more than any C library's posix_spawnattr_t, posix_spawn_file_actions_t or sigset_t."""

quick = ctypes.PyDLL(None)
"""For calls that only write memory."""
slow = ctypes.CDLL(None)
"""For calls during which other threads may run."""


class Spawner:
    """Starts programs, each in its own session, with an empty signal mask and the default disposition of some signals."""

    def __init__(self, signals: list[int]) -> None:
        self._attributes = ctypes.create_string_buffer(OPAQUE_BYTES)
        default, mask = ctypes.create_string_buffer(OPAQUE_BYTES), ctypes.create_string_buffer(OPAQUE_BYTES)
        quick.sigemptyset(default)
        quick.sigemptyset(mask)
        for number in signals:
            quick.sigaddset(default, number)
        quick.posix_spawnattr_init(self._attributes)
        quick.posix_spawnattr_setsigdefault(self._attributes, default)
        quick.posix_spawnattr_setsigmask(self._attributes, mask)
        quick.posix_spawnattr_setflags(self._attributes, ctypes.c_short(SETSIGDEF | SETSIGMASK | SETSID))

    def spawn(self, argv: list[bytes], environment: list[bytes], descriptors: list[int], directory: bytes) -> int:
        """Start a program with these descriptors as 0, 1 and 2; return its pid. Raises OSError."""
        actions = ctypes.create_string_buffer(OPAQUE_BYTES)
        quick.posix_spawn_file_actions_init(actions)
        try:
            for number, fd in enumerate(descriptors):
                quick.posix_spawn_file_actions_adddup2(actions, fd, number)
            if directory:
                quick.posix_spawn_file_actions_addchdir_np(actions, directory)
            pid = ctypes.c_int()
            error = slow.posix_spawn(ctypes.byref(pid), argv[0], actions, self._attributes, _strings(argv), _strings(environment))
        finally:
            quick.posix_spawn_file_actions_destroy(actions)
        if error:
            raise OSError(error, os.strerror(error))
        return pid.value


def _strings(items: list[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(items) + 1))(*items, None)


class Exits:
    """Reaps programs and reports the exit of each, after the message that reports its start."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reported: set[int] = set()
        self._wakeup = _thread.allocate_lock()
        """Released when a program has been started, or could not be."""
        self._wakeup.acquire()

    def watch(self, pid: int) -> None:
        """Report the exit of this program. 0 stands for a program that could not be started, which the C library has reaped."""
        if pid:
            self._reported.add(pid)
        try:
            self._wakeup.release()
        except RuntimeError:
            pass  # already released, and not yet acquired

    def report(self) -> None:
        """Report exits until the socket closes."""
        while True:
            exited = b""
            while len(exited) < EXITS * EXIT.size and (pid := self._next(wait=not exited)):
                # After this call, the pid may belong to another program.
                self._reported.remove(pid)
                exited += EXIT.pack(pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            try:
                self._connection.send(b"E" + exited)
            except OSError:
                return

    def _next(self, *, wait: bool) -> int:
        """Return the pid of a program that has exited; 0 if there is none and `wait` is False."""
        while True:
            try:
                exited = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG))
            except ChildProcessError:
                exited = None
            if exited is not None and exited.si_pid in self._reported:
                return exited.si_pid
            if not wait:
                return 0
            self._wakeup.acquire()


def serve(connection: socket.socket, spawner: Spawner, exits: Exits) -> None:
    """Answer requests until the socket closes. Several threads run this at the same time."""
    while True:
        try:
            message, ancillary, _, _ = connection.recvmsg(MESSAGE_BYTES + REQUEST.size, socket.CMSG_SPACE(4 * 4), socket.MSG_CMSG_CLOEXEC)
        except OSError:
            # The server has died with unread messages: the kernel reports that as a reset, to one thread only.
            return
        if not message:
            return
        kind, number, argc, envc, is_large = REQUEST.unpack_from(message)
        pid = error = 0
        if kind == b"S":
            passed = [fd for _, _, data in ancillary for fd in array.array("i", data)]
            try:
                if len(passed) != 3 + is_large:
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                strings = os.pread(passed[3], os.fstat(passed[3]).st_size, 0) if is_large else message[REQUEST.size :]
                directory, *words = strings.split(b"\0")
                pid = spawner.spawn(words[:argc], words[argc : argc + envc], passed[:3], directory)
            except OSError as failure:
                error = failure.errno or 0
            finally:
                for fd in passed:
                    os.close(fd)
        try:
            connection.send(REPLY.pack(kind, number, pid, error))
        except OSError:
            # The socket is closed, so the program would have no owner.
            if pid:
                os.killpg(pid, signal.SIGKILL)
            return
        exits.watch(pid)


def _serve_and_release(connection: socket.socket, spawner: Spawner, exits: Exits, lock: _thread.LockType) -> None:
    try:
        serve(connection, spawner, exits)
    finally:
        lock.release()


def main() -> None:
    connection = socket.socket(fileno=0)
    spawner = Spawner([int(word) for word in sys.argv[1:]])
    exits = Exits(connection)
    _thread.start_new_thread(exits.report, ())
    others = []
    for _ in range(THREADS - 1):
        others.append(_thread.allocate_lock())
        others[-1].acquire()
        _thread.start_new_thread(_serve_and_release, (connection, spawner, exits, others[-1]))
    serve(connection, spawner, exits)
    for lock in others:
        lock.acquire()
    os._exit(0)


if __name__ == "__main__":
    main()
