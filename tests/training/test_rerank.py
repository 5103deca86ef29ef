from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reftcli.errors import DataError, Interrupted, RuntimeFailure
from reftcli.evaluation.data import data_request
from reftcli.evaluation.experiment import open_experiment
from reftcli.evaluation.fingerprints import question_fingerprint
from reftcli.evaluation.samples import read_samples
from reftcli.evaluation.stages import evaluate
from reftcli.evaluation.trained_on import TRAINED_ON
from reftcli.models.source import resolve_model
from reftcli.problems.load import ProblemSets, load_problem_sets
from reftcli.recipe.schema import Recipe
from reftcli.runs.folder import Run, create_run, open_run
from reftcli.runs.progress import Progress, SilentProgress
from reftcli.sampling.torch_sampler import TorchSampler
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
    policy: Run | None = None,
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
    source = resolve_model(str(copy))
    name = None if resume else "reranked"
    request = StageRequest(changed, sets, source, runs_dir, name=name, parent=None if resume else warm, resume=resume)
    return rerank_stage(request, resolve_model(str(warm.final)), policy or warm, progress or SilentProgress())


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
    known = json.loads((run.final / TRAINED_ON).read_text())["questions"]
    held_out_problems = max(1, round(0.1 * 24))
    assert len(known) == 24 - held_out_problems
    assert set(known) < {question_fingerprint(problem.question) for problem in sets.train}


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


FAST = {"scorer": "likelihood", "trained": "head"}


class Heard(SilentProgress):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


def policy_evaluated(recipe: Recipe, sets: ProblemSets, warm: Run, folder: Path, k: int) -> Run:
    """A run with samples of the warm-up's weights on the test split."""
    run = create_run(folder, stage="rl", name="policy-run", recipe_yaml="", record={"parent": "warm"})
    with open_experiment(recipe, sets, resolve_model(str(warm.final)), SilentProgress()) as experiment:
        evaluate(run, experiment, sets.test, "test", k, "test")
    return run


def test_saved_candidates_are_taken_only_where_the_same_would_be_drawn(
    recipe: Recipe, sets: ProblemSets, warm: Run, runs_dir: Path, tmp_path: Path
) -> None:
    warmer = recipe.model_copy(update={"sampling": recipe.sampling.model_copy(update={"temperature": 0.7})})
    policy = policy_evaluated(warmer, sets, warm, tmp_path / "saved", 3)
    test = [dataclasses.replace(sets.test[0], gold_answer="77"), *sets.test[1:]]
    for name, settings, problems, k, said in (
        ("same", warmer, sets, 2, f"candidates: those in {policy.samples_file('test')}"),
        ("more", warmer, sets, 4, "are others (3 a problem, 4 are wanted)"),
        ("colder", recipe, sets, 2, "are others (other decoding)"),
        ("golds", warmer, dataclasses.replace(sets, test=test), 2, "are others (other prompts and golds)"),
    ):
        heard = Heard()
        run, outcome = rerank(settings, problems, warm, runs_dir / name, heard, policy=policy, k=k, **FAST)
        assert [line for line in heard.said if said in line], heard.said
        assert (run.samples / "candidates.jsonl").exists() == (name != "same")
        assert outcome.evaluation.origin.sampling["temperature"] == settings.sampling.temperature
        assert outcome.evaluation.results.samples_per_problem == k


def test_the_settings_that_are_stated_are_those_of_the_candidates(
    recipe: Recipe, sets: ProblemSets, warm: Run, runs_dir: Path, tmp_path: Path
) -> None:
    policy = policy_evaluated(recipe, sets, warm, tmp_path / "saved", 3)
    saved = json.loads(policy.results_file("test").read_text())
    run, _ = rerank(recipe, sets, warm, runs_dir, policy=policy, **FAST)
    result = json.loads(run.results_file("test").read_text())
    assert (result["sampling"], result["identity"]) == (saved["sampling"], saved["identity"])


def test_a_resumed_run_takes_the_candidates_that_it_has_drawn(
    recipe: Recipe, sets: ProblemSets, warm: Run, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeFailure("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("reftcli.training.rerank._scores", fail)
        with pytest.raises(RuntimeFailure):
            rerank(recipe, sets, warm, runs_dir, **FAST)
    failed = open_run(runs_dir / "reranked")
    drawn = failed.samples_file("candidates").read_bytes()
    monkeypatch.setattr(TorchSampler, "sample", lambda *_, **__: pytest.fail("sampled again"))
    run, outcome = rerank(recipe, sets, warm, runs_dir, resume=failed, **FAST)
    assert run.record()["status"] == "finished"
    assert run.labels("candidates") == ["candidates"]
    assert run.samples_file("candidates").read_bytes() == drawn
    assert list(outcome.evaluation.results.by_k("rerank")) == [1, 2]


def test_training_problems_are_not_tested_whatever_their_white_space(
    recipe: Recipe, sets: ProblemSets, warm: Run, runs_dir: Path
) -> None:
    again = dataclasses.replace(sets.train[0], item_id="again", question=f" {sets.train[0].question}\n")
    mixed = dataclasses.replace(sets, test=[*sets.test, again])
    with pytest.raises(DataError, match=r"1 test problems are also training problems \(first: again\)"):
        rerank(recipe, mixed, warm, runs_dir)
    assert not runs_dir.exists()
