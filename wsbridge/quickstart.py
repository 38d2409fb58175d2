"""aiohttp, imported without the certificate stores of its client.

aiohttp loads the machine's certificates at import, into two contexts: a tenth of the processor time of a start. The server does not
use aiohttp's client, and remote.py makes a context of its own for TLS. Every module that imports aiohttp imports this file first.
"""

from __future__ import annotations

import ssl

ssl.SSLContext.set_default_verify_paths = lambda self: None  # type: ignore[method-assign]
try:
    import aiohttp  # noqa: F401
finally:
    # The class inherits its own again.
    del ssl.SSLContext.set_default_verify_paths
