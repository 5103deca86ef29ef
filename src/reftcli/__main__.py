"""Entry of the command ``reft``. Loads nothing heavy: each command imports what it needs when it runs."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Runs the command line; turns errors into one line and an exit code."""
    # Both must be set before torch is imported: waiting threads sleep instead of spinning where processes share cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from reftcli.launch.worker import become_worker, end_worker

    become_worker()
    from reftcli.cli.app import run

    code = run(sys.argv[1:])
    end_worker(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
