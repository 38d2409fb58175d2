"""An address to listen on: TCP, a Unix socket, or a socket inherited from systemd."""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Annotated

from wsbridge.settings.declare import Fault, Part, Setting

UNIX = "unix:"
SYSTEMD = "systemd:"
ADDRESS = re.compile(r"(\[(?P<ip>[^][]+)\]|(?P<name>[^][:/\s]*)):(?P<port>[0-9]{1,5})")
FOUR_NUMBERS = re.compile(r"[0-9]+(\.[0-9]+){3}")
"""A name of this form is an IPv4 address, or none."""
LONGEST_PATH = 107
"""Bytes of the path of a Unix socket (unix(7)); a NUL follows."""
OCTAL = re.compile(r"(0o?)?[0-7]{3}\Z")
LARGEST_PORT = 65535
WRITE_AN_ADDRESS = "write HOST:PORT, :PORT, [IPV6]:PORT, unix:PATH or systemd:NAME"


def _check_address(address: str) -> None:
    if address.startswith(SYSTEMD) or (address.startswith(UNIX) and address.removeprefix(UNIX).strip()):
        return
    found = ADDRESS.fullmatch(address)
    if found is None or not address.isprintable() or not _is_host(found["ip"], found["name"]) or int(found["port"]) > LARGEST_PORT:
        raise ValueError(f"<address>={address} is not an address; {WRITE_AN_ADDRESS}")


def _is_host(ip: str | None, name: str | None) -> bool:
    """Whether a host can exist: an IP address in brackets, or a name."""
    address = ip or (name if name and FOUR_NUMBERS.fullmatch(name) else None)
    try:
        return address is None or bool(ip_address(address))
    except ValueError:
        return False


def place_fault(host: str, port: int) -> str:
    """Return the reason that no socket can have a host and a port; empty if one can."""
    if re.search(r"[][:]", host) and not re.fullmatch(r"\[[^][]+\]", host):
        return "write an IPv6 address in brackets, such as [::1]"
    return "" if 0 <= port <= LARGEST_PORT else f"use a port from 0 to {LARGEST_PORT}"


def _check_mode(text: str) -> None:
    if text and not OCTAL.match(text):
        raise ValueError(f"<mode>={text}: write three octal digits, such as 660")


class TlsSettings(Part, frozen=True):
    """TLS files in PEM form."""

    certificate: str
    key: str
    client_ca: str | None = None


class ListenSettings(Part, frozen=True, kw_only=True):
    """One address to listen on."""

    address: Annotated[
        str,
        Setting(
            "Listen on this address",
            (
                "Listen on this address: `HOST:PORT`, `:PORT` for every address of the machine, `[IPV6]:PORT`, `unix:PATH` for a Unix "
                "socket, or `systemd:NAME` for a socket that systemd passes. Port 0 selects a free port"
            ),
            check=_check_address,
        ),
    ]
    mode: Annotated[
        str,
        Setting(
            "Set the mode of the Unix socket, in octal (default 600, with <group> 660)",
            (
                "Set the mode of the Unix socket, in octal. The umask has no effect. A client needs write permission "
                "to connect: with 600, only the owner of the socket and root have it"
            ),
            flag="unixsocket-mode",
            metavar="MODE",
            default_shown="600; 660 with `<group>`",
            check=_check_mode,
        ),
    ] = ""
    owner: Annotated[
        str,
        Setting(
            "Set the owner of the Unix socket, by name or numeric ID",
            "Give the Unix socket to this user, by name or numeric ID. Only root can set it",
            flag="unixsocket-owner",
            metavar="USER",
            default_shown="the server's own",
        ),
    ] = ""
    group: Annotated[
        str,
        Setting(
            "Set the group of the Unix socket, by name or numeric ID",
            (
                "Give the Unix socket to this group, by name or numeric ID. root can set any group; another user can set "
                "a group of which it is a member"
            ),
            flag="unixsocket-group",
            metavar="GROUP",
            default_shown="the server's own",
        ),
    ] = ""
    certificate: Annotated[
        str,
        Setting(
            "Use this certificate chain (PEM)",
            "Use the certificate chain in this PEM file",
            "Serve TLS with the certificate chain in this PEM file",
            flag="sslcert",
            metavar="FILE",
            place="file",
        ),
    ] = ""
    key: Annotated[
        str,
        Setting("Use this private key (PEM)", "Use the private key in this PEM file", flag="sslkey", metavar="FILE", place="file"),
    ] = ""
    client_ca: Annotated[
        str,
        Setting(
            "Require a client certificate issued by this CA (PEM)",
            "Require a client certificate of this CA; see [TLS](tls.md)",
            flag="sslca",
            metavar="FILE",
            place="file",
        ),
    ] = ""
    redirect_port: Annotated[
        int,
        Setting(
            "Redirect plain HTTP requests on this port to <address>",
            "Listen on an extra port for plain HTTP. wsbridge answers each request there with 301 to the same path on `<address>`",
            flag="redirport",
            default_shown="off",
        ),
    ] = 0

    @property
    def unix_path(self) -> str | None:
        """The path of the Unix socket; None for other addresses."""
        return self.address.removeprefix(UNIX) if self.address.startswith(UNIX) else None

    @property
    def inherited(self) -> str | None:
        """The name of a socket that systemd passes, empty for the only one; None for other addresses."""
        return self.address.removeprefix(SYSTEMD) if self.address.startswith(SYSTEMD) else None

    @property
    def is_tcp(self) -> bool:
        return self.unix_path is None and self.inherited is None

    @property
    def host(self) -> str:
        """The host of a TCP address; empty for every address of the machine."""
        return self.address.rpartition(":")[0]

    @property
    def port(self) -> int:
        """The port of a TCP address; 0 selects a free port."""
        return int(self.address.rpartition(":")[2])

    @property
    def ports(self) -> Iterator[tuple[str, int]]:
        """The ports that a TCP listener occupies, each with the setting that selects it, without port 0."""
        ports = (("address", self.port), ("redirect_port", self.redirect_port)) if self.is_tcp else ()
        return ((name, port) for name, port in ports if port)

    @property
    def unix_mode(self) -> int:
        """The mode of the Unix socket. A client needs write permission to connect, so a given group has it."""
        if not self.mode:
            return 0o660 if self.group else 0o600
        return int(self.mode.removeprefix("0o"), 8)

    @property
    def tls(self) -> TlsSettings | None:
        return TlsSettings(self.certificate, self.key, self.client_ca or None) if self.certificate else None

    def faults(self) -> Iterator[Fault]:
        if self.unix_path is not None and (size := len(self.unix_path.encode(errors="surrogateescape"))) > LONGEST_PATH:
            yield Fault(("address",), f"<address>: the path of the Unix socket has {size} bytes; write at most {LONGEST_PATH}")
        if self.unix_path is None:
            for name in ("mode", "owner", "group"):
                if getattr(self, name):
                    yield Fault((name,), f"<{name}> needs <address>=unix:PATH")
        if not self.is_tcp and self.redirect_port:
            yield Fault(("redirect_port",), "<redirect_port> needs <address>=HOST:PORT")
        if not 0 <= self.redirect_port <= LARGEST_PORT:
            yield Fault(("redirect_port",), f"<redirect_port>={self.redirect_port} is not a port; write a number from 1 to {LARGEST_PORT}")
        if self.certificate and not self.key:
            yield Fault(("certificate",), "<certificate> needs <key>, its private key")
        for name in ("key", "client_ca"):
            if getattr(self, name) and not self.certificate:
                yield Fault((name,), f"<{name}> needs <certificate>")
