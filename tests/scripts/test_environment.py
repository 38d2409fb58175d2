"""The virtual environment of the scripts: its creation, its sources, and the recovery of an incomplete environment."""

import os
import shutil
import signal

import pytest

from tests.scripts.conftest import VIRTUALENV, Clone, Gate
from tests.support.deadline import scaled


def test_first_start(clone: Clone) -> None:
    """The first start creates the virtual environment, and passes every argument unchanged."""
    run = clone.run("scripts/wsbridge", "--port", "8080", "two words", "")
    assert (run.returncode, run.stdout) == (0, "wsbridge got\n<--port>\n<8080>\n<two words>\n<>\n")
    assert "creating the virtual environment" in run.stderr
    assert len(clone.noted("-m venv ")) == len(clone.noted("-m pip install ")) == 1


def test_second_start(clone: Clone) -> None:
    """If the environment exists, a start calls neither Python nor pip, and prints nothing."""
    clone.run("scripts/wsbridge")
    run = clone.run("scripts/wsbridge", "x")
    assert (run.stdout, run.stderr, clone.notes) == ("wsbridge got\n<x>\n", "", [])


@pytest.mark.parametrize("name", ["pyproject.toml", "setup.py"])
def test_changed_dependencies(clone: Clone, name: str) -> None:
    """If a file that lists the dependencies has changed, the script installs them again into the same environment."""
    clone.run("scripts/wsbridge")
    with (clone.root / name).open("a") as file:
        file.write("# changed\n")
    clone.run("scripts/wsbridge")
    assert (len(clone.noted("-m venv ")), len(clone.noted("-m pip install "))) == (0, 1)
    clone.run("scripts/wsbridge")
    assert clone.notes == []


def test_extras_add_up(clone: Clone) -> None:
    """The packages for the tests are added to those of wsbridge, each once."""
    clone.run("scripts/wsbridge")
    clone.run("scripts/lint")
    assert len(clone.noted("--editable .[lint]")) == 1
    clone.run("scripts/lint")
    assert clone.noted("pip") == []
    clone.run("scripts/wsbridge")
    assert clone.notes == []


def test_failed_installation(clone: Clone) -> None:
    """When pip fails, the script fails; the next start begins with a new environment."""
    assert clone.run("scripts/wsbridge", PIP_FAILS="yes").returncode == 1
    leftover = clone.root / ".venv/leftover"
    leftover.touch()
    assert clone.run("scripts/wsbridge").returncode == 0
    assert not leftover.exists()


def test_killed_installation(clone: Clone, gate: Gate) -> None:
    """A killed installation leaves no environment that counts as complete, and no lock."""
    with clone.start("scripts/wsbridge", GATE=str(gate.folder)) as process:
        gate.wait()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
    run = clone.run("scripts/wsbridge")
    assert (run.returncode, run.stdout) == (0, "wsbridge got\n")
    assert len(clone.noted("-m venv ")) == 1


def test_two_at_once(clone: Clone, gate: Gate) -> None:
    """Two simultaneous starts create one environment, and both use it."""
    with clone.start("scripts/wsbridge", "1", GATE=str(gate.folder)) as first:
        gate.wait()
        with clone.start("scripts/wsbridge", "2") as second:
            gate.open()
            outputs = [process.communicate(timeout=scaled(60))[0] for process in (first, second)]
    assert outputs == ["wsbridge got\n<1>\n", "wsbridge got\n<2>\n"]
    assert len(clone.noted("-m venv ")) == 1


def test_moved_clone(clone: Clone) -> None:
    """In a clone that was moved, the script creates the environment again, because it contains the old paths."""
    clone.run("scripts/wsbridge")
    moved = clone.root.rename(clone.root.with_name("a new place"))
    clone.root = moved
    assert clone.run("scripts/wsbridge").stdout == "wsbridge got\n"
    assert len(clone.noted("-m venv ")) == 1


def test_replaced_python(clone: Clone) -> None:
    """If the system's Python was replaced, the script creates the environment again."""
    clone.run("scripts/wsbridge")
    python = clone.root / ".venv/bin/python"
    shutil.move(python, clone.bin / "python3.99")
    python.symlink_to(clone.bin / "python3.99")
    clone.run("scripts/wsbridge")
    assert len(clone.noted("-m venv ")) == 1


def test_environment_of_the_user(clone: Clone) -> None:
    """The script keeps an environment that the user created, and adds missing packages."""
    theirs = clone.root / ".venv/bin/theirs"
    theirs.parent.mkdir(parents=True)
    for name in ("theirs", "pip"):
        (theirs.parent / name).touch()
    shutil.copy(clone.bin / "python3", theirs.parent / "python")
    assert clone.run("scripts/wsbridge").stdout == "wsbridge got\n"
    assert theirs.exists()
    assert clone.noted("-m venv ") == []


def test_called_by_a_link(clone: Clone) -> None:
    """A symbolic link to the script works from anywhere. With the name websocketd, it starts wsbridge under that name."""
    for name in ("elsewhere", "websocketd"):
        (clone.root.parent / name).symlink_to(clone.root / "scripts/wsbridge")
    assert clone.run("../elsewhere", "x").stdout == "wsbridge got\n<x>\n"
    assert clone.run("../websocketd", "x").stdout == "websocketd got\n<x>\n"


def test_pip_without_ensurepip(clone: Clone) -> None:
    """If Python has pip but no ensurepip, the script uses that pip to install pip into the environment."""
    assert clone.run("scripts/wsbridge", MODULES="venv pip").stdout == "wsbridge got\n"
    assert len(clone.noted("-m venv --without-pip ")) == len(clone.noted("-m pip --python ")) == 1


def test_virtualenv(clone: Clone) -> None:
    """If Python has neither, the script uses virtualenv."""
    clone.add("virtualenv", VIRTUALENV)
    assert clone.run("scripts/wsbridge", MODULES="").stdout == "wsbridge got\n"
    assert len(clone.noted("virtualenv --quiet ")) == 1


def test_debian_without_ensurepip(clone: Clone) -> None:
    """On a Debian with a bare python3, the script reports that it installs python3-venv, does so, and continues."""
    clone.add_debian()
    run = clone.run("scripts/wsbridge", MODULES="")
    assert run.stdout == "wsbridge got\n"
    assert "installing Debian packages without starting their services: python3-venv" in run.stderr
    assert len(clone.noted("apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends python3-venv")) == 1


def test_download(clone: Clone) -> None:
    """Before a download, the script prints its size; during the download, apt and pip show their progress."""
    clone.add_debian()
    said = clone.run("scripts/wsbridge", MODULES="").stderr.splitlines()
    assert "Need to get 312 MB of archives." in said
    assert said.index("Need to get 312 MB of archives.") < said.index("Setting up python3-venv")
    assert "wsbridge: installing the Python packages of . into .venv (5 MB to download, unless pip has cached them)" in said
    assert [line for line in clone.noted("-m pip install ") if "--quiet" in line] == []


def test_no_way_to_pip(clone: Clone) -> None:
    """If no way to pip exists, the script fails with one line that has the helpful command."""
    run = clone.run("scripts/wsbridge", MODULES="")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.splitlines()[1:] == [
        "wsbridge needs pip for its virtual environment. Run this as root, then try again:",
        "apt-get update && apt-get install -y --no-install-recommends python3-venv",
    ]


def test_old_python(clone: Clone) -> None:
    """If every Python is older than 3.11, the script says so."""
    run = clone.run("scripts/wsbridge", TOO_OLD="yes")
    assert run.returncode == 1
    assert "wsbridge needs Python 3.11 or newer" in run.stderr


def test_no_service_is_started(clone: Clone) -> None:
    """While the script installs packages, no service may start; afterwards, the machine's own policy applies again."""
    clone.add_debian()
    policy = clone.bin / "sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 0\n")
    policy.chmod(0o755)
    clone.run("scripts/wsbridge", MODULES="")
    assert [line.endswith("(may start services: no)") for line in clone.noted("apt-get")] == [True, True, True]
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"
    assert list(policy.parent.iterdir()) == [policy]


def test_no_policy_is_left(clone: Clone) -> None:
    """If no policy about services existed before, none exists afterwards."""
    clone.add_debian()
    clone.run("scripts/wsbridge", MODULES="")
    assert len(clone.noted("(may start services: no)")) == 3
    assert list((clone.bin / "sbin").iterdir()) == []
