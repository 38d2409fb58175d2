"""The spawn server: a small process that starts programs for the server, so that the server never waits for an exec.

posix_spawn suspends its caller until the new process has called exec. On a busy machine that takes as long as a turn of the
scheduler (8 ms at a load of 8), in which an event loop would serve nobody. So a few threads of this process wait instead.
The process inherits what the server inherited (working directory, umask, limits), and hands it on unchanged.

It is run as a script of its own, `python -I -S spawnd.py SIGNAL…`, imports nothing of wsbridge, and speaks over the socket
that is its descriptor 0, a message at a time:

    S id argc envc flags, cwd NUL argv NUL environment    start a program
    S id pid errno, and descriptors                       started: its pidfd, our ends of stdin, stdout (not with a terminal), stderr
    R id pid                                              reap a child that has exited
    R id status errno                                     its status, minus N after signal N

A child stays a zombie until the server has it reaped, so its number cannot become another's before that. The arguments are
the signals whose disposition is reset in programs. The process is started with HUP, INT, QUIT and TERM blocked. When the socket closes
it ends what it is just starting, and then itself.
"""

from __future__ import annotations

import _thread
import array
import ctypes
import os
import signal
import socket
import struct
import sys

THREADS = 4
"""Programs that start at once. Each start waits for the scheduler, not for a processor."""
REQUEST = struct.Struct("<cIIIB")
REPLY = struct.Struct("<cIii")
HAS_TERMINAL, IS_LARGE = 1, 2
"""Flags: a descriptor for stdout comes along; the strings are in a file, whose descriptor comes along as the last one."""
MESSAGE_BYTES = 64 * 1024
"""A longer request comes in a file."""

SETSIGDEF, SETSIGMASK, SETSID = 4, 8, 128
"""Flags of posix_spawnattr_setflags, the same in glibc (spawn.h) and musl."""
OPAQUE_BYTES = 1024
"""More than any C library's posix_spawnattr_t, posix_spawn_file_actions_t or sigset_t."""

quick = ctypes.PyDLL(None)
"""For calls that only write memory."""
slow = ctypes.CDLL(None)
"""For calls that other threads need not wait for."""


class Spawner:
    """Starts programs, each in a session of its own, with an empty signal mask and the default disposition of some signals."""

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

    def spawn(self, argv: list[bytes], environment: list[bytes], descriptors: tuple[int, int, int], directory: bytes) -> int:
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


def serve(connection: socket.socket, spawner: Spawner) -> None:
    """Answer requests until the socket closes. Several threads do this at once."""
    while True:
        message, ancillary, _, _ = connection.recvmsg(MESSAGE_BYTES + REQUEST.size, socket.CMSG_SPACE(2 * 4), socket.MSG_CMSG_CLOEXEC)
        if not message:
            return
        passed = [fd for _, _, data in ancillary for fd in array.array("i", data)]
        kind, number, *values = REQUEST.unpack_from(message)
        try:
            if kind == b"S":
                reply, fds = _start(spawner, number, values, message, passed)
            else:
                reply, fds = _reap(number, values[0]), []
        finally:
            _close(passed)
        try:
            connection.sendmsg([reply], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
        except OSError:
            # Nobody is there any more who would own it.
            if kind == b"S" and (pid := REPLY.unpack(reply)[2]):
                os.killpg(pid, signal.SIGKILL)
            return
        _close(fds)


def _start(spawner: Spawner, number: int, values: list[int], message: bytes, passed: list[int]) -> tuple[bytes, list[int]]:
    """Start a program; return the reply, and the descriptors that go with it."""
    argc, envc, flags = values
    theirs: list[int] = []
    ours: list[int] = []
    try:
        strings = (os.pread(passed[-1], os.fstat(passed[-1]).st_size, 0) if flags & IS_LARGE else message[REQUEST.size :]).split(b"\0")
        _pipe(theirs, ours, write=True)
        if not flags & HAS_TERMINAL:
            _pipe(ours, theirs, write=False)
        else:
            theirs.append(os.dup(passed[0]))
        _pipe(ours, theirs, write=False)
        pid = spawner.spawn(strings[1 : 1 + argc], strings[1 + argc : 1 + argc + envc], (theirs[0], theirs[1], theirs[2]), strings[0])
        try:
            ours.insert(0, os.pidfd_open(pid))
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
    except OSError as error:
        _close(ours)
        return REPLY.pack(b"S", number, 0, error.errno or 0), []
    finally:
        _close(theirs)
    return REPLY.pack(b"S", number, pid, 0), ours


def _pipe(first: list[int], second: list[int], *, write: bool) -> None:
    """Make a pipe; the end that reads joins `first`, the other `second`. Ours does not block: `write` says that ours writes."""
    reading, writing = os.pipe()
    first.append(reading)
    second.append(writing)
    os.set_blocking(writing if write else reading, False)


def _reap(number: int, pid: int) -> bytes:
    try:
        _, status = os.waitpid(pid, 0)
    except OSError as error:
        return REPLY.pack(b"R", number, 0, error.errno or 0)
    return REPLY.pack(b"R", number, os.waitstatus_to_exitcode(status), 0)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _serve_and_release(connection: socket.socket, spawner: Spawner, lock: _thread.LockType) -> None:
    serve(connection, spawner)
    lock.release()


def main() -> None:
    connection = socket.socket(fileno=0)
    spawner = Spawner([int(word) for word in sys.argv[1:]])
    others = []
    for _ in range(THREADS - 1):
        others.append(_thread.allocate_lock())
        others[-1].acquire()
        _thread.start_new_thread(_serve_and_release, (connection, spawner, others[-1]))
    serve(connection, spawner)
    for lock in others:
        lock.acquire()
    os._exit(0)


if __name__ == "__main__":
    main()
