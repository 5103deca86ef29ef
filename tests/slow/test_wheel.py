"""A wheel in an empty environment, outside the checkout, runs the same commands; the recipes travel inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def reft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, installed from a wheel that was built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run = {"check": True, "capture_output": True, "cwd": folder}
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(folder), str(ROOT)], **run)
    wheel = next(folder.glob("reftcli-*.whl"))
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], **run)
    subprocess.run([str(folder / "venv/bin/python"), "-m", "pip", "install", "--quiet", str(wheel)], **run)
    return folder / "venv/bin/reft"


def call(reft: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run([str(reft), *arguments], cwd=cwd, capture_output=True, text=True, env=environment)


def test_the_demo_runs_from_the_wheel(reft: Path, tmp_path: Path) -> None:
    done = call(reft, "demo", "--quick", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    names = [row["name"] for row in json.loads(done.stdout)["rows"]]
    assert names[:3] == ["warm-up, greedy", "SFT continued, greedy", "ReFT, greedy"]
    assert len(names) == 7  # and four ways to squeeze out more


def test_the_recipes_travel_inside(reft: Path, tmp_path: Path) -> None:
    done = call(reft, "recipes", "ls", "--json", cwd=tmp_path)
    assert "codellama-7b/gsm8k-pcot" in json.loads(done.stdout)["recipes"]
