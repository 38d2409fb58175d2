"""TLS: the server's certificate, and the CA of its clients."""

from __future__ import annotations

import ssl

from wsbridge.errors import ListenError
from wsbridge.settings import TlsSettings


def make_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return a context for TLS 1.2 and newer; with `client_ca`, clients must show a certificate of that CA. Raises ListenError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.certificate, settings.key)
    except (OSError, ssl.SSLError) as error:
        raise ListenError(f"cannot use certificate {settings.certificate} with key {settings.key}: {error}") from None
    if settings.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(settings.client_ca)
        except (OSError, ssl.SSLError) as error:
            raise ListenError(f"cannot use the CA of clients {settings.client_ca}: {error}") from None
    return context
