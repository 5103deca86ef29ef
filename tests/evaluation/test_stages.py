from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from signal import SIGINT, raise_signal
from typing import Any

import pytest

from reftcli.errors import DataError, Interrupted, UsageError
from reftcli.evaluation.data import data_request
from reftcli.evaluation.experiment import Experiment, chosen, grader_of, open_experiment
from reftcli.evaluation.samples import newest_samples, read_samples
from reftcli.evaluation.stages import evaluate, grader_file, recount, with_reranking
from reftcli.grading.build import build_grader, grader_from_spec
from reftcli.grading.interface import Grade, Verdict
from reftcli.models.source import resolve_model
from reftcli.problems.load import load_problem_sets
from reftcli.problems.record import Problem
from reftcli.recipe.layers import check_recipe
from reftcli.recipe.schema import Recipe
from reftcli.runs.folder import Run, create_run
from reftcli.runs.progress import SilentProgress, Task

CONTRACT_KEYS = {"run", "dataset", "split", "n", "accuracy", "accuracy_ci95", "maj", "pass", "samples_file"}
SAMPLE_KEYS = {
    "item_id",
    "split",
    "sample_index",
    "decoding",
    "prompt",
    "completion",
    "predicted_answer",
    "gold_answer",
    "verdict",
    "score",
    "reward",
    "why",
    "logprob",
    "step",
}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    data = {"dataset": "toy", "cot": "ncot", "level": 1, "train_size": 4, "validation_size": 4, "test_size": 6}
    return check_recipe({"seed": 5, "data": data, "sampling": {"max_new_tokens": 6}}, "tests")


class ByLength:
    """Stands for a grader where an untrained model must get some right: the answer is the first word's length."""

    def __init__(self) -> None:
        self.spec = build_grader("ncot", "number").spec

    def grade(self, problems: Any, completions: list[str]) -> list[Grade]:
        verdicts = (Verdict.CORRECT, Verdict.WRONG, Verdict.WRONG, Verdict.NO_ANSWER)
        found = [verdicts[len(text) % 4] for text in completions]
        return [
            Grade.of(v, None if v is Verdict.NO_ANSWER else str(len(t) % 7))
            for v, t in zip(found, completions, strict=True)
        ]

    def same_answer(self, problem: Problem, a: str, b: str) -> bool:
        return a == b

    def close(self) -> None:
        return None


@contextmanager
def opened(recipe: Recipe, progress: SilentProgress | None = None) -> Iterator[Experiment]:
    sets = load_problem_sets(data_request(recipe.data))
    with open_experiment(recipe, sets, resolve_model("tiny"), progress or SilentProgress()) as experiment:
        grader = ByLength()
        yield replace(experiment, grader=grader, answerer=replace(experiment.answerer, grader=grader))


def new_run(folder: Path, name: str = "run") -> Run:
    return create_run(folder, stage="eval", name=name, recipe_yaml="", record={})


def test_evaluation_writes_samples_results_and_the_grader(recipe: Recipe, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with opened(recipe) as experiment:
        evaluation = evaluate(run, experiment, experiment.sets.test, "test", 3, "test")
        problems = experiment.sets.test
    rows = [json.loads(line) for line in (run.samples / "test.jsonl").read_text().splitlines()]
    assert len(rows) == 6 * (1 + 3)
    assert all(row.keys() == SAMPLE_KEYS for row in rows)
    assert {row["split"] for row in rows} == {"test"}
    saved = json.loads((run.results / "test.json").read_text())
    assert saved == json.loads(json.dumps(evaluation.to_json()))
    assert saved.keys() >= CONTRACT_KEYS
    assert (saved["run"], saved["dataset"], saved["split"], saved["n"]) == ("run", "toy", "test", 6)
    assert saved["samples_file"] == str(run.samples / "test.jsonl")
    assert saved["maj"].keys() == saved["pass"].keys() == {"1", "2", "3"}
    for measured in saved["maj"].values():
        assert measured.keys() == {"accuracy", "ci95"}
        assert measured["ci95"][0] <= measured["accuracy"] <= measured["ci95"][1]
    greedy = [row for row in rows if row["decoding"] == "greedy"]
    assert [row["item_id"] for row in greedy] == [problem.item_id for problem in problems]
    assert saved["accuracy"] == sum(row["verdict"] == "correct" for row in greedy) / 6
    assert grader_from_spec(json.loads(grader_file(evaluation.samples_file).read_text())).spec == saved["grader"]


def test_gsm8k_is_also_measured_by_the_extraction_of_lm_eval(recipe: Recipe, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with opened(recipe) as experiment:
        renamed = [replace(problem, item_id=f"gsm8k_{problem.item_id}") for problem in experiment.sets.test]
        evaluation = evaluate(run, experiment, renamed, "test", None, "gsm8k")
        other = evaluate(run, experiment, experiment.sets.test, "test", None, "test")
    found = evaluation.to_json()["lm_eval"]
    assert found["flexible-extract"]["accuracy"] <= 1
    assert "reft's prompt" in found["note"]
    assert "lm_eval" not in other.to_json()


def test_the_same_evaluation_again_gives_the_same_samples(recipe: Recipe, tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        run = new_run(tmp_path, name)
        with opened(recipe) as experiment:
            evaluate(run, experiment, experiment.sets.test, "test", 2, "test")
        texts.append((run.samples / "test.jsonl").read_text())
    assert texts[0] == texts[1]


def test_evaluating_again_keeps_the_earlier_samples(recipe: Recipe, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with opened(recipe) as experiment:
        evaluate(run, experiment, experiment.sets.test, "test", 2, "test")
        evaluate(run, experiment, experiment.sets.test, "test", None, "test")
    assert len(read_samples(run.samples / "test.jsonl")) == 18
    assert len(read_samples(run.samples / "test-2.jsonl")) == 6
    assert run.labels("test") == ["test-2", "test"]
    assert newest_samples(run, "test") == run.samples / "test-2.jsonl"
    assert newest_samples(run, "test", samples_per_problem=2) == run.samples / "test.jsonl"
    assert newest_samples(run, "test", samples_per_problem=3) is None
    assert json.loads((run.results / "test-2.json").read_text())["maj"] == {}


def test_recounting_gives_the_same_numbers(recipe: Recipe, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with opened(recipe) as experiment:
        evaluation = evaluate(run, experiment, experiment.sets.test, "test", 4, "test")
    results, split = recount(evaluation.samples_file, ByLength(), "number", None, recipe.seed)
    assert split == "test"
    assert results == evaluation.results
    only, _ = recount(evaluation.samples_file, ByLength(), "number", [2], recipe.seed)
    assert list(only.by_k("maj")) == [2]
    assert only.by_k("pass")[2] == evaluation.results.by_k("pass")[2]


def test_recounting_more_than_there_is(recipe: Recipe, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with opened(recipe) as experiment:
        greedy = evaluate(run, experiment, experiment.sets.test, "test", None, "greedy")
        sampled = evaluate(run, experiment, experiment.sets.test, "test", 2, "sampled")
    with pytest.raises(UsageError, match=r"--k 3: .*sampled\.jsonl has 2 samples per problem"):
        recount(sampled.samples_file, ByLength(), "number", [1, 3], 0)
    with pytest.raises(DataError, match="no sampled completion to vote with"):
        recount(greedy.samples_file, ByLength(), "number", [1], 0)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(DataError, match="no sample in it"):
        recount(empty, ByLength(), "number", None, 0)


def test_a_split_without_problems_is_said(recipe: Recipe, tmp_path: Path) -> None:
    with opened(recipe) as experiment, pytest.raises(DataError, match="the split test has no problem"):
        evaluate(new_run(tmp_path), experiment, [], "test", None, "test")


class StopAtOnce(SilentProgress):
    """Presses Ctrl-C as soon as something is done."""

    @contextmanager
    def task(self, title: str, total: int, unit: str) -> Iterator[Task]:  # type: ignore[override]
        class Stopping:
            def advance(self, units: int = 1) -> None:
                raise_signal(SIGINT)

            def show(self, values: object) -> None:
                return None

        yield Stopping()


def test_an_interruption_keeps_what_is_done_and_an_earlier_result(recipe: Recipe, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with opened(recipe) as experiment:
        evaluate(run, experiment, experiment.sets.test, "test", 2, "test")
    before = (run.samples / "test.jsonl").read_text()
    with opened(recipe, StopAtOnce()) as experiment, pytest.raises(Interrupted, match="6 completions are in") as caught:
        evaluate(run, experiment, experiment.sets.test, "test", 2, "test")
    assert (run.samples / "test.jsonl").read_text() == before
    kept = Path(str(caught.value).split(" are in ")[1])
    assert len(read_samples(kept)) == 6


def test_reranking_picks_by_score_and_keeps_the_other_numbers(recipe: Recipe, tmp_path: Path) -> None:
    run, rerank = new_run(tmp_path), new_run(tmp_path, "rerank")
    with opened(recipe) as experiment:
        evaluation = evaluate(run, experiment, experiment.sets.test, "test", 4, "test")
        records = read_samples(evaluation.samples_file)
        sampled = [r for r in records if r.decoding == "sampled"]
        oracle = {(r.item_id, r.sample_index): float(r.verdict is Verdict.CORRECT) for r in sampled}
        best = with_reranking(rerank, experiment, experiment.sets.test, records, oracle, "test")
        worst_scores = {key: 1 - score for key, score in oracle.items()}
        worst = with_reranking(rerank, experiment, experiment.sets.test, records, worst_scores, "worst")
    results = evaluation.results
    assert results.measures["oracle"].accuracy > 0
    assert best.results.by_k("rerank")[4].accuracy == results.measures["oracle"].accuracy
    assert worst.results.by_k("rerank")[4].accuracy < results.measures["oracle"].accuracy
    assert best.results.by_k("maj") == results.by_k("maj")
    saved = json.loads((rerank.results / "test.json").read_text())
    assert saved["run"] == "rerank"
    assert saved["rerank"]["4"]["accuracy"] == results.measures["oracle"].accuracy
    scores = {r.rm_score for r in read_samples(rerank.samples / "test.jsonl") if r.decoding == "sampled"}
    assert scores == {0.0, 1.0}
    greedy = [r for r in read_samples(rerank.samples / "test.jsonl") if r.decoding == "greedy"]
    assert {r.rm_score for r in greedy} == {None}


def test_a_seeded_choice_keeps_the_order() -> None:
    problems = [Problem(f"p{i}", "?", "1") for i in range(50)]
    some = chosen(problems, 10, seed=0)
    assert len(some) == 10
    assert [p for p in problems if p in some] == some
    assert chosen(problems, 10, seed=0) == some
    assert chosen(problems, 10, seed=1) != some
    assert chosen(problems, None, 0) == chosen(problems, 50, 0) == problems


def test_the_grader_follows_form_kind_and_tolerance(recipe: Recipe) -> None:
    sets = load_problem_sets(data_request(recipe.data))
    loose = recipe.model_copy(update={"grading": recipe.grading.model_copy(update={"tolerance": 1.5})})
    problem = sets.test[0]
    near = f"Therefore, the answer is: {int(problem.gold_answer) + 1}"
    for changed, verdict in ((recipe, Verdict.WRONG), (loose, Verdict.CORRECT)):
        grader = grader_of(changed, sets)
        assert grader.spec["form"] == "ncot"
        assert grader.grade([problem], [near])[0].verdict is verdict
        grader.close()


def test_an_experiment_samples_from_the_model_as_it_is_at_that_moment(recipe: Recipe) -> None:
    import torch

    with opened(recipe) as experiment:
        before = experiment.answerer.answer(experiment.sets.test, "test", 1, greedy_decode())
        with torch.no_grad():
            experiment.loaded.model.get_input_embeddings().weight.neg_()
        after = experiment.answerer.answer(experiment.sets.test, "test", 1, greedy_decode())
    assert [r.completion for r in before] != [r.completion for r in after]


def greedy_decode() -> Any:
    from reftcli.sampling.interface import Decode

    return Decode("greedy", 6)
