"""What the slow tests share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def reft_json() -> Callable[..., dict[str, Any]]:
    """Runs one command with --json in a folder and returns its object."""

    def run(*arguments: str, cwd: Path) -> dict[str, Any]:
        command = [sys.executable, "-m", "reftcli", *arguments, "--json"]
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        named = "_".join(arguments).replace("/", ".")[:120]
        (cwd / f"{named}.json").write_text(done.stdout, encoding="utf-8")  # to look at
        return json.loads(done.stdout)

    return run
