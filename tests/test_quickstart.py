"""The start of the server loads no certificates for aiohttp, and a client with TLS still gets the machine's certificates."""

from __future__ import annotations

import ssl
import subprocess
import sys

import pytest

SAY = """
import ssl, {module}, aiohttp.connector
contexts = [aiohttp.connector._SSL_CONTEXT_VERIFIED, aiohttp.connector._SSL_CONTEXT_UNVERIFIED]
print([context.cert_store_stats()["x509_ca"] for context in contexts], "set_default_verify_paths" in vars(ssl.SSLContext))
"""


@pytest.mark.parametrize("module", ["wsbridge.http.app", "wsbridge.endpoints.newsubscription", "wsbridge.peers.wsclient"])
def test_no_certificates_at_the_start(module: str) -> None:
    """Neither context of aiohttp has a certificate, and Python's own loader is unchanged."""
    done = subprocess.run([sys.executable, "-c", SAY.format(module=module)], capture_output=True, text=True, check=True)
    assert done.stdout == "[0, 0] False\n"


def test_system_certificates_are_loaded_only_for_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client with TLS trusts the machine's certificates, and a client without TLS does not load them."""
    from wsbridge.peers import wsclient as remote

    loaded = []
    remote._certificates.cache_clear()
    monkeypatch.setattr(ssl, "create_default_context", lambda: loaded.append(1) or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    assert remote._trust("ws://h/") is True
    assert remote._trust("http://h/") is True
    assert not loaded
    for url in ("wss://h/", "https://h/"):
        assert isinstance(remote._trust(url), ssl.SSLContext)
    assert len(loaded) == 1
    remote._certificates.cache_clear()
