"""A clone whose scripts run on a fake machine: a few real tools, and recorders in place of Python, pip, apt-get and sudo.

`Clone.notes` has a line for each call of a recorder. No test here needs a network or changes the system.
"""

import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deadline import scaled

ROOT = Path(__file__).resolve().parents[2]

TOOLS = "awk basename bash cat chmod cksum cp dirname env flock grep ln mkdir mktemp mv printf readlink realpath rm sed sh"

# A fake Python: beside a "pip" file it has pip, and MODULES lists its other modules.
PYTHON = """#!/bin/sh
echo "python $*" >>"$NOTES"
here=${0%/*}
case "$*" in
    *"import sys, ensurepip;"*) case " $MODULES " in *" ensurepip "*) ;; *) [ -e "$here/ensurepip" ] ;; esac ;;
    *"import sys, pip;"*) case " $MODULES " in *" pip "*) ;; *) false ;; esac ;;
    *"import sys, "*) [ -z "${TOO_OLD:-}" ] ;;
    "-m venv --without-pip "*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
    "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; : >"$3/bin/pip" ;;
    "-m pip --python "*" install "*) : >"${4%/*}/pip" ;;
    "-m pip --version") [ -e "$here/pip" ] ;;
    "-m pip install "*)
        if [ -n "${GATE:-}" ]; then echo here >"$GATE/reached"; read -r _ <"$GATE/opened"; fi
        printf '#!/bin/sh\\necho "${0##*/} got"; for word; do echo "<$word>"; done\\n' >"$here/wsbridge"
        chmod 755 "$here/wsbridge"
        [ -z "${PIP_FAILS:-}" ]
        ;;
    "scripts/test.py "*) echo "1 passed" ;;
    "-m coverage run "*) [ -z "${COVERAGE:-}" ] ;;
    *"bench.py --help") echo "usage: scripts/bench" ;;
esac
"""

VIRTUALENV = """#!/bin/sh
echo "virtualenv $*" >>"$NOTES"
for folder; do :; done
mkdir -p "$folder/bin"
cp "${0%/*}/python3" "$folder/bin/python"
: >"$folder/bin/pip"
"""

# A fake sudo: it runs its command in a fake system, with its own /usr/sbin and the content of python3-venv.
SUDO = """#!/bin/sh
echo "sudo $1" >>"$NOTES"
here=${0%/*}
[ "$1" = sh ] || exit 1
code=$(printf %s "$4" | sed "s#/usr/sbin#$here/sbin#")
shift 4
exec sh -eu -c "$code" "$@"
"""

APT_GET = """#!/bin/sh
policy=${0%/*}/sbin/policy-rc.d
if [ -x "$policy" ] && "$policy"; then answer=yes; else answer=no; fi
echo "apt-get $* (may start services: $answer)" >>"$NOTES"
case "$*" in
    *" --assume-no "*) echo "Reading package lists..."; echo "Need to get 312 MB of archives."; echo "Abort."; exit 1 ;;
    *" install "*python3-venv*) : >"${0%/*}/ensurepip"; echo "Setting up python3-venv" ;;
esac
"""

DPKG_QUERY = """#!/bin/sh
case " $INSTALLED " in *" $4 "*) echo installed ;; *) exit 1 ;; esac
"""


class Clone:
    """A copy of this repository's scripts, and the fake machine around it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "clone"
        self.bin = folder / "bin"
        self.notes_file = folder / "notes"
        self.root.mkdir()
        for name in ("scripts", "systemd", ".ci"):
            shutil.copytree(ROOT / name, self.root / name)
        (self.root / "wsbridge").mkdir()
        for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, self.root)
        (self.bin / "sbin").mkdir(parents=True)
        for tool in TOOLS.split():
            (self.bin / tool).symlink_to(shutil.which(tool) or pytest.fail(f"{tool} is missing"))
        self.add("python3", PYTHON)
        self.add("id", '#!/bin/sh\n[ "$1" = -u ] && echo 1000\n')
        self.environment = {
            "PATH": str(self.bin),
            "PYTHON": "python3",
            "MODULES": "venv ensurepip pip",
            "NOTES": str(self.notes_file),
        }

    def add(self, name: str, source: str) -> None:
        """Put a program on the PATH."""
        (self.bin / name).write_text(source)
        (self.bin / name).chmod(0o755)

    def add_debian(self) -> None:
        """Turn the machine into a Debian whose user may use sudo."""
        for name, source in (("sudo", SUDO), ("apt-get", APT_GET), ("dpkg-query", DPKG_QUERY)):
            self.add(name, source)

    def start(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        """Start a script in its own process group, and capture its output."""
        return subprocess.Popen(
            [str(self.root / words[0]), *words[1:]],
            env=self.environment | variables,
            cwd=self.root.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a script to its end, after clearing the notes."""
        self.notes_file.write_text("")
        with self.start(*words, **variables) as process:
            out, err = process.communicate(timeout=scaled(60))
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    @property
    def notes(self) -> list[str]:
        """Return the calls of the recorders."""
        return self.notes_file.read_text().splitlines()

    def noted(self, part: str) -> list[str]:
        """Return the notes that contain a text."""
        return [line for line in self.notes if part in line]


class Gate:
    """A point in the fake pip (GATE) at which it reports its arrival and waits for permission."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {}
        for name in ("reached", "opened"):
            os.mkfifo(folder / name)
            self.files[name] = os.open(folder / name, os.O_RDWR)  # read-write, so that neither side waits in open()

    def wait(self) -> None:
        """Return when a pip has arrived at the gate."""
        if not select.select([self.files["reached"]], [], [], 60)[0]:
            pytest.fail("nobody came to the gate")

    def open(self) -> None:
        """Let one pip continue."""
        os.write(self.files["opened"], b"go\n")

    def close(self) -> None:
        """Close the pipes of the gate."""
        for file in self.files.values():
            os.close(file)


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """A clone on a machine with nothing but Python, before the first run of a script."""
    return Clone(tmp_path)


@pytest.fixture
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """A gate without a waiting pip."""
    gate = Gate(tmp_path_factory.mktemp("gate"))
    yield gate
    gate.close()
