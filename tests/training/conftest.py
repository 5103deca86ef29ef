"""A short warm-up of the embedded model, shared by the tests of both training stages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGINT, raise_signal

import pytest

from reftcli.evaluation.data import data_request
from reftcli.models.source import resolve_model
from reftcli.problems.load import load_problem_sets
from reftcli.recipe.layers import check_recipe
from reftcli.recipe.schema import Recipe
from reftcli.runs.folder import Run
from reftcli.runs.progress import SilentProgress, Task
from reftcli.training.stages import StageRequest, warmup_stage

SETTINGS = {
    "seed": 3,
    "data": {"dataset": "toy", "cot": "ncot", "level": 1, "train_size": 96, "validation_size": 8, "test_size": 8},
    "warmup": {"schedule_epochs": 10, "stop_epoch": None, "learning_rate": 3e-3, "batch_size": 16},
    "rl": {
        "updates": 3,
        "batch_size": 8,
        "mini_batch_size": 4,
        "micro_batch_size": 3,
        "learning_rate": 1e-3,
        "max_prompt_tokens": 60,
        "max_total_tokens": 84,
        "validate_every": 2,
        "checkpoint_every": 50,
    },
    "sampling": {"max_new_tokens": 20},
}


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Everything small: 96 problems of one step, 8 rollouts an update."""
    return check_recipe(SETTINGS, "tests")


@pytest.fixture(scope="session")
def warm(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished warm-up of 60 steps: answers have their form, some are right."""
    request = StageRequest(
        recipe,
        load_problem_sets(data_request(recipe.data)),
        resolve_model("tiny"),
        tmp_path_factory.mktemp("warm"),
        name="warm",
    )
    return warmup_stage(request, SilentProgress())[0]


@dataclass
class StopAfter(SilentProgress):
    """Presses Ctrl-C when a task with this title has advanced so far; keeps what was said."""

    title: str
    units: int
    said: list[str] = field(default_factory=list)

    @contextmanager
    def task(self, title: str, total: int, unit: str) -> Iterator[Task]:  # type: ignore[override]
        progress = self

        class Counting:
            done = 0

            def advance(self, units: int = 1) -> None:
                self.done += units
                if title == progress.title and units and self.done == progress.units:
                    raise_signal(SIGINT)

            def show(self, values: object) -> None:
                return None

        yield Counting()

    def say(self, line: str) -> None:
        self.said.append(line)


@pytest.fixture
def stop_after() -> type[StopAfter]:
    return StopAfter


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"
