"""A disk that does not respond delays only the requests that need it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.server import Server, wait_until
from tests.support.site import assert_sound

HANGS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* For a path that contains "slow": create the file `asked`, then wait until the file `answers` exists. */
static void hang(const char *path) {
    const char *folder = getenv("DISK");
    if (!folder || !path || !strstr(path, "slow")) return;
    char name[4096];
    close(open(strcat(strcpy(name, folder), "/asked"), O_CREAT | O_WRONLY, 0600));
    strcat(strcpy(name, folder), "/answers");
    while (access(name, F_OK)) usleep(1000);
}

int lstat(const char *path, struct stat *found) {
    hang(path);
    return ((int (*)(const char *, struct stat *))dlsym(RTLD_NEXT, "lstat64"))(path, found);
}

int stat(const char *path, struct stat *found) {
    hang(path);
    return ((int (*)(const char *, struct stat *))dlsym(RTLD_NEXT, "stat64"))(path, found);
}

int fstatat(int folder, const char *path, struct stat *found, int flags) {
    hang(path);
    return ((int (*)(int, const char *, struct stat *, int))dlsym(RTLD_NEXT, "fstatat64"))(folder, path, found, flags);
}
"""


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A folder with two scripts, `quick` and `slow`."""
    (tmp_path / "hangs.c").write_text(HANGS)
    compiler = ("cc", "-shared", "-fPIC", "-D_FILE_OFFSET_BITS=64")
    subprocess.run([*compiler, "-o", tmp_path / "hangs.so", tmp_path / "hangs.c", "-ldl"], check=True)
    for name in ("quick", "slow"):
        script = tmp_path / "scripts" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text("#!/bin/sh\nexec cat\n")
        script.chmod(0o755)
    return tmp_path


@pytest.fixture
def server(disk: Path) -> Iterator[Server]:
    with Server(f"--dir={disk}/scripts", env={"LD_PRELOAD": f"{disk}/hangs.so", "DISK": str(disk)}) as server:
        yield server
        (disk / "answers").touch()
    assert_sound(server)


def test_script_on_a_disk_that_hangs(server: Server, disk: Path) -> None:
    """While a lookup for a script of --dir hangs, sessions continue and new sessions begin; the script starts after the lookup."""
    with ThreadPoolExecutor(1) as pool, server.connect("/quick") as before:
        asking = pool.submit(server.connect, "/slow")
        wait_until((disk / "asked").exists, "the request to the disk")
        with server.connect("/quick") as meanwhile:
            for client in (before, meanwhile):
                client.send_text("still here")
                assert client.receive_text() == "still here"
        assert not asking.done()
        (disk / "answers").touch()
        with asking.result() as slow:
            slow.send_text("at last")
            assert slow.receive_text() == "at last"
