"""Entry of the command ``reft``. Loads nothing heavy: each command imports what it needs when it runs."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Runs the command line; turns errors into one line and an exit code."""
    # Both must be set before torch is imported. Threads that wait spin, which is 1.5 times as fast for a small model on
    # idle cores; where processes share cores they must sleep instead.
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
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
