from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reftcli.errors import DataError, Interrupted
from reftcli.evaluation.data import data_request
from reftcli.evaluation.reward_scores import TRAINED_ON
from reftcli.evaluation.samples import read_samples
from reftcli.models.source import resolve_model
from reftcli.problems.load import ProblemSets, load_problem_sets
from reftcli.recipe.schema import Recipe
from reftcli.runs.folder import Run, open_run
from reftcli.runs.progress import Progress, SilentProgress
from reftcli.training.rerank import RerankOutcome, rerank_stage
from reftcli.training.stages import StageRequest

SETTINGS = {"problems": 24, "samples_per_problem": 3, "k": 2, "epochs": 1, "learning_rate": 1e-3, "batch_size": 16}


@pytest.fixture(scope="module")
def sets(recipe: Recipe) -> ProblemSets:
    return load_problem_sets(data_request(recipe.data))


def rerank(
    recipe: Recipe,
    sets: ProblemSets,
    warm: Run,
    runs_dir: Path,
    progress: Progress | None = None,
    resume: Run | None = None,
    **settings: Any,
) -> tuple[Run, RerankOutcome]:
    """A reward model for the warm-up, which a copy of it stands for."""
    changed = recipe.model_copy(
        update={
            "rerank": recipe.rerank.model_copy(update={**SETTINGS, **settings}),
            "sampling": recipe.sampling.model_copy(update={"batch_size": 1}),  # so samples come in several chunks
        }
    )
    copy = runs_dir.parent / "policy"
    if not copy.exists():
        shutil.copytree(warm.final, copy)
    policy = resolve_model(str(copy))
    name = None if resume else "reranked"
    request = StageRequest(changed, sets, policy, runs_dir, name=name, parent=None if resume else warm, resume=resume)
    return rerank_stage(request, resolve_model(str(warm.final)), warm, progress or SilentProgress())


def test_the_reward_model_is_judged_on_held_out_samples_and_on_the_candidates(
    recipe: Recipe, sets: ProblemSets, warm: Run, runs_dir: Path
) -> None:
    run, outcome = rerank(recipe, sets, warm, runs_dir)
    found = run.record()["outcome"]
    assert found == outcome.reward_model()
    assert found["held_out_auc"] == found["held_out"]["auc"]
    assert 0 < found["share_correct"] < 1
    for judged in (found["held_out"], found["candidates"]):
        assert sum(row["samples"] for row in judged["reliability"]) == judged["samples"] > 0
        assert 0 <= judged["brier"] <= 1
    assert found["candidates"]["samples"] == len(sets.test) * 2
    known = json.loads((run.final / TRAINED_ON).read_text())["prompts"]
    held_out_problems = max(1, round(0.1 * 24))
    assert len(known) == 24 - held_out_problems


@pytest.mark.parametrize(
    ("samples_from", "files"),
    [("warmup", ["train"]), ("policy", ["train-policy"]), ("both", ["train", "train-policy"])],
)
def test_whose_samples_are_labelled(
    recipe: Recipe, sets: ProblemSets, warm: Run, runs_dir: Path, samples_from: str, files: list[str]
) -> None:
    run, outcome = rerank(recipe, sets, warm, runs_dir, samples_from=samples_from, scorer="likelihood", trained="head")
    assert sorted(file.stem for file in run.samples.glob("train*.jsonl")) == files
    assert all(len(read_samples(run.samples_file(file))) == 24 * 3 for file in files)
    assert "weighted@2" in outcome.evaluation.results.measures


@pytest.mark.parametrize("title", ["train", "reward model"])
def test_an_interrupted_run_goes_on_with_its_samples(
    recipe: Recipe, sets: ProblemSets, warm: Run, runs_dir: Path, stop_after: Callable[..., Any], title: str
) -> None:
    with pytest.raises(Interrupted):
        rerank(recipe, sets, warm, runs_dir, progress=stop_after(title, 1))
    stopped = open_run(runs_dir / "reranked")
    assert stopped.record()["status"] == "interrupted"
    stopped_samples = stopped.samples_file("train")
    before = stopped_samples.stat().st_mtime_ns if stopped_samples.is_file() else None
    assert (before is not None) == (title == "reward model")
    run, outcome = rerank(recipe, sets, warm, runs_dir, resume=stopped)
    assert run.folder == stopped.folder
    assert run.record()["status"] == "finished"
    if before is not None:
        assert stopped_samples.stat().st_mtime_ns == before
    _, fresh = rerank(recipe, sets, warm, runs_dir / "fresh")
    assert outcome.reward_model() == fresh.reward_model()


def test_training_problems_are_not_tested_whatever_their_white_space(
    recipe: Recipe, sets: ProblemSets, warm: Run, runs_dir: Path
) -> None:
    again = dataclasses.replace(sets.train[0], item_id="again", question=f" {sets.train[0].question}\n")
    mixed = dataclasses.replace(sets, test=[*sets.test, again])
    with pytest.raises(DataError, match=r"1 test problems are also training problems \(first: again\)"):
        rerank(recipe, mixed, warm, runs_dir)
    assert not runs_dir.exists()
