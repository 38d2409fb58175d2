"""Configuration files in their own folder, with programs and folders for their values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wsbridge.config.convert import convert
from wsbridge.config.document import read_document
from wsbridge.settings import ServerSettings


class Folder:
    """A folder with the program `count.sh`, the file `plain.txt` and the folder `public`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "wsbridge.toml"
        (path / "count.sh").write_text("#!/bin/sh\n")
        (path / "count.sh").chmod(0o755)
        (path / "plain.txt").write_text("")
        (path / "public").mkdir()

    def settings(self, text: str, environ: Mapping[str, str] | None = None) -> ServerSettings:
        """Return the settings of a valid file."""
        found = self._convert(text, environ)
        assert isinstance(found, ServerSettings), "\n".join(map(str, found))
        return found

    def faults(self, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        """Return the faults of an invalid file, without its name."""
        found = self._convert(text, environ)
        assert isinstance(found, list), found
        lines = [str(fault) for fault in found]
        assert all(line.isprintable() for line in lines)
        return [line.removeprefix(f"{self.file}:").replace(f"{self.path}/", "") for line in lines]

    def _convert(self, text: str, environ: Mapping[str, str] | None) -> object:
        self.file.write_text(text)
        return convert(read_document(str(self.file)), environ={"PATH": "/bin:/usr/bin"} if environ is None else environ)
