"""`scripts/install-service`: the files that it installs and keeps, and the errors. DESTDIR keeps it out of the system."""

import re
from pathlib import Path

import pytest

from tests.scripts.conftest import Clone

NOT_IN_PATH = "the PATH of a service contains no program"


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "destination"


def test_install(clone: Clone, destination: Path) -> None:
    """The script installs wsbridge in its own environment, the unit, and settings that only root can read."""
    run = clone.run("scripts/install-service", "clock", "--", "date", "+%s", "two words", "", DESTDIR=str(destination))
    assert run.returncode == 0, run.stderr
    assert (destination / "opt/wsbridge/bin/wsbridge").exists()
    unit = (destination / "etc/systemd/system/wsbridge@.service").read_text()
    assert "\nExecStart=/opt/wsbridge/bin/wsbridge -- $COMMAND\n" in unit
    settings = destination / "etc/wsbridge/clock.env"
    assert 'COMMAND=date +%s "two words" ""\n' in settings.read_text()
    assert "WSBRIDGE_PORT=8080\n" in settings.read_text()
    assert settings.stat().st_mode & 0o777 == 0o600
    assert clone.noted("sudo") == []


def test_broadcast(clone: Clone, destination: Path) -> None:
    """With --broadcast, the script installs the other unit with its own settings; the channel has the name of the service."""
    run = clone.run("scripts/install-service", "--broadcast", "temps", "--", "vmstat", "-n", "1", DESTDIR=str(destination))
    assert run.returncode == 0, run.stderr
    unit = (destination / "etc/systemd/system/wsbridge-broadcast@.service").read_text()
    assert "\nExecStart=/opt/wsbridge/bin/wsbridge broadcast -- $COMMAND\n" in unit
    settings = destination / "etc/wsbridge-broadcast/temps.env"
    assert set_in(settings) == "COMMAND=vmstat -n 1\nWSBRIDGE_EXCHANGE=temps\nWSBRIDGE_PORT=8080\nWSBRIDGE_JOIN=history\n"
    assert settings.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in destination.glob("etc/*/*")) == ["system", "temps.env"]


def test_gateway(clone: Clone, destination: Path) -> None:
    """With --broadcast and no COMMAND, the service is a gateway to the RabbitMQ of this machine, unless the settings name another
    broker."""
    run = clone.run("scripts/install-service", "--broadcast", "clock", DESTDIR=str(destination))
    assert run.returncode == 0, run.stderr
    settings = destination / "etc/wsbridge-broadcast/clock.env"
    assert set_in(settings).startswith("COMMAND=\nWSBRIDGE_EXCHANGE=clock\nWSBRIDGE_BROKER=amqp://guest:guest@localhost/\n")
    settings.write_text("mine")
    run = clone.run("scripts/install-service", "--broadcast", "clock", DESTDIR=str(destination))
    assert "exists; it is not changed" in run.stderr
    assert settings.read_text() == "mine"


def test_serve(clone: Clone, destination: Path) -> None:
    """With --serve, the script installs the unit of a configuration file, and a copy of the file that every user can read."""
    (clone.root.parent / "mine.toml").write_text("# mine\n")
    run = clone.run("scripts/install-service", "--serve", "mine.toml", DESTDIR=str(destination))
    assert run.returncode == 0, run.stderr
    unit, settings = destination / "etc/systemd/system/wsbridge.service", destination / "etc/wsbridge/wsbridge.toml"
    assert "\nExecStart=/opt/wsbridge/bin/wsbridge serve /etc/wsbridge/wsbridge.toml\n" in unit.read_text()
    assert (settings.read_text(), settings.stat().st_mode & 0o777) == ("# mine\n", 0o644)
    (clone.root.parent / "mine.toml").write_text("# other\n")
    for words in (["--serve", "mine.toml"], ["--serve"]):
        run = clone.run("scripts/install-service", *words, DESTDIR=str(destination))
        assert (run.returncode, "exists; it is not changed" in run.stderr) == (0, True)
    assert settings.read_text() == "# mine\n"


def test_dry_run_of_serve(clone: Clone) -> None:
    """A dry run with a configuration file prints the unit, the file and the service."""
    (clone.root.parent / "mine.toml").write_text("")
    run = clone.run("scripts/install-service", "--dry-run", "--start", "--serve", "mine.toml")
    assert clone.notes == []
    assert f"+ cp {clone.root}/systemd/wsbridge.service /etc/systemd/system/wsbridge.service\n" in run.stderr
    assert "+ /etc/wsbridge/wsbridge.toml, a copy of mine.toml; the names of files in it are relative to /etc/wsbridge\n" in run.stderr
    assert run.stderr.endswith("+ systemctl enable wsbridge\n+ systemctl restart wsbridge\n")


def set_in(settings: Path) -> str:
    """Return the variables of a settings file, without comments."""
    return "".join(line + "\n" for line in settings.read_text().splitlines() if line and not line.startswith("#"))


def test_second_installation(clone: Clone, destination: Path) -> None:
    """A second run updates wsbridge and the unit, and keeps the settings."""
    clone.run("scripts/install-service", "clock", "--", "date", DESTDIR=str(destination))
    unit, settings = destination / "etc/systemd/system/wsbridge@.service", destination / "etc/wsbridge/clock.env"
    unit.write_text("old")
    settings.write_text("mine")
    for command in (["--", "uptime"], []):
        run = clone.run("scripts/install-service", "clock", *command, DESTDIR=str(destination))
        assert "exists; it is not changed" in run.stderr
        assert (len(clone.noted("-m venv ")), len(clone.noted("-m pip install "))) == (0, 1)
    assert settings.read_text() == "mine"
    assert unit.read_text() != "old"


def test_interrupted_installation(clone: Clone, destination: Path) -> None:
    """An environment without pip is the rest of an interrupted installation, so the script creates it again."""
    python = destination / "opt/wsbridge/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 1\n")
    clone.run("scripts/install-service", "clock", "--", "date", DESTDIR=str(destination))
    assert len(clone.noted("-m venv ")) == 1


def test_clone_stays_clean(clone: Clone, destination: Path) -> None:
    """The build runs elsewhere, so that root owns no file in the clone."""
    before = sorted(clone.root.rglob("*"))
    clone.run("scripts/install-service", "clock", "--", "date", DESTDIR=str(destination))
    assert sorted(clone.root.rglob("*")) == before
    assert str(clone.root) not in clone.noted("-m pip install ")[0]


def test_relative_command(clone: Clone, destination: Path) -> None:
    """The script makes a relative path of a program absolute, and keeps a symbolic link."""
    (clone.root.parent / "link.sh").symlink_to(clone.root / "scripts/wsbridge")
    clone.run("scripts/install-service", "links", "--", "./link.sh", DESTDIR=str(destination))
    assert f"COMMAND={clone.root.parent}/link.sh\n" in (destination / "etc/wsbridge/links.env").read_text()


def test_dry_run(clone: Clone, destination: Path) -> None:
    """A dry run prints every step and performs none."""
    for start in ([], ["--start"]):
        run = clone.run("scripts/install-service", "--dry-run", *start, "clock", "--", "date")
        assert run.returncode == 0
        assert clone.notes == []
        assert "+ /etc/wsbridge/clock.env with COMMAND=date\n" in run.stderr
        assert re.search(r"^\+ useradd --system .* wsbridge\n\+ systemctl daemon-reload$", run.stderr, re.MULTILINE)
        assert ("+ systemctl restart wsbridge@clock\n" in run.stderr) == bool(start)


def test_flags_on_either_side(clone: Clone) -> None:
    """Flags may precede or follow the NAME; words after -- belong to COMMAND."""
    runs = [
        clone.run("scripts/install-service", *words, "--", "date", "--start")
        for words in (["--dry-run", "--broadcast", "temps"], ["temps", "--broadcast", "--dry-run"], ["--broadcast", "temps", "--dry-run"])
    ]
    assert runs[0].returncode == 0
    assert "+ /etc/wsbridge-broadcast/temps.env with COMMAND=date --start\n" in runs[0].stderr
    assert [run.stderr for run in runs] == [runs[0].stderr] * 3


def test_dry_run_of_a_broadcast(clone: Clone) -> None:
    """A dry run of a gateway prints the unit, the file and the service."""
    run = clone.run("scripts/install-service", "--dry-run", "--start", "--broadcast", "clock")
    assert clone.notes == []
    assert f"+ cp {clone.root}/systemd/wsbridge-broadcast@.service /etc/systemd/system/wsbridge-broadcast@.service\n" in run.stderr
    assert "+ /etc/wsbridge-broadcast/clock.env with COMMAND=, a gateway to the broker of this machine\n" in run.stderr
    assert run.stderr.endswith("+ systemctl enable wsbridge-broadcast@clock\n+ systemctl restart wsbridge-broadcast@clock\n")


def test_sudo(clone: Clone) -> None:
    """Before sudo asks for a password, the script tells the user that it needs root."""
    clone.add("sudo", '#!/bin/sh\necho "sudo $*" >>"$NOTES"\n')
    for flags in ("--start", "--start --broadcast"):
        run = clone.run("scripts/install-service", *flags.split(), "clock", "--", "date", "two words")
        assert run.stderr == "+ sudo, to install into /opt, /etc and systemd\n"
        assert clone.notes == [f"sudo env PYTHON=python3 {clone.root}/scripts/install-service {flags} clock -- date two words"]


def test_without_sudo(clone: Clone) -> None:
    """Without sudo, the script prints why it needs root and the command to run as root, and changes nothing."""
    run = clone.run("scripts/install-service", "clock", "--broadcast", "--", "date", "+%s")
    assert run.returncode == 1
    assert "needs root, and sudo is missing" in run.stderr
    assert run.stderr.endswith(f"Run this as root: {clone.root}/scripts/install-service --broadcast clock -- date +%s\n")
    assert clone.notes == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "NAME is missing"),
        (["--strat", "x"], "unknown flag --strat"),
        (["x", "--strat"], "unknown flag --strat"),
        (["--start"], "NAME is missing"),
        (["a/b", "--", "date"], "NAME is 'a/b'; use only letters"),
        (["clock", "date"], "write -- before COMMAND"),
        (["clock"], "clock.env does not exist; add a COMMAND"),
        (["clock", "--", "./no-such.sh"], "./no-such.sh is not an executable file"),
        (["clock", "--", "/etc"], "/etc is not an executable file"),
        (["clock", "--", "date", 'a"b'], "put 'a\"b' into a script"),
        (["clock", "--", "vmstat -n 1"], f"{NOT_IN_PATH} 'vmstat -n 1'; write the words of COMMAND as separate arguments"),
        (["clock", "--", "/usr/bin/vmstat -n 1"], "is not an executable file; write the words of COMMAND as separate arguments"),
        (["clock", "--", "no-such-program"], f"{NOT_IN_PATH} 'no-such-program'; write its absolute path"),
        (["clock", "--", ""], f"{NOT_IN_PATH} ''"),
        (["clock", "--", "./a program"], "whose path needs quotes"),
        (["--serve"], "wsbridge.toml does not exist; add a FILE"),
        (["--serve", "no-such.toml"], "no-such.toml is not a file"),
        (["--serve", "x.toml", "--", "date"], "--serve accepts no COMMAND"),
        (["--serve", "--broadcast", "x"], "--serve and --broadcast exclude each other"),
    ],
)
def test_invalid_arguments(clone: Clone, destination: Path, words: list[str], message: str) -> None:
    """For invalid arguments, the script prints one line before it changes anything."""
    (clone.root.parent / "a program").symlink_to(clone.root / "scripts/wsbridge")
    run = clone.run("scripts/install-service", *words, DESTDIR=str(destination))
    assert run.returncode == 1
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not destination.exists()


def test_help(clone: Clone) -> None:
    """`--help` prints the help, and changes nothing."""
    run = clone.run("scripts/install-service", "--help")
    assert run.returncode == 0
    assert run.stdout.startswith("scripts/install-service [--dry-run] [--start] [--broadcast] NAME")
