"""Reading settings from tables: valid, invalid and missing values."""

from __future__ import annotations

from tests.config.files import Folder
from wsbridge.config.document import read_document
from wsbridge.config.reading import Reader, Values
from wsbridge.settings import BrokerSettings, ProcessSettings
from wsbridge.settings.declare import fields_of


def reader(folder: Folder, text: str, **environ: str) -> Reader:
    folder.file.write_text(text)
    return Reader(read_document(str(folder.file)), environ)


def test_read(folder: Folder) -> None:
    """Valid values are read, even beside invalid values."""
    found = reader(folder, "[server]\nguard = false\nmax_sessions = 'x'\nother = 1\nnothing = 2")
    table = found.document.tables["server"]
    read = found.read(("server",), table, fields_of(ProcessSettings), more=("other",))
    assert read == Values({"guard": False}, {"max_sessions"})
    assert [fault.path for fault in found.faults] == ["server.max_sessions", "server.nothing"]
    found.read(("server",), table, fields_of(ProcessSettings), more=("other",))
    assert len(found.faults) == 2


def test_secrets(folder: Folder) -> None:
    """An address may come from a variable or a file, also within an array; each invalid item is reported."""
    (folder.path / "secret").write_text("amqp://b/\n")
    text = "[broker.a]\nurl = [{ env = 'A' }, { file = 'secret' }, 'amqp://c/']\n[broker.b]\nurl = [1, { env = 'B' }]\n[broker.c]\nurl = []"
    found = reader(folder, text, A="amqp://a/")
    tables = found.document.tables["broker"]
    assert found.read(("broker", "a"), tables["a"], fields_of(BrokerSettings)).values == {"url": ("amqp://a/", "amqp://b/", "amqp://c/")}
    for name in "bc":
        assert found.read(("broker", name), tables[name], fields_of(BrokerSettings)).wrong == {"url"}
    assert [fault.path for fault in found.faults] == ["broker.b.url[1]", "broker.b.url[2]", "broker.c.url"]


def test_missing(folder: Folder) -> None:
    """A setting with an invalid value is missing too, but only the invalid value is reported."""
    found = reader(folder, "[broker.a]\n")
    required = [field for field in fields_of(BrokerSettings) if field.is_required]
    assert [field.name for field in found.missing(("broker", "a"), required, Values())] == ["url"]
    assert [field.name for field in found.missing(("broker", "a"), required, Values({}, {"url"}))] == ["url"]
    assert found.missing(("broker", "a"), required, Values({"url": ()}, set())) == []
    assert [str(fault.sentence) for fault in found.faults] == ["missing: add url"]
