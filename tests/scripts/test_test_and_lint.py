"""`scripts/test`, `scripts/lint` and `.ci/run`: their work around pytest, ruff and mypy."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.scripts.conftest import ROOT, Clone

DEBIAN_PACKAGES = (
    "chromium curl gawk gcc iproute2 libc6-dev libnginx-mod-nchan mawk nginx-light nodejs openssl perl procps rabbitmq-server "
    "shellcheck systemd websocketd"
)

SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file() and not path.suffix)


def test_arguments(clone: Clone) -> None:
    """`scripts/test` passes its arguments to pytest after its own, so they take precedence."""
    run = clone.run("scripts/test", "-k", "two words")
    assert (run.returncode, run.stdout) == (0, "1 passed\n")
    assert clone.notes[-1] == "python scripts/test.py -n 4 --dist loadfile -k two words"


def test_coverage(clone: Clone) -> None:
    """With --cov, the tests run under coverage, which reports at the end; the exit status is pytest's."""
    run = clone.run("scripts/test", "--cov", "-k", "two words", COVERAGE="fails")
    assert run.returncode == 1
    assert len(clone.noted("--editable .[cov]")) == 1
    assert clone.notes[-3:] == [
        "python -m coverage run scripts/test.py -n 4 --dist loadfile -k two words",
        "python -m coverage combine --quiet",
        "python -m coverage report --skip-empty --sort=cover",
    ]


def test_missing_packages(clone: Clone) -> None:
    """The script names and installs the missing ones of the Debian packages that the tests need."""
    clone.add_debian()
    run = clone.run("scripts/test", INSTALLED=DEBIAN_PACKAGES.replace("curl ", "").replace("websocketd", ""))
    assert "installing Debian packages without starting their services: curl websocketd\n" in run.stderr
    assert len(clone.noted("apt-get ")) == 3
    assert len(clone.noted("install --no-install-recommends curl websocketd (may start services: no)")) == 2


def test_nothing_missing(clone: Clone) -> None:
    """If all packages are installed, the script does not call apt."""
    clone.add_debian()
    clone.run("scripts/test", INSTALLED=DEBIAN_PACKAGES)
    assert clone.noted("apt-get") == clone.noted("sudo") == []


def test_node_from_elsewhere(clone: Clone) -> None:
    """A Node from another source than Debian also counts."""
    clone.add_debian()
    clone.add("node", "#!/bin/sh\n")
    clone.run("scripts/test", INSTALLED=DEBIAN_PACKAGES.replace("nodejs", ""))
    assert clone.noted("apt-get") == []


def test_packages_without_sudo(clone: Clone) -> None:
    """Without root or sudo, the script prints the command for an administrator."""
    clone.add_debian()
    (clone.bin / "sudo").unlink()
    run = clone.run("scripts/test", INSTALLED=DEBIAN_PACKAGES.replace("gawk ", ""))
    assert run.returncode == 1
    assert run.stderr.splitlines() == [
        "The tests need Debian packages. Run this as root, then try again:",
        "apt-get update && apt-get install -y --no-install-recommends gawk",
    ]


def test_sudo_that_fails(clone: Clone) -> None:
    """If sudo refuses, the script also prints the command for an administrator."""
    clone.add_debian()
    clone.add("sudo", "#!/bin/sh\necho 'you are not in the sudoers file' >&2\nexit 1\n")
    run = clone.run("scripts/test", INSTALLED=DEBIAN_PACKAGES.replace("gawk ", ""))
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == "apt-get update && apt-get install -y --no-install-recommends gawk"


@pytest.mark.parametrize("name", ["test", "lint", "docs", "bench", "soak", "reload-soak", "install-service", "wsbridge"])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(clone: Clone, name: str, flag: str) -> None:
    """`--help` works at once in a fresh clone, and installs nothing."""
    clone.add_debian()
    before = sorted(clone.root.rglob("*"))
    run = clone.run(f"scripts/{name}", flag, MODULES="argparse", INSTALLED="")
    assert (run.returncode, run.stderr) == (0, "")
    assert f"scripts/{name}" in run.stdout
    assert clone.noted("install") == clone.noted("venv") == clone.noted("sudo") == clone.noted("apt-get") == []
    assert sorted(clone.root.rglob("*")) == before


@pytest.mark.parametrize("name", ["soak", "reload-soak"])
def test_help_of_soak(name: str) -> None:
    """The help of `scripts/soak` works without installed packages, and names every flag of the program."""
    flags = re.findall(r'add_argument\("(--\w+)"(?!.*SUPPRESS)', (ROOT / f"scripts/{name.replace('-', '_')}.py").read_text())
    assert flags
    assert [flag for flag in flags if f"  {flag} " not in (ROOT / "scripts" / name).read_text()] == []


def test_lint(clone: Clone) -> None:
    """`scripts/lint` checks style, formatting and spelling of all files, and the types of the package with --strict."""
    assert clone.run("scripts/lint").returncode == 0
    assert clone.notes[-4:] == [
        "python -m ruff check .",
        "python -m ruff format --check --quiet .",
        "python -m mypy --strict wsbridge",
        "python -m codespell_lib .",
    ]


@pytest.mark.parametrize("fails", ["test", "lint"])
def test_ci(clone: Clone, fails: str) -> None:
    """`.ci/run` fails if the tests or the lint fail."""
    for name in ("test", "lint"):
        (clone.root / "scripts" / name).write_text(f"#!/bin/sh\nexit {int(name == fails)}\n")
    assert clone.run(".ci/run").returncode == 1
    (clone.root / "scripts" / fails).write_text("#!/bin/sh\n")
    assert clone.run(".ci/run").returncode == 0


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / ".ci/run"], ids=lambda path: path.name)
def test_shell_scripts(script: Path) -> None:
    """Every script is executable by all, and shellcheck reports nothing about shell scripts."""
    assert script.stat().st_mode & 0o777 == 0o755
    if script.read_text().startswith(("#!/bin/sh\n", "#!/bin/bash\n")):
        run = subprocess.run(["shellcheck", "-x", "--severity=warning", script], cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_documented(script: Path) -> None:
    """The documentation describes every script."""
    pages = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "service.md")
    assert any(f"scripts/{script.name}" in page.read_text() for page in pages)


def test_help_of_the_tests_with_rabbitmq_4(clone: Clone) -> None:
    """`scripts/test-rabbitmq4 --help` names the download and its destination, and does nothing."""
    run = clone.run("scripts/test-rabbitmq4", "--help")
    assert run.returncode == 0
    assert "downloads about 80 MB" in run.stdout
    assert "wsbridge/debian-13" in run.stdout
    assert clone.notes == []
