"""`python -m wsbridge`, and the `wsbridge` command."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the command line; exits with its status."""
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        # What clients ask for is UTF-8, and a legacy locale could not even name it to a program.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    # Loading the libraries makes nothing but objects that stay: collecting meanwhile costs a tenth of the start.
    gc.disable()
    from wsbridge.cli.main import run

    sys.exit(run(sys.argv[0], sys.argv[1:], os.environ))


if __name__ == "__main__":
    main()
