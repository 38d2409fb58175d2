"""The server's certificate and key, and the CA of its clients: read at startup and at each renewal, with errors that name the remedy.

OpenSSL's errors name neither the file nor the remedy, and OpenSSL prompts for a pass phrase on the terminal. So this module checks
each file before OpenSSL reads it.
"""

from __future__ import annotations

import getpass
import os
import re
import ssl
import stat
import time
from collections.abc import Iterator
from contextlib import suppress

from wsbridge.errors import ListenError, reason_of
from wsbridge.files import open_at_once
from wsbridge.logs import logger
from wsbridge.mentions import written
from wsbridge.settings import TlsSettings

LABEL = re.compile(rb"^-----BEGIN ([A-Z0-9 ]+)-----", re.MULTILINE)
ENCRYPTED = re.compile(rb"^-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: *4, *ENCRYPTED", re.MULTILINE)
FILE_BYTES = 16 * 1024 * 1024
"""More than the size of any certificate bundle."""
CERTIFICATE, KEY, CA = "<certificate>", "<key>", "<client_ca>"
SWAPPED = "; are <certificate> and <key> swapped?"
WHERE = re.compile(r"^\[\w+\] | \(_ssl\.c:\d+\)$")
"""The part of OpenSSL and the line of Python's source at which an error was found."""
SEQUENCE = re.compile(rb"0(\x80|[\x00-\x7f]|\x81.|\x82..|\x83...)[\x02\x30]", re.DOTALL)
"""The beginning of a certificate or key in DER: a sequence whose first element is a sequence or an integer."""
PKCS12 = re.compile(rb"0(\x80|[\x00-\x7f]|\x81.|\x82..|\x83...)\x02\x01\x03", re.DOTALL)
"""The beginning of a PKCS #12 file: a sequence whose version is 3 (RFC 7292, section 4)."""

log = logger("server")


def make_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return a server context for TLS 1.2 and newer; with `client_ca`, clients must present a certificate of that CA.

    Raises ListenError, which names the flag, the file and the remedy. The server logs an expired certificate, but
    uses it. The machine's clock may be wrong at startup, and some clients do not check the date.
    """
    for error in faults(settings):
        raise error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, settings)
    _warn_of_dates(CERTIFICATE, settings.certificate, time.time())
    if settings.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(settings.client_ca)
        _warn_of_dates(CA, settings.client_ca, time.time())
    return context


def faults(settings: TlsSettings) -> Iterator[ListenError]:
    """Yield the errors of `make_context` for each file, and for certificate and key together if both can be used."""
    is_pair = True
    for flag, path in ((CERTIFICATE, settings.certificate), (KEY, settings.key), (CA, settings.client_ca)):
        try:
            if path is not None:
                _check(flag, path)
        except ListenError as error:
            is_pair = is_pair and flag == CA
            yield error
    if is_pair:
        try:
            _load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), settings)
        except ListenError as error:
            yield error


def _load_pair(context: ssl.SSLContext, settings: TlsSettings) -> None:
    try:
        context.load_cert_chain(settings.certificate, settings.key, password=_refuse_to_prompt)
    except (OSError, ValueError) as error:
        raise ListenError(_why_no_pair(settings.certificate, settings.key, error)) from None


def _check(flag: str, path: str) -> None:
    """Raise ListenError unless a file is readable and has the content that its flag requires."""
    try:
        with open(path, "rb", buffering=0, opener=open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ListenError(f"cannot use {flag}={path}: it is not a regular file")
            content = file.read(FILE_BYTES)
    except OSError as error:
        hint = ""
        if isinstance(error, PermissionError):
            hint = f"; the server runs as {_user()}: give this user read permission"
        elif isinstance(error, FileNotFoundError):
            hint = "; create the file, or correct the name"
        raise ListenError(f"cannot read {flag}={path}: {reason_of(error).lower()}{hint}") from None
    if complaint := why_unusable(path, content, is_key=flag == KEY, swapped="" if flag == CA else SWAPPED):
        raise ListenError(f"cannot use {flag}={path}: {complaint}")
    if flag != KEY:
        _try_certificates(flag, path)


def why_unusable(path: str, content: bytes, *, is_key: bool, swapped: str) -> str:
    """Return the fault of a key or certificate file, and its remedy; empty if the file is valid.

    The text ends with `swapped` if the file has the content of the other file.
    """
    labels = LABEL.findall(content)
    if not content.strip():
        return "the file is empty"
    if not labels:
        return _why_no_pem(path, content, is_key=is_key)
    has_key = any(label.endswith(b"PRIVATE KEY") for label in labels)
    has_certificate = any(label.endswith(b"CERTIFICATE") for label in labels)
    held = labels[0].decode().lower()
    if is_key:
        if ENCRYPTED.search(content):
            remedy = f"decrypt it: openssl pkey -in {path} -out plain.pem"
            return f"the key is encrypted, and wsbridge does not prompt for a pass phrase; {remedy}"
        if not has_key:
            return f"it contains a {held}, not a private key" + (swapped if has_certificate else "")
    elif not has_certificate:
        if b"CERTIFICATE REQUEST" in content:
            return "it contains a certificate request; use the certificate that the CA issues for it"
        return f"it contains a {held}, not a certificate" + (swapped if has_key else "")
    return ""


def _why_no_pem(path: str, content: bytes, *, is_key: bool) -> str:
    if PKCS12.match(content):
        return f"it is PKCS #12, not PEM; convert it: openssl pkcs12 -in {path} -nodes -out both.pem"
    if SEQUENCE.match(content):
        tool = "pkey" if is_key else "x509"
        return f"it is DER, not PEM; convert it: openssl {tool} -inform der -in {path} -out new.pem"
    wanted = "PRIVATE KEY" if is_key else "CERTIFICATE"
    return f"it is not PEM: no line begins with -----BEGIN {wanted}-----"


def _try_certificates(flag: str, path: str) -> None:
    """Raise ListenError if OpenSSL cannot read the certificates of a file.

    load_cert_chain does not report which of its files is wrong.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (OSError, ValueError) as error:
        damage = f"it contains a damaged certificate ({_reason(error)}); copy it again, or issue a new certificate"
        raise ListenError(f"cannot use {flag}={path}: {damage}") from None


def _why_no_pair(certificate: str, key: str, error: Exception) -> str:
    reason = getattr(error, "reason", None)
    if reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
        remedy = "use the key with which the certificate was requested"
        return f"cannot use {KEY}={key}: it does not match {CERTIFICATE}={certificate}; {remedy}"
    if isinstance(error, ssl.SSLError) and reason and any(word in reason for word in ("TOO_SMALL", "TOO_WEAK", "MD_")):
        return f"cannot use {CERTIFICATE}={certificate}: {_reason(error)}; issue a certificate with a longer key and SHA-256"
    if isinstance(error, ssl.SSLError) or reason is None:
        return f"cannot use {KEY}={key}: the key is damaged, or OpenSSL does not support its type ({_reason(error)})"
    return f"cannot use {CERTIFICATE}={certificate} with {KEY}={key}: {_reason(error)}"


def _refuse_to_prompt() -> bytes:
    raise ValueError("the key is encrypted")


def _warn_of_dates(flag: str, path: str, now: float) -> None:
    """Log an error if the first certificate of a file has expired or is not valid yet: browsers then refuse it."""
    details: dict[str, str] = {}
    with suppress(AttributeError, ssl.SSLError):
        # Python's own tests read a certificate this way. No public function reads it without a connection.
        details = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]
    complaint = ""
    if "notAfter" in details and ssl.cert_time_to_seconds(details["notAfter"]) <= now:
        complaint = f"expired on {details['notAfter']}"
    elif "notBefore" in details and ssl.cert_time_to_seconds(details["notBefore"]) > now:
        complaint = f"is not valid before {details['notBefore']}"
    if complaint:
        log.error("%s=%s %s: clients reject it; renew the certificate, or set the clock", written(flag), path, complaint)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return WHERE.sub("", str(reason)).lower().replace("_", " ")


def _user() -> str:
    try:
        return getpass.getuser() if os.geteuid() == os.getuid() else f"user {os.geteuid()}"
    except (KeyError, OSError):
        return f"user {os.geteuid()}"
