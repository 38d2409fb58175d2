"""Unusable certificates and keys: the server exits with status 3 and a sentence that names the file and the remedy."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.server import START_DEADLINE, WSBRIDGE, environment, run
from tests.support.site import Certificates
from wsbridge.errors import ListenError
from wsbridge.http.hiddenfiles import holds_private_key
from wsbridge.net import certificates as certificates_module
from wsbridge.net.certificates import faults, make_context, why_unusable
from wsbridge.settings import TlsSettings

NAMES = ("certificate", "key", "client_ca")


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


def settings(certificates: Certificates, **files: Path | str) -> TlsSettings:
    folder = certificates.folder
    usual = {"certificate": folder / "server.pem", "key": folder / "server.key", "client_ca": folder / "ca.pem"}
    return TlsSettings(**{name: str(path) for name, path in (usual | files).items()})


@pytest.fixture(scope="session")
def unusable(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of unusable files, one for each fault."""
    folder = tmp_path_factory.mktemp("unusable")
    ours = certificates.folder
    openssl("pkey", "-in", ours / "server.key", "-aes256", "-passout", "pass:secret", "-out", folder / "encrypted")
    openssl("ec", "-in", ours / "server.key", "-aes256", "-passout", "pass:secret", "-out", folder / "encrypted-traditional")
    openssl("x509", "-in", ours / "server.pem", "-outform", "der", "-out", folder / "der-certificate")
    openssl("pkey", "-in", ours / "server.key", "-outform", "der", "-out", folder / "der-key")
    openssl("pkey", "-in", ours / "server.key", "-pubout", "-out", folder / "public-key")
    both = ("-in", ours / "server.pem", "-inkey", ours / "server.key")
    openssl("pkcs12", "-export", *both, "-passout", "pass:", "-out", folder / "pkcs12")
    openssl("req", "-new", "-key", ours / "server.key", "-subj", "/CN=x", "-out", folder / "request")
    openssl("req", "-x509", "-newkey", "rsa:512", "-nodes", "-subj", "/CN=x", "-keyout", folder / "weak.key", "-out", folder / "weak.pem")
    (folder / "empty").write_bytes(b"")
    (folder / "blank").write_bytes(b" \n\n")
    (folder / "text").write_text("hello\n")
    (folder / "directory").mkdir()
    for name, source in (("damaged-certificate", "server.pem"), ("damaged-key", "server.key")):
        lines = (ours / source).read_text().splitlines()
        (folder / name).write_text("\n".join([lines[0], "AAAA" + lines[1][4:-4] + "!!!!", *lines[2:], ""]))
    os.mkfifo(folder / "fifo")
    return folder


@pytest.mark.parametrize(
    ("name", "file", "remedy"),
    [
        ("certificate", "empty", "the file is empty"),
        ("certificate", "blank", "the file is empty"),
        ("certificate", "text", "no line begins with -----BEGIN CERTIFICATE-----"),
        ("certificate", "directory", "is a directory"),
        ("certificate", "missing", "no such file or directory"),
        ("certificate", "der-certificate", "openssl x509 -inform der"),
        ("certificate", "pkcs12", "openssl pkcs12"),
        ("certificate", "request", "use the certificate that the CA issues for it"),
        ("certificate", "public-key", "it contains a public key, not a certificate"),
        ("certificate", "encrypted", "swapped?"),
        ("certificate", "damaged-certificate", "it contains a damaged certificate"),
        ("certificate", "weak.pem", "key too small"),
        ("key", "empty", "the file is empty"),
        ("key", "text", "no line begins with -----BEGIN PRIVATE KEY-----"),
        ("key", "directory", "is a directory"),
        ("key", "missing", "no such file or directory"),
        ("key", "der-key", "openssl pkey -inform der"),
        ("key", "pkcs12", "openssl pkcs12"),
        ("key", "encrypted", "openssl pkey -in"),
        ("key", "encrypted-traditional", "openssl pkey -in"),
        ("key", "public-key", "it contains a public key, not a private key"),
        ("key", "damaged-key", "the key is damaged"),
        ("client_ca", "empty", "the file is empty"),
        ("client_ca", "text", "no line begins with -----BEGIN CERTIFICATE-----"),
        ("client_ca", "directory", "is a directory"),
        ("client_ca", "missing", "no such file or directory"),
        ("client_ca", "der-certificate", "openssl x509 -inform der"),
        ("client_ca", "pkcs12", "openssl pkcs12"),
        ("client_ca", "public-key", "it contains a public key, not a certificate"),
        ("client_ca", "damaged-certificate", "it contains a damaged certificate"),
    ],
)
def test_unusable_file(certificates: Certificates, unusable: Path, name: str, file: str, remedy: str) -> None:
    """The error for an unusable file names the file, its setting and the remedy."""
    key = {"key": unusable / "weak.key"} if file == "weak.pem" else {}
    with pytest.raises(ListenError) as caught:
        make_context(settings(certificates, **{name: unusable / file, **key}))
    assert f"{name}={unusable / file}" in str(caught.value)
    assert remedy in str(caught.value)


def test_device_file(certificates: Certificates) -> None:
    """A device is not accepted as a certificate."""
    with pytest.raises(ListenError, match="it is not a regular file"):
        make_context(settings(certificates, certificate="/dev/null"))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", NAMES)
def test_fifo(certificates: Certificates, unusable: Path, name: str) -> None:
    """The server refuses a named pipe at once, without waiting for a writer."""
    with pytest.raises(ListenError, match=f"cannot use {name}={unusable}/fifo: it is not a regular file"):
        make_context(settings(certificates, **{name: unusable / "fifo"}))
    assert not holds_private_key(str(unusable / "fifo"))


def test_certificate_and_key_swapped(certificates: Certificates) -> None:
    """If the certificate and the key are swapped, the error asks about this."""
    folder = certificates.folder
    for files in ({"certificate": folder / "server.key"}, {"key": folder / "server.pem"}):
        with pytest.raises(ListenError, match=r"are certificate and key swapped\?"):
            make_context(settings(certificates, **files))


def test_every_fault(certificates: Certificates, unusable: Path) -> None:
    """The server reports every faulty file, not only the first. It compares certificate and key only if both are usable."""
    found = [str(error) for error in faults(settings(certificates, certificate="/no", key=unusable / "text", client_ca="/none"))]
    assert found == [
        "cannot read certificate=/no: no such file or directory; create the file, or correct the name",
        f"cannot use key={unusable}/text: it is not PEM: no line begins with -----BEGIN PRIVATE KEY-----",
        "cannot read client_ca=/none: no such file or directory; create the file, or correct the name",
    ]
    found = [str(error) for error in faults(settings(certificates, key=certificates.folder / "client.key", client_ca="/none"))]
    assert [error.partition("=")[0] for error in found] == ["cannot read client_ca", "cannot use key"]
    assert [*faults(settings(certificates))] == []


def test_key_of_another_type(certificates: Certificates, tmp_path: Path) -> None:
    """A key of another type than the certificate's is reported as a mismatch, not as damage."""
    openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", tmp_path / "rsa.key")
    with pytest.raises(ListenError, match="does not match certificate"):
        make_context(settings(certificates, key=tmp_path / "rsa.key"))


def test_error_does_not_name_python_source(certificates: Certificates, unusable: Path) -> None:
    """The error quotes OpenSSL's reason without the source location that Python adds."""
    with pytest.raises(ListenError, match=r"a damaged certificate \([a-z ]+\); copy it again"):
        make_context(settings(certificates, certificate=unusable / "damaged-certificate"))


def test_key_of_another_certificate(certificates: Certificates) -> None:
    """The error for a key that belongs to another certificate names both files."""
    with pytest.raises(ListenError) as caught:
        make_context(settings(certificates, key=certificates.folder / "client.key"))
    folder = certificates.folder
    assert f"key={folder}/client.key: it does not match certificate={folder}/server.pem" in str(caught.value)


def test_both_in_one_file(certificates: Certificates, tmp_path: Path) -> None:
    """Certificate and key may be in one file, with text before them."""
    both = tmp_path / "both.pem"
    both.write_text("Bag Attributes\n" + "".join((certificates.folder / f"server.{kind}").read_text() for kind in ("key", "pem")))
    make_context(settings(certificates, certificate=both, key=both))


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_unreadable(certificates: Certificates, tmp_path: Path) -> None:
    """The error for an unreadable file asks for read permission."""
    path = tmp_path / "key"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(ListenError, match="give this user read permission"):
        make_context(settings(certificates, key=path))


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_unreadable_for_another_user(certificates: Certificates, tmp_path: Path) -> None:
    """The error for a file that the server's user may not read names that user."""
    path = tmp_path / "key"
    path.write_bytes(b"x")
    path.chmod(0)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        with pytest.raises(ListenError, match="permission denied; the server runs as user 65534: give this user read permission"):
            make_context(settings(certificates, certificate=path))
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("dates", "complaint"),
    [
        (("20200101000000Z", "20210101000000Z"), "expired on Jan  1 00:00:00 2021 GMT"),
        (("20900101000000Z", "20910101000000Z"), "is not valid before"),
    ],
)
def test_certificate_outside_its_dates(
    certificates: Certificates, tmp_path: Path, dates: tuple[str, str], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server uses an expired or future certificate, since the clock may be wrong. It logs an error with the remedy."""
    said: list[str] = []
    monkeypatch.setattr(certificates_module.log, "error", lambda form, *values: said.append(form % values))
    monkeypatch.chdir(tmp_path)
    Path("index.txt").write_text("")
    Path("ca.cnf").write_text(
        "[ca]\ndefault_ca=c\n[c]\ndatabase=index.txt\nnew_certs_dir=.\nserial=serial\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n"
    )
    Path("serial").write_text("01\n")
    openssl("req", "-new", "-key", certificates.folder / "server.key", "-subj", "/CN=localhost", "-out", "request")
    signed = ("-cert", certificates.folder / "ca.pem", "-keyfile", certificates.folder / "ca.key", "-config", "ca.cnf", "-notext", "-batch")
    openssl("ca", *signed, "-in", "request", "-out", "dated.pem", "-startdate", dates[0], "-enddate", dates[1])
    make_context(settings(certificates, certificate=tmp_path / "dated.pem", client_ca=tmp_path / "dated.pem"))
    assert [complaint in message for message in said] == [True, True]
    assert all("renew the certificate, or set the clock" in message for message in said)


@pytest.mark.parametrize(
    "content", [b"0", b"0\x82\x01\x01\x30", b"\xff" * 100, b"-----BEGIN", b"-----BEGIN X-----", b"\0", b"x -----BEGIN CERTIFICATE-----"]
)
def test_any_content(content: bytes) -> None:
    """For any content of an unusable file, the error gives a reason."""
    assert all(why_unusable("f", content, is_key=is_key, swapped="") for is_key in (False, True))


def test_no_prompt(unusable: Path, certificates: Certificates) -> None:
    """An encrypted key makes the server exit at once with status 3, even with a terminal for a prompt."""
    ours, theirs = os.openpty()
    words = ("--ssl", f"--sslcert={certificates.folder}/server.pem", f"--sslkey={unusable}/encrypted", "--port=0", "cat")
    command = [*WSBRIDGE.command, *words]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, env=environment({}), start_new_session=True)
    try:
        output, _ = process.communicate(timeout=START_DEADLINE)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 3
    assert b"Can't start server: cannot use --sslkey=" in output
    assert b"is encrypted" in output


def test_exit_status(unusable: Path, certificates: Certificates) -> None:
    """The error is the log's last line, and the exit status is 3."""
    words = ("--ssl", f"--sslcert={unusable}/text", f"--sslkey={certificates.folder}/server.key", "--port=0", "cat")
    ended = run(*words, timeout=START_DEADLINE)
    assert ended.returncode == 3
    assert f"cannot use --sslcert={unusable}/text: it is not PEM" in ended.stdout.splitlines()[-1]
