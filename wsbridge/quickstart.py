"""Imports aiohttp without the certificate stores of its client.

At import, aiohttp loads the machine's certificates into two contexts: a tenth of the processor time of a start. The server does
not use aiohttp's client, and wsclient.py makes its own context for TLS. Every module that imports aiohttp imports this file first.
"""

from __future__ import annotations

import ssl

ssl.SSLContext.set_default_verify_paths = lambda self: None  # type: ignore[method-assign]
try:
    import aiohttp  # noqa: F401
finally:
    # The class inherits the original method again.
    del ssl.SSLContext.set_default_verify_paths
