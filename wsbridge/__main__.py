"""`python -m wsbridge`, and the `wsbridge` command."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the command line; exits with its status."""
    # Loading the libraries makes nothing but objects that stay: collecting meanwhile costs a tenth of the start.
    gc.disable()
    from wsbridge.cli.main import run

    sys.exit(run(sys.argv[0], sys.argv[1:], os.environ))


if __name__ == "__main__":
    main()
