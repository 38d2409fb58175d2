"""The same site over TCP, a Unix socket, TLS and mutual TLS, with and without aiofastnet."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.client import DEADLINE, Close, ConnectionEnded, encode_frame, open_stream, read_response, request_bytes
from tests.support.deadline import scaled
from tests.support.proc import exchange
from tests.support.server import Server, state, wait_for_exit, wait_until
from tests.support.site import BIG, Certificates, assert_sound


def test_requested_transports(listener_server: Server, transports: dict[str, str]) -> None:
    """The server uses aiofastnet's transports if they are installed, except with WSBRIDGE_FASTNET=0."""
    assert ("aiofastnet" in Path(f"/proc/{listener_server.pid}/maps").read_text()) == (not transports)


def test_session(listener_server: Server) -> None:
    """Messages of any size reach a program and return, whole and in order."""
    sizes = [0, 1, 125, 126, 65_535, 65_536, 500_000]
    lines = ["x" * size for size in sizes] + [str(number) for number in range(2_000)]
    with listener_server.connect("/echo") as client:
        frames = b"".join(encode_frame(line.encode()) for line in lines)
        with client.sending(frames):
            assert [client.receive_text() for _ in lines] == lines
        client.send_close(1000)
        assert client.receive_close() == Close(1000)
        client.wait_for_end()


def test_frames_with_the_handshake(listener_server: Server) -> None:
    """The server processes frames in the segment of the handshake, and later frames."""
    third = encode_frame(b"three")
    with listener_server.connect("/echo", early=encode_frame(b"one") + encode_frame(b"two") + third[:5]) as client:
        assert [client.receive_text() for _ in range(2)] == ["one", "two"]
        client.send_raw(third[5:])
        assert client.receive_text() == "three"


def test_frame_in_single_bytes(listener_server: Server) -> None:
    """A frame may arrive byte by byte."""
    with listener_server.connect("/echo") as client:
        for byte in encode_frame(b"in parts"):
            client.send_raw(bytes([byte]))
        assert client.receive_text() == "in parts"


@pytest.mark.parametrize("way", ["close", "drop", "reset", "half-close"])
def test_client_that_disconnects(listener_server: Server, way: str) -> None:
    """However a client disconnects, its program ends."""
    client = listener_server.connect("/pid")
    pid = int(client.receive_text())
    match way:
        case "close":
            client.send_close(1001)
            assert client.receive_close() == Close(1001)
        case "half-close":
            client.stream.end_sending()
            client.wait_for_end()
        case "reset":
            client.reset()
        case "drop":
            client.drop()
    wait_for_exit(pid)
    client.drop()
    wait_until(lambda: state(pid) == "", "the program to be reaped")


def test_static_file(listener_server: Server) -> None:
    """A large file arrives whole, and so do several files on one connection."""
    with open_stream(port=listener_server.port, **listener_server.where) as stream:
        for path, content in (("/big.bin", BIG), ("/small.txt", b"small\n"), ("/big.bin", BIG)):
            stream.send(request_bytes("GET", path, [("Host", "h")]))
            response = read_response(stream)
            assert (response.status, response.body == content) == (200, True)


def test_part_of_a_static_file(listener_server: Server) -> None:
    """A range request returns exactly the requested part."""
    response = listener_server.get("/big.bin", headers=[("Range", "bytes=1000000-1999999")])
    assert (response.status, response.value("Content-Range")) == (206, f"bytes 1000000-1999999/{len(BIG)}")
    assert response.body == BIG[1_000_000:2_000_000]


def test_cgi(listener_server: Server) -> None:
    """A body reaches a CGI script and returns."""
    body = random.Random(2).randbytes(500_000)
    response = exchange(listener_server, "POST", "/echo", body)
    assert (response.status, response.body == body) == (200, True)


def test_console_and_missing_path(listener_server: Server) -> None:
    """A missing path results in 404, and the connection stays usable."""
    with open_stream(port=listener_server.port, **listener_server.where) as stream:
        for _ in range(2):
            stream.send(request_bytes("GET", "/nothing/here", [("Host", "h")]))
            assert read_response(stream).status == 404


def test_environment_of_the_listener(listener_server: Server) -> None:
    """The environment of a program describes the connection: the address or `unix-socket`, and HTTPS `on` only with TLS."""
    with listener_server.connect("/env", headers=[("Host", "example.com")]) as client:
        found = dict(line.split("=", 1) for line in client.receive_lines())
    is_unix, is_tls = "unix" in listener_server.where, "tls" in listener_server.where
    assert found["REMOTE_ADDR"] == ("unix-socket" if is_unix else "127.0.0.1")
    assert found["REMOTE_PORT"].isdigit() == (not is_unix)
    assert found.get("HTTPS") == ("on" if is_tls else None)
    assert (found["SERVER_NAME"], found["SERVER_PORT"]) == ("example.com", "443" if is_tls else "80")


# Only TLS


@pytest.fixture(scope="module")
def server_with_ca(transports: dict[str, str], certificates: Certificates) -> Iterator[Server]:
    flags = (*certificates.server_flags, certificates.ca_flag)
    with Server(*flags, "cat", env=transports, tls=certificates.context("client")) as server:
        yield server
    assert_sound(server)


@pytest.fixture
def mutual(server_with_ca: Server) -> Iterator[Server]:
    """A server that requires client certificates; its methods present a valid one."""
    yield server_with_ca
    assert_sound(server_with_ca)


def assert_echoes(server: Server) -> None:
    with server.connect() as client:
        client.send_text("hello")
        assert client.receive_text() == "hello"


@pytest.mark.parametrize("client", [None, "stranger"])
def test_client_without_its_certificate(mutual: Server, certificates: Certificates, client: str | None) -> None:
    """With --sslca, a client without a certificate of that CA is rejected, and starts no program."""
    before = mutual.log.count("| CONNECT")
    with pytest.raises((OSError, ConnectionEnded)):
        mutual.connect(tls=certificates.context(client))
    assert_echoes(mutual)
    wait_until(lambda: mutual.log.count("| CONNECT") > before, "the log line of the admitted client")
    assert mutual.log.count("| CONNECT") == before + 1


@pytest.mark.parametrize(("version", "is_spoken"), [("tls1", False), ("tls1_1", False), ("tls1_2", True), ("tls1_3", True)])
def test_oldest_tls(mutual: Server, certificates: Certificates, version: str, is_spoken: bool) -> None:
    """The server requires TLS 1.2 or later."""
    folder = certificates.folder
    words = ("openssl", "s_client", f"-{version}", "-cipher", "DEFAULT@SECLEVEL=0", "-connect", f"127.0.0.1:{mutual.port}")
    files = ("-CAfile", folder / "ca.pem", "-cert", folder / "client.pem", "-key", folder / "client.key")
    tried = subprocess.run([*words, *files], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=scaled(DEADLINE))
    assert (tried.returncode == 0) == is_spoken, tried.stdout + tried.stderr


def test_plain_http_on_a_tls_port(mutual: Server) -> None:
    """A plain HTTP request on a TLS port receives the correct URL, needs no certificate, and does not affect other clients."""
    for method in ("GET", "POST"):
        with open_stream(port=mutual.port) as stream:
            stream.send(request_bytes(method, "/", [("Host", "h")]))
            response = read_response(stream)
            stream.wait_for_end()
        assert response.status == 400
        assert b"https://" in response.body
    assert_echoes(mutual)


def test_aborted_tls_handshake(mutual: Server) -> None:
    """A client that aborts the TLS handshake, or does not speak TLS, does not affect other clients."""
    for words in (b"", b"\x16\x03\x01", b"nonsense" * 100):
        with open_stream(port=mutual.port) as stream:
            stream.send(words)
    assert_echoes(mutual)
