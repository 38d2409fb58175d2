"""The settings of a listener: each form of its address, and settings that conflict."""

from __future__ import annotations

from typing import Any

import pytest

from wsbridge.settings.declare import check_fault, field_of
from wsbridge.settings.listen import ListenSettings, TlsSettings


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [(":80", "", 80), ("0.0.0.0:8080", "0.0.0.0", 8080), ("[::1]:0", "[::1]", 0), ("pi.local:65535", "pi.local", 65535)],
)
def test_tcp(address: str, host: str, port: int) -> None:
    """A TCP address is a host, which may be empty, and a port."""
    listen = ListenSettings(address=address)
    assert (listen.is_tcp, listen.host, listen.port) == (True, host, port)
    assert [*check_fault(field_of(ListenSettings, "address"), address)] == []


def test_other_addresses() -> None:
    """A Unix socket has a path; a systemd socket may have a name."""
    unix, named, only = (ListenSettings(address=address) for address in ("unix:/run/x:1", "systemd:web", "systemd:"))
    assert (unix.is_tcp, unix.unix_path, unix.inherited) == (False, "/run/x:1", None)
    assert [(listen.is_tcp, listen.unix_path, listen.inherited) for listen in (named, only)] == [(False, None, "web"), (False, None, "")]


@pytest.mark.parametrize(
    "address",
    [
        "",
        "80",
        "localhost",
        "::1:80",
        "[::1]",
        ":65536",
        ":x",
        "a/b:80",
        "unix:",
        "http://a:80",
        ":-1",
        "[::g]:80",
        "999.1.1.1:80",
        "a b:80",
        " a:80",
        "a\n:80",
        "unix: ",
    ],
)
def test_no_address(address: str) -> None:
    """Any other address is a fault that lists the valid forms."""
    (fault,) = check_fault(field_of(ListenSettings, "address"), address)
    assert "HOST:PORT" in fault.sentence


@pytest.mark.parametrize(
    ("given", "mode"),
    [({}, 0o600), ({"group": "x"}, 0o660), ({"mode": "640"}, 0o640), ({"mode": "0o777"}, 0o777), ({"mode": "0600"}, 0o600)],
)
def test_mode(given: dict[str, Any], mode: int) -> None:
    """The mode is octal. Without a mode, the given group may connect."""
    assert ListenSettings(address="unix:x", **given).unix_mode == mode
    assert [*check_fault(field_of(ListenSettings, "mode"), given.get("mode", ""))] == []


def test_long_path() -> None:
    """The path of a Unix socket has at most 107 bytes."""
    (fault,) = ListenSettings(address="unix:/" + "é" * 53 + "x").faults()
    assert fault == (("address",), "<address>: the path of the Unix socket has 108 bytes; write at most 107")
    assert [*ListenSettings(address="unix:/" + "é" * 53).faults()] == []


def test_tls() -> None:
    """A certificate turns TLS on."""
    assert ListenSettings(address=":1").tls is None
    assert ListenSettings(address=":1", certificate="c", key="k").tls == TlsSettings("c", "k", None)
    assert ListenSettings(address=":1", certificate="c", key="k", client_ca="a").tls == TlsSettings("c", "k", "a")


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"address": ":80", "mode": "600"}, "mode"),
        ({"address": ":80", "owner": "root"}, "owner"),
        ({"address": "systemd:", "group": "root"}, "group"),
        ({"address": "unix:x", "redirect_port": 80}, "redirect_port"),
        ({"address": ":80", "redirect_port": 65536}, "redirect_port"),
        ({"address": ":80", "certificate": "c"}, "certificate"),
        ({"address": ":80", "key": "k"}, "key"),
        ({"address": ":80", "client_ca": "a"}, "client_ca"),
    ],
)
def test_faults(values: dict[str, Any], path: str) -> None:
    """A setting that does not apply to the kind of address is a fault. So is a certificate without a key, and the reverse."""
    assert [fault.path for fault in ListenSettings(**values).faults()] == [(path,)]
