"""The systemd units: systemd reports no fault, and they give programs no unintended privileges."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.deadline import scaled
from tests.support.server import Bridge, Server
from wsbridge.cli.commands import BROADCAST
from wsbridge.cli.main import FAULT
from wsbridge.cli.parse import unknown_variables
from wsbridge.errors import ConfigurationError, UsageError

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"

EXPOSURE = 25
"""The highest permitted exposure of `systemd-analyze security`, of 100; a unit without hardening has 96."""


@pytest.fixture(params=["wsbridge@.service", "wsbridge-broadcast@.service", "wsbridge.service"])
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit with a program that exists on every machine, since systemd-analyze looks for the program."""
    path = tmp_path / request.param
    text = (SYSTEMD / request.param).read_text()
    path.write_text(text.replace("=/opt/wsbridge/bin/wsbridge ", "=/bin/true "))
    assert path.read_text() != text
    return path


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=scaled(60))


def test_verify(unit: Path) -> None:
    """`systemd-analyze verify` reports nothing about the unit."""
    run = analyze("verify", "--man=no", unit)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_verify_reports_mistakes(unit: Path) -> None:
    """`systemd-analyze verify` reports an unknown setting, so the test above can fail."""
    unit.write_text(unit.read_text().replace("PrivateTmp=", "PrivateTemp="))
    assert "PrivateTemp" in analyze("verify", "--man=no", unit).stderr


def test_hardening(unit: Path) -> None:
    """`systemd-analyze security` rates the unit as hardened."""
    run = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", unit)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize(("kind", "word"), [("wsbridge", ""), ("wsbridge-broadcast", "broadcast ")])
def test_command_is_split(kind: str, word: str) -> None:
    """The unit passes the command of the settings word by word, after `--`, so that no word of it counts as a flag of wsbridge."""
    lines = (SYSTEMD / f"{kind}@.service").read_text().splitlines()
    assert f"EnvironmentFile=/etc/{kind}/%i.env" in lines
    assert f"ExecStart=/opt/wsbridge/bin/wsbridge {word}-- $COMMAND" in lines


def test_restart_on_failure(unit: Path) -> None:
    """An error of the configuration ends the service. After any other failure, also a bug, systemd restarts it."""
    lines = unit.read_text().splitlines()
    assert "Restart=on-failure" in lines
    assert f"RestartPreventExitStatus={ConfigurationError.exit_status} {UsageError.exit_status}" in lines
    assert FAULT not in (ConfigurationError.exit_status, UsageError.exit_status)


def test_broadcast_unit_equals_the_bridge_unit() -> None:
    """The units of broadcast and bridge differ only in comments, paths, description, dependencies and subcommand."""
    plain, broadcast = (
        [line for line in (SYSTEMD / f"{kind}@.service").read_text().splitlines() if not line.startswith("#")]
        for kind in ("wsbridge", "wsbridge-broadcast")
    )
    changes = {
        "Description=wsbridge: %i": "Description=wsbridge broadcast: %i",
        "After=network-online.target": "After=network-online.target rabbitmq-server.service",
        "ExecStart=/opt/wsbridge/bin/wsbridge -- $COMMAND": "ExecStart=/opt/wsbridge/bin/wsbridge broadcast -- $COMMAND",
    }
    assert broadcast == [changes.get(line) or line.replace("wsbridge/%i", "wsbridge-broadcast/%i") for line in plain]


def test_unit_of_a_configuration_file() -> None:
    """The unit of a configuration file has the same hardening as the other units, and checks the file before a reload."""
    plain, configured = (
        [line for line in (SYSTEMD / name).read_text().splitlines() if line and not line.startswith("#")]
        for name in ("wsbridge@.service", "wsbridge.service")
    )
    file = "/etc/wsbridge/wsbridge.toml"
    assert [line.replace("/%i", "") for line in plain if line not in configured] == [
        "Description=wsbridge: %i",
        "After=network-online.target",
        "EnvironmentFile=/etc/wsbridge.env",
        "ExecStart=/opt/wsbridge/bin/wsbridge -- $COMMAND",
        "StateDirectory=wsbridge",
        "RuntimeDirectory=wsbridge",
        "WorkingDirectory=%S/wsbridge",
    ]
    assert [line for line in configured if line.startswith("Exec")] == [
        f"ExecStart=/opt/wsbridge/bin/wsbridge serve {file}",
        f"ExecReload=/opt/wsbridge/bin/wsbridge check {file}",
        "ExecReload=/bin/kill -HUP $MAINPID",
    ]


def test_verify_socket(tmp_path: Path) -> None:
    """`systemd-analyze verify` reports nothing about the socket unit together with its service."""
    for name in ("wsbridge.service", "wsbridge.socket"):
        (tmp_path / name).write_text((SYSTEMD / name).read_text().replace("=/opt/wsbridge/bin/wsbridge ", "=/bin/true "))
    run = analyze("verify", "--man=no", tmp_path / "wsbridge.socket")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.parametrize("file", ["example.env", "broadcast.env"])
def test_example_settings(file: str) -> None:
    """The example of a settings file has only variables that wsbridge knows."""
    names = re.findall(r"^#?(WSBRIDGE_\w+)=", (SYSTEMD / file).read_text(), re.MULTILINE)
    assert len(names) > 3
    assert unknown_variables(dict.fromkeys(names, "")) == []
    assert unknown_variables({"WSBRIDGE_NONSENSE": ""}) == ["WSBRIDGE_NONSENSE"]


@pytest.mark.parametrize(
    ("changes", "is_gateway"),
    [({}, False), ({"COMMAND": "", "WSBRIDGE_INPUT": "exchange"}, True)],
)
def test_broadcast_settings(changes: dict[str, str], is_gateway: bool) -> None:
    """The example's settings broadcast the output of its command. With an empty command, which systemd drops, no program runs."""
    lines = re.findall(r"^(\w+)=(.*)$", (SYSTEMD / "broadcast.env").read_text(), re.MULTILINE)
    variables = dict(lines) | changes | {"WSBRIDGE_PORT": "0", "WSBRIDGE_ADDRESS": "127.0.0.1"}
    assert variables.keys() - {"COMMAND"} <= {option.variable for option in BROADCAST.options}
    bridge = Bridge("wsbridge", (sys.executable, "-m", "wsbridge", "broadcast"), takes_port_zero=True)
    with Server("--", *shlex.split(variables.pop("COMMAND")), bridge=bridge, listen=(), env=variables) as server:
        server.wait_for_log("Broadcasting exchange +: temps")
        with server.connect() as client:
            if is_gateway:
                client.send_text("said by a browser")
            assert client.receive_text().startswith("said" if is_gateway else "procs")
