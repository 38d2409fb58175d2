"""The settings of the process: host names and proxies in the form that the server uses."""

from __future__ import annotations

import pytest

from wsbridge.rules.forwarded import parse_trusted
from wsbridge.settings.declare import check_fault, field_of
from wsbridge.settings.process import ProcessSettings


def test_values() -> None:
    """The server compares host names in lower case; proxies are networks."""
    settings = ProcessSettings(hosts=("A.example", "*.b.example"), trust_proxy=("10.0.0.0/8", "unix"))
    assert settings.host_names == ("a.example", "*.b.example")
    assert settings.trusted == parse_trusted("10.0.0.0/8,unix")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("hosts", "localhost", "<hosts>=localhost is always accepted; to listen on that address only, write <address>=localhost"),
        (
            "trust_proxy",
            "x",
            "<trust_proxy>: 'x' does not appear to be an IPv4 or IPv6 network; write networks such as 10.0.0.0/8, or unix",
        ),
    ],
)
def test_faults(name: str, value: str, sentence: str) -> None:
    """A wrong entry is a fault that shows a correct form."""
    (fault,) = check_fault(field_of(ProcessSettings, name), (value,))
    assert fault.sentence == sentence
