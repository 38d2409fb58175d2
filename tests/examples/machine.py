"""A simulated machine for the plugins: a directory with kernel files and logs, and its own systemctl and journalctl.

The scripts of the plugins read files below PLUGIN_ROOT and find commands in PATH. They do not access the real machine. `machine.serve()`
makes a server of the plugins with both variables.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.support.server import ROOT, Server

PLUGINS = ROOT / "examples" / "plugins"

SYSTEMCTL = """\
#!/bin/bash
# Services are files in services/, which hold their state; orders are recorded; a file called forbidden makes it refuse them.
cd "${0%/*}/.." || exit 1
if [[ $1 == show ]]; then
    while [[ $1 != -- ]]; do shift; done
    shift
    for unit; do
        [[ $unit == "$1" ]] || echo
        if read -r active sub description 2>/dev/null <"services/$unit"; then
            printf 'LoadState=loaded\\nActiveState=%s\\nSubState=%s\\nDescription=%s\\n' "$active" "$sub" "$description"
        else
            printf 'LoadState=not-found\\nActiveState=inactive\\nSubState=dead\\nDescription=%s\\n' "$unit"
        fi
    done 2>/dev/null
    exit
fi
echo "$*" >>orders
while [[ $1 == --* ]]; do shift; done
if [[ -e forbidden ]]; then
    echo "Failed to $1 $3: Interactive authentication required." >&2
    exit 1
fi
read -r _ _ description <"services/$3"
case $1 in
    start) echo "active running $description" ;;
    stop) echo "inactive dead $description" ;;
esac >"services/$3"
"""

JOURNALCTL = """\
#!/bin/bash
# The journal is the file journal; without it there is none.
cd "${0%/*}/.." || exit 1
[[ -e journal ]] || exit 1
case $* in
    *--follow*) exec tail -n 500 -F journal ;;
    *) tail -n 1 journal ;;
esac
"""


class Machine:
    """A simulated machine in a directory of the test; it initially has processors and nothing else."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir(parents=True)
        self.write("proc/loadavg", "0.52 0.41 0.30 1/123 4567\n")
        self.write("proc/cpuinfo", "processor\t: 0\nmodel name\t: Made-up 1\n")
        self.busy(0, 0)

    def serve(self, **options: Any) -> Server:
        """Return a server of the plugins on this machine, as a context manager; options are those of Server()."""
        env = {"PLUGIN_ROOT": str(self.root), "PATH": f"{self.root}/bin:{os.environ['PATH']}"}
        return Server("--passenv=PATH,PLUGIN_ROOT", f"--dir={PLUGINS}", f"--staticdir={PLUGINS}", env=env, **options)

    def write(self, path: str, text: str) -> Path:
        """Write a file of the machine atomically, so that a reader never sees a part of it."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(file.name + ".new")
        new.write_text(text, encoding="utf-8", errors="surrogateescape")
        new.replace(file)
        return file

    def append(self, path: str, text: str) -> None:
        with (self.root / path).open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)

    def command(self, name: str, script: str) -> None:
        """Install a command that takes precedence over that of the system."""
        self.write(f"bin/{name}", script).chmod(0o755)

    def busy(self, *cores: int, of: int = 100) -> None:
        """Set the busy ticks of each processor, out of `of` ticks since the start of the machine."""
        rows = [f"cpu{number} {core} 0 0 {of - core} 0 0 0 0 0 0" for number, core in enumerate(cores)]
        all_busy, all_idle = sum(cores), len(cores) * of - sum(cores)
        self.write("proc/stat", "\n".join([f"cpu  {all_busy} 0 0 {all_idle} 0 0 0 0 0 0", *rows, "intr 1", ""]))

    def sensor(self, number: int, name: str, millidegrees: int | str) -> None:
        self.write(f"sys/class/thermal/thermal_zone{number}/type", f"{name}\n")
        self.write(f"sys/class/thermal/thermal_zone{number}/temp", f"{millidegrees}\n")

    def log(self, path: str, *lines: str) -> None:
        self.write(path, "".join(line + "\n" for line in lines))

    def journal(self, *lines: str) -> None:
        self.command("journalctl", JOURNALCTL)
        self.log("journal", *lines)

    def systemd(self, **services: str) -> None:
        """Run systemd with these services: `cron="active running Regular jobs"`, `ssh="failed failed OpenSSH server"`."""
        self.command("systemctl", SYSTEMCTL)
        (self.root / "run/systemd/system").mkdir(parents=True)
        for name, state in services.items():
            self.write(f"services/{name.replace('_', '-')}.service", state + "\n")

    def user(self, name: str, number: int) -> None:
        """Set the user as whom the scripts appear to run."""
        self.command("id", f"#!/bin/sh\ncase $1 in -u) echo {number} ;; *) echo {name} ;; esac\n")

    def polkit(self) -> None:
        self.write("usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service", "")

    def forbid(self) -> None:
        """Let systemd refuse all commands."""
        self.write("forbidden", "")

    @property
    def orders(self) -> list[str]:
        """Return the commands that systemctl received, one on each line."""
        file = self.root / "orders"
        return file.read_text().splitlines() if file.exists() else []
