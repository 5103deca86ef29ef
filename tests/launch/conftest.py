"""A folder with a recipe and a warm-up and an RL run of one process, to which others are compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.launch.launching import RECIPE, reft


@pytest.fixture(scope="session")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``runs/warmup`` and ``runs/rl``."""
    folder = tmp_path_factory.mktemp("launch")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    reft(folder, "warmup", "--recipe", "recipe.yaml", "--name", "warmup")
    reft(folder, "rl", "warmup", "--name", "rl")
    return folder
