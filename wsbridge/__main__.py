"""The entry point of `python -m wsbridge` and of the `wsbridge` command."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the command line and exit with its status."""
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        # Clients send UTF-8. A legacy locale cannot encode all of it for a program's environment, so Python restarts in UTF-8 mode.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    # The imports create only permanent objects: garbage collection meanwhile costs a tenth of the start.
    gc.disable()
    from wsbridge.cli.main import run

    sys.exit(run(sys.argv[0], sys.argv[1:], os.environ))


if __name__ == "__main__":
    main()
