"""A folder with a recipe and a warm-up and an RL run of one process, to which others are compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.launch.launching import trained_by_one_process


@pytest.fixture(scope="session")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_by_one_process(tmp_path_factory.mktemp("launch"))
