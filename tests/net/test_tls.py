"""Failed TLS handshakes: the server sends an alert, logs a line and counts the failure."""

from __future__ import annotations

import signal
import socket
import ssl
from collections.abc import Iterator

import pytest

from tests.support.client import DEADLINE, open_stream, read_response, request_bytes
from tests.support.deadline import scaled
from tests.support.server import Server
from tests.support.site import Certificates, assert_sound


@pytest.fixture(scope="module")
def mutual_server(transports: dict[str, str], certificates: Certificates) -> Iterator[Server]:
    flags = (*certificates.server_flags, certificates.ca_flag)
    with Server(*flags, "cat", env=transports, tls=certificates.context("client")) as server:
        yield server
        server.stop(signal.SIGTERM)
        assert "tls_failures=" in server.log
    assert_sound(server)


@pytest.fixture
def mutual(mutual_server: Server) -> Iterator[Server]:
    """A server that requires client certificates, on each kind of transport. It still works after each test."""
    yield mutual_server
    with mutual_server.connect() as client:
        client.send_text("hello")
        assert client.receive_text() == "hello"


def failure(server: Server, context: ssl.SSLContext, *, words: bytes = b"") -> str:
    """Complete the handshake, send data immediately, and return the reason of the TLS error that follows."""
    with socket.create_connection(("127.0.0.1", server.port), scaled(DEADLINE)) as sock:
        try:
            with context.wrap_socket(sock, server_hostname="localhost") as stream:
                stream.sendall(words)
                stream.recv(1000)
        except ssl.SSLError as error:
            return error.reason or ""
    raise AssertionError("the handshake did not fail")


def only(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.parametrize("words", [b"", b"GET / HTTP/1.1\r\n\r\n" * 4000], ids=["silent", "eager"])
@pytest.mark.parametrize(
    ("version", "alert"),
    [(ssl.TLSVersion.TLSv1_2, "HANDSHAKE_FAILURE"), (ssl.TLSVersion.TLSv1_3, "CERTIFICATE_REQUIRED")],
)
def test_client_without_a_certificate(
    mutual: Server, certificates: Certificates, version: ssl.TLSVersion, alert: str, words: bytes
) -> None:
    """With `--sslca`, a client without a certificate gets an alert that says so, even if it has already sent its request."""
    assert alert in failure(mutual, only(certificates.context(), version), words=words if version is ssl.TLSVersion.TLSv1_3 else b"")
    reason = "the client sent no certificate, which --sslca requires"
    mutual.wait_for_log(rf"ACCESS \| http .*remote:'127\.0\.0\.1' \| TLS handshake failed: {reason}$")


def test_client_with_an_untrusted_certificate(mutual: Server, certificates: Certificates) -> None:
    """If the CA of `--sslca` did not sign the client's certificate, the server sends an alert and logs the reason."""
    assert "ALERT" in failure(mutual, certificates.context("stranger"))
    mutual.wait_for_log(r"TLS handshake failed: the server rejected the client's certificate: self.signed certificate$")


def test_old_tls_version(mutual: Server, certificates: Certificates) -> None:
    """A client that uses TLS 1.1 gets the alert protocol_version."""
    context = certificates.context("client")
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        only(context, ssl.TLSVersion.TLSv1_1)
    assert "PROTOCOL_VERSION" in failure(mutual, context)
    mutual.wait_for_log(r"TLS handshake failed: the client does not offer TLS 1\.2 or newer$")


def test_client_that_does_not_trust_the_server(mutual: Server) -> None:
    """If a client refuses the server's certificate, the log says so, because the certificate is the likely cause."""
    with (
        pytest.raises(ssl.SSLCertVerificationError),
        socket.create_connection(("127.0.0.1", mutual.port), scaled(DEADLINE)) as sock,
        ssl.create_default_context().wrap_socket(sock, server_hostname="localhost"),
    ):
        pass
    mutual.wait_for_log(r"TLS handshake failed: the client does not trust the server's certificate \(.*\)$")


def test_no_shared_cipher(mutual: Server, certificates: Certificates) -> None:
    """A client that shares no cipher with the server gets the alert handshake_failure."""
    context = only(certificates.context("client"), ssl.TLSVersion.TLSv1_2)
    context.set_ciphers("AES128-SHA")
    assert "HANDSHAKE_FAILURE" in failure(mutual, context)
    mutual.wait_for_log(r"TLS handshake failed: the client offers no cipher suite that the server supports$")


def test_no_shared_application_protocol(mutual: Server, certificates: Certificates) -> None:
    """If a client offers none of the server's application protocols, the server continues without ALPN (RFC 7301 allows this)."""
    context = certificates.context("client")
    context.set_alpn_protocols(["h2", "imap"])
    with mutual.connect(tls=context) as client:
        client.send_text("hello")
        assert client.receive_text() == "hello"


def alert_after(server: Server, words: bytes) -> bytes:
    """Send data to a server, and return its complete answer."""
    with socket.create_connection(("127.0.0.1", server.port), scaled(DEADLINE)) as sock:
        sock.sendall(words)
        answer = b""
        while part := sock.recv(1000):
            answer += part
    return answer


@pytest.mark.parametrize(
    "words",
    [b"\x16\x03\x01\x00\x05nonsense" * 100, b"\x80\x2e\x01\x00\x02", b"\0" * 10, b"SSH-2.0-OpenSSH_9.2\r\n", b"\xff\xfb\x01"],
)
def test_neither_tls_nor_http(mutual: Server, words: bytes) -> None:
    """For data that is neither TLS nor HTTP, the server sends a fatal alert (record type 21, level 2) and logs a line."""
    answer = alert_after(mutual, words)
    assert (answer[:1], answer[3:6], len(answer)) == (b"\x15", b"\0\x02\x02", 7)
    mutual.wait_for_log(r"TLS handshake failed: .*not TLS$")


def test_plain_http(mutual: Server) -> None:
    """The server answers plain HTTP with an HTTP response, and logs a line."""
    with open_stream(port=mutual.port) as stream:
        stream.send(request_bytes("GET", "/", [("Host", "h")]))
        response = read_response(stream)
        stream.wait_for_end()
    assert (response.status, b"https://" in response.body) == (400, True)
    mutual.wait_for_log(r"TLS handshake failed: the client sent plain HTTP$")


def test_client_that_leaves_during_the_handshake(mutual: Server) -> None:
    """The server logs a client that disconnects during the handshake. A client that sent nothing is not a failure."""
    with open_stream(port=mutual.port):
        pass
    with open_stream(port=mutual.port) as stream:
        stream.send(b"\x16\x03\x01\x02\x00")
    mutual.wait_for_log(r"TLS handshake failed: the client closed the connection$")


def test_flood_of_failures(transports: dict[str, str], certificates: Certificates) -> None:
    """The server counts every failed handshake, and logs a few per minute."""
    with Server(*certificates.server_flags, "cat", env=transports) as server:
        for _ in range(100):
            assert alert_after(server, b"\0").startswith(b"\x15")
        server.stop()
        assert "tls_failures=100" in server.log
        assert server.log.count("TLS handshake failed") == 10
