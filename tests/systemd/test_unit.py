"""The unit: systemd finds nothing wrong with it, and it gives programs no power that they were not meant to have."""

import re
import subprocess
from pathlib import Path

import pytest

from wsbridge.cli.parse import unknown_variables

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"

EXPOSURE = 25
"""The most that `systemd-analyze security` may find, of 100; a unit without hardening has 96."""


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is there on every machine, since systemd-analyze looks for it."""
    path = tmp_path / "wsbridge@.service"
    text = (SYSTEMD / "wsbridge@.service").read_text()
    path.write_text(text.replace("ExecStart=/opt/wsbridge/bin/wsbridge ", "ExecStart=/bin/true "))
    assert path.read_text() != text
    return path


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60)


def test_verify(unit: Path) -> None:
    """The unit is clean under `systemd-analyze verify`."""
    run = analyze("verify", "--man=no", unit)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_verify_sees_mistakes(unit: Path) -> None:
    """The test above could fail: a setting that systemd does not know is reported."""
    unit.write_text(unit.read_text().replace("PrivateTmp=", "PrivateTemp="))
    assert "PrivateTemp" in analyze("verify", "--man=no", unit).stderr


def test_hardening(unit: Path) -> None:
    """The unit is hardened, by systemd's own reckoning."""
    run = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", unit)
    assert run.returncode == 0, run.stdout


def test_command_is_split() -> None:
    """The command of the settings is handed on word by word, after everything that could be taken for wsbridge's own."""
    lines = (SYSTEMD / "wsbridge@.service").read_text().splitlines()
    assert "EnvironmentFile=/etc/wsbridge/%i.env" in lines
    assert "ExecStart=/opt/wsbridge/bin/wsbridge -- $COMMAND" in lines


def test_example_settings() -> None:
    """The example of a settings file names only variables that wsbridge knows."""
    names = re.findall(r"^#?(WSBRIDGE_\w+)=", (SYSTEMD / "example.env").read_text(), re.MULTILINE)
    assert len(names) > 3
    assert unknown_variables(dict.fromkeys(names, "")) == []
    assert unknown_variables({"WSBRIDGE_NONSENSE": ""}) == ["WSBRIDGE_NONSENSE"]
