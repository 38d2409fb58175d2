"""The files that a document names."""

from __future__ import annotations

from pathlib import Path

from wsbridge.config.document import Document, read_document
from wsbridge.config.namedfiles import secret_files, tls_files


def document(folder: Path, text: str, more: str = "") -> Document:
    """Return a document of two files in two folders."""
    (folder / "conf.d").mkdir()
    (folder / "wsbridge.toml").write_text('include = "conf.d/*.toml"\n' + text)
    (folder / "conf.d/more.toml").write_text(more)
    return read_document(str(folder / "wsbridge.toml"))


def test_secret_files(tmp_path: Path) -> None:
    """A secret may be in a file, also within an array; its name is relative to the file that names it."""
    text = '[broker.a]\nurl = { file = "a" }\n[broker.b]\nurl = ["amqp://b", { env = "B" }, { file = "/b" }]\n'
    found = document(tmp_path, text, '[broker.c]\nurl = { file = "c" }\n')
    assert secret_files(found) == (f"{tmp_path}/a", "/b", f"{tmp_path}/conf.d/c")


def test_tls_files(tmp_path: Path) -> None:
    """A listener names its certificate, its key, and the CA of its clients."""
    text = '[[listen]]\ncertificate = "a.pem"\nkey = "/a.key"\n[[listen]]\naddress = ":1"\n'
    found = document(tmp_path, text, '[[listen]]\nclient_ca = "ca.pem"\n')
    assert tls_files(found) == (f"{tmp_path}/a.pem", "/a.key", f"{tmp_path}/conf.d/ca.pem")


def test_invalid_values(tmp_path: Path) -> None:
    """Values that are not file names are ignored, whatever other faults the document has."""
    found = document(tmp_path, 'broker = 1\nlisten = ["x"]\n')
    assert (secret_files(found), tls_files(found)) == ((), ())
    found = document(tmp_path / "conf.d", '[broker]\na = 1\nb = { url = { file = 1 } }\n[[listen]]\ncertificate = ""\nkey = 1\n')
    assert (secret_files(found), tls_files(found)) == ((), ())
