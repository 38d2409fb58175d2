"""Checks between the tables of a configuration file."""

from __future__ import annotations

import pytest

from tests.config.files import Folder
from tests.support.site import Certificates

FILES = '[[endpoint]]\nkind = "files"\nfiles = "public"\n'


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("[[listen]]\naddress = ':80'\n" * 2, ["4: listen[2].address: :80 is already the address of [[listen]] at wsbridge.toml:1; "]),
        ("[[listen]]\naddress = 'A:80'\n[[listen]]\naddress = 'a:80'\n", ["4: listen[2].address: a:80 is already"]),
        (
            "[[listen]]\naddress = ':80'\n[[listen]]\naddress = '127.0.0.1:80'\n",
            [
                "4: listen[2].address: 127.0.0.1:80 cannot be used with :80 of [[listen]] at wsbridge.toml:1;"
                " choose another port, or remove one of the two"
            ],
        ),
        (
            "[[listen]]\naddress = '0.0.0.0:443'\nredirect_port = 80\n[[listen]]\naddress = ':80'\n",
            ["5: listen[2].address: :80 cannot be used with 0.0.0.0:80 of [[listen]] at wsbridge.toml:1; "],
        ),
        ("[[listen]]\naddress = 'unix:public/../s'\n[[listen]]\naddress = 'unix:s'\n", ["4: listen[2].address: unix:s is already"]),
        ("[[listen]]\naddress = 'unix:plain.txt'\n", ["2: listen[1].address: plain.txt exists and is not a socket; choose another path"]),
        ("[[listen]]\naddress = ':80'\n[[listen]]\naddress = ':81'\nredirect_port = 80\n", ["5: listen[2].redirect_port: :80 is already"]),
        ("[[listen]]\naddress = 'unix:s'\n" * 2, ["4: listen[2].address: unix:s is already"]),
        ("[[listen]]\naddress = 'systemd:s'\n" * 2, ["4: listen[2].address: systemd:s is already"]),
        ("[[listen]]\naddress = ':80'\nmode = '660'\n", ["3: listen[1].mode: needs address=unix:PATH"]),
        ("[[listen]]\naddress = 'unix:s'\nowner = 'nosuchuser'\n", ["3: listen[1].owner: nosuchuser: this machine has no such user"]),
        ("[[listen]]\naddress = ':80'\ncertificate = 'c.pem'\n", ["3: listen[1].certificate: needs key, its private key"]),
        ("[[listen]]\naddress = ':80'\nkey = 'c.pem'\n", ["3: listen[1].key: needs certificate"]),
        (
            "[[listen]]\naddress = ':80'\ncertificate = 'c.pem'\nkey = 'k.pem'\n",
            [
                "3: listen[1].certificate: cannot read certificate=c.pem: no such file or directory; create the file, or correct the name",
                "4: listen[1].key: cannot read key=k.pem: no such file or directory; create the file, or correct the name",
            ],
        ),
    ],
)
def test_listeners(folder: Folder, text: str, faults: list[str]) -> None:
    """Each listener can open: its address is unique, and its certificate is usable."""
    found = folder.faults(text + FILES)
    assert [fault for fault, beginning in zip(found, faults, strict=True) if not fault.startswith(beginning)] == []


def test_free_ports(folder: Folder) -> None:
    """Any number of listeners may request a free port."""
    assert len(folder.settings("[[listen]]\naddress = ':0'\n" * 2 + FILES).listeners) == 2


def test_certificate(folder: Folder, certificates: Certificates) -> None:
    """A key that does not match the certificate is a fault before the server starts."""
    text = f"[[listen]]\naddress = ':443'\ncertificate = '{certificates.folder}/server.pem'\nkey = '{certificates.folder}/%s'\n"
    assert folder.settings(text % "server.key" + FILES).listeners[0].tls is not None
    (fault,) = folder.faults(text % "client.key" + FILES)
    assert fault.startswith("4: listen[1].key: cannot use key=")
    assert "does not match certificate=" in fault


def test_endpoints_at_one_path(folder: Folder) -> None:
    """Two endpoints have different paths or different hosts."""
    found = folder.faults(FILES * 2 + FILES + "path = '/a'\nhosts = ['a.x', 'b.x']\n" + FILES + "path = '/a'\nhosts = ['B.x']\n")
    assert found == [
        '4: endpoint[2].path: [[endpoint]] at wsbridge.toml:1 has the path "/" already; choose another path',
        '15: endpoint[4].path: [[endpoint]] at wsbridge.toml:7 has the path "/a" of b.x already; choose another path',
    ]
    assert len(folder.settings(FILES + FILES + "hosts = ['a.x']\n" + FILES + "hosts = ['b.x']\n").endpoints) == 3
    assert folder.faults(FILES + FILES + "path = 'x'") == [
        "7: endpoint[2].path: x does not begin with a slash; write it as in a URL, such as /count"
    ]


BROADCAST = '[[endpoint]]\nkind = "broadcast"\nexchange = "x"\nbroker = "%s"\n'


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("mayn", '; did you mean "main"?'), ("other", "; add a table [broker.other]"), ("a b", '; add a table [broker."a b"]')],
)
def test_brokers(folder: Folder, name: str, remedy: str) -> None:
    """The fault for an undefined broker names the nearest defined one; a broker without endpoints is valid."""
    (fault,) = folder.faults("[broker.main]\nurl = 'amqp://a/'\n" + BROADCAST % name)
    assert fault.startswith("6: endpoint[1].broker: there is no [broker.")
    assert fault.endswith(remedy)
    (fault,) = folder.faults(
        "[broker.main]\nurl = 'amqp://a/'\n[defaults.broadcast]\nbroker = 'other'\n" + BROADCAST.partition("broker")[0]
    )
    assert fault == "4: defaults.broadcast.broker: there is no [broker.other]; add a table [broker.other]"
    folder.settings("[broker.main]\nurl = 'amqp://a/'\n[broker.other]\nurl = 'amqp://b/'\n" + BROADCAST % "main")


def test_files_of_a_broker(folder: Folder) -> None:
    """A file named in the address of a broker must exist."""
    (fault,) = folder.faults("[broker.main]\nurl = 'amqps://a/?cafile=none.pem'\n" + FILES)
    assert fault == "2: broker.main.url: the cafile in its URL is not a file: none.pem"


def test_console(folder: Folder) -> None:
    """A console needs an existing endpoint."""
    console = '[[endpoint]]\nkind = "console"\npath = "/console"\ntarget = "%s"\n'
    folder.settings(FILES + "path = '/files'\n" + console % "/files")
    (fault,) = folder.faults(FILES + "path = '/files'\n" + console % "/file")
    assert fault == '8: endpoint[2].target: no endpoint has the path "/file"; did you mean "/files"?'
    assert folder.faults(FILES + '[defaults]\ntarget = "nowhere"\n' + console.replace("target", "#")) == [
        '5: defaults.target: no endpoint has the path "nowhere"; write the path of an endpoint'
    ]
