from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from signal import SIGINT, raise_signal
from typing import Any

import pytest

from reftcli.errors import DataError, Interrupted, NothingToStartFrom, UsageError
from reftcli.evaluation import collecting
from reftcli.evaluation.collecting import collect, drawn_differently
from reftcli.evaluation.data import data_request
from reftcli.evaluation.experiment import Experiment, chosen, grader_of, open_experiment
from reftcli.evaluation.partial import Partial
from reftcli.evaluation.results import VoteRule
from reftcli.evaluation.samples import read_samples
from reftcli.evaluation.saved import Needs, Origin, newest_evaluation, saved_evaluations
from reftcli.evaluation.stages import evaluate, grader_file, recount, with_reranking
from reftcli.grading.build import build_grader, grader_from_spec
from reftcli.grading.interface import Grade, Verdict
from reftcli.grading.policy import AnswerPolicy
from reftcli.models.source import resolve_model
from reftcli.problems.load import load_problem_sets
from reftcli.problems.record import Problem
from reftcli.recipe.layers import check_recipe
from reftcli.recipe.schema import Recipe
from reftcli.runs.folder import Run, create_run
from reftcli.runs.interrupts import StopRequest
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
    "question_sha256",
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
    newest = newest_evaluation(run, "test")
    assert newest is not None
    assert newest.samples_file == run.samples / "test-2.jsonl"
    assert json.loads((run.results / "test-2.json").read_text())["maj"] == {}


def test_recounting_gives_the_same_numbers(recipe: Recipe, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with opened(recipe) as experiment:
        evaluation = evaluate(run, experiment, experiment.sets.test, "test", 4, "test")
    results, split, _ = recount(evaluation.samples_file, ByLength(), "number", None, recipe.seed)
    assert split == "test"
    assert results == evaluation.results
    only, *_ = recount(evaluation.samples_file, ByLength(), "number", [2], recipe.seed)
    assert list(only.by_k("maj")) == [2]
    assert only.by_k("pass")[2] == evaluation.results.by_k("pass")[2]


def saved(folder: Path, *answers: str | None, gold: str = "10/3", **fields: Any) -> Path:
    """A samples file of one problem, graded by the real grader."""
    grader = build_grader("ncot", "number")
    problem = Problem("p", "?", gold)
    texts = ["no idea" if answer is None else f"Therefore, the answer is: {answer}" for answer in answers]
    rows = []
    for index, grade in enumerate(grader.grade([problem] * len(texts), texts)):
        row = {"item_id": "p", "sample_index": index, "decoding": "sampled", "gold_answer": gold, **fields}
        rows.append({**row, "predicted_answer": grade.predicted_answer, "verdict": grade.verdict})
    file = folder / "saved.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize(
    ("answers", "gold", "right"),
    [
        (("4", "4", "3.333", "3.3333", "10/3"), "10/3", 1.0),
        (("7", "7", "1/2", "0.5", "$0.50"), "0.5", 1.0),
        (("9", "9", "1,000", "1000", "1000.0"), "1000", 1.0),
        (("4", "4", "3.333", "3.3333", None), "10/3", 0.0),  # a tie: 4 was seen first
        ((None, "3.333", None), "10/3", 1.0),
        ((None, None), "10/3", 0.0),
        (("3.333", "3.3333", "4", "4", "4"), "10/3", 0.0),
    ],
)
def test_answers_that_the_grader_takes_for_equal_vote_together(
    answers: tuple[str | None, ...], gold: str, right: float, tmp_path: Path
) -> None:
    file = saved(tmp_path, *answers, gold=gold)
    results, *_ = recount(file, build_grader("ncot", "number"), "number", None, 0)
    assert results.per_problem[f"maj@{len(answers)}"] == {"p": right}


def test_votes_by_other_rules_hand_worked(tmp_path: Path) -> None:
    def maj(rule: VoteRule, tolerance: float = 1e-2, seed: int = 0) -> float:
        grader = build_grader("ncot", "number", policy=AnswerPolicy(tolerance=tolerance))
        results, *_ = recount(file, grader, "number", [5], seed, rule)
        return results.per_problem["maj@5"]["p"]

    file = saved(tmp_path, "4", "3.5", "4", "3.5", "9", gold="3.5")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row, logprob, score in zip(rows, (-800, -800.5, -802, -800.1, -790), (0.2, 0.3, 0.2, 0.3, 0.1), strict=True):
        row |= {"logprob": logprob, "rm_score": score}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert maj(VoteRule()) == 0.0  # 2 to 2: 4 was seen first
    assert {maj(VoteRule(ties="random"), seed=seed) for seed in range(20)} == {0.0, 1.0}
    assert maj(VoteRule(weights="reward")) == 1.0  # 0.6 to 0.4 to 0.1
    assert maj(VoteRule(weights="logprob")) == 0.0  # e^-790 is more than all others together
    assert maj(VoteRule(), tolerance=0.5) == 0.0  # 4 and 3.5 are one, and 4 is its representative
    for row in rows:
        row["logprob"] = None if row["predicted_answer"] == "9" else row["logprob"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="problem p: 1 answered samples have no logprob"):
        maj(VoteRule(weights="logprob"))


def test_random_ties_are_fair(tmp_path: Path) -> None:
    file = saved(tmp_path, "4", "3.5", gold="3.5")
    grader = build_grader("ncot", "number")
    won = [
        recount(file, grader, "number", [2], seed, VoteRule(ties="random"))[0].per_problem["maj@2"]["p"]
        for seed in range(400)
    ]
    assert 0.4 < sum(won) / 400 < 0.6


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


class StopAfter(SilentProgress):
    """Presses Ctrl-C as soon as so many completions are done."""

    def __init__(self, completions: int) -> None:
        self.left = completions

    @contextmanager
    def task(self, title: str, total: int, unit: str) -> Iterator[Task]:  # type: ignore[override]
        progress = self

        class Stopping:
            def advance(self, units: int = 1) -> None:
                progress.left -= units
                if progress.left <= 0:
                    progress.left = 10**9
                    raise_signal(SIGINT)

            def show(self, values: object) -> None:
                return None

        yield Stopping()


@pytest.fixture
def small_chunks(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Six problems with five samples make two greedy chunks and twelve of samples."""
    monkeypatch.setattr(collecting, "BATCHES_PER_CHUNK", 2)
    return recipe.model_copy(update={"sampling": recipe.sampling.model_copy(update={"batch_size": 2})})


@pytest.fixture
def whole(small_chunks: Recipe, tmp_path: Path) -> bytes:
    """The samples of an evaluation that nobody stopped."""
    run = new_run(tmp_path, "whole")
    with opened(small_chunks) as experiment:
        evaluate(run, experiment, experiment.sets.test, "test", 5, "test")
    return (run.samples / "test.jsonl").read_bytes()


def files(run: Run) -> list[str]:
    return sorted(path.name for path in run.samples.iterdir())


def test_stopped_again_and_again_it_ends_at_the_same_samples(
    small_chunks: Recipe, whole: bytes, tmp_path: Path
) -> None:
    run = new_run(tmp_path)
    kept = 0
    for attempt in range(20):
        with opened(small_chunks, StopAfter(kept + 5)) as experiment:
            try:
                evaluation = evaluate(run, experiment, experiment.sets.test, "test", 5, "test", resume=attempt > 0)
                break
            except Interrupted as stopped:
                found = re.match(r"stopped; (\d+) of 36 completions are kept beside .*--resume goes on", str(stopped))
                assert found is not None
                assert int(found[1]) > kept
                kept = int(found[1])
                assert files(run) == ["test.partial-0.jsonl", "test.partial.json"]
                assert len(read_samples(run.samples / "test.partial-0.jsonl")) == kept  # a samples file like any other
    assert attempt >= 4
    assert (run.samples / "test.jsonl").read_bytes() == whole
    assert files(run) == ["test.grader.json", "test.jsonl"]
    assert evaluation.results.samples_per_problem == 5


def stopped(run: Run, recipe: Recipe, k: int | None = 5) -> None:
    with opened(recipe, StopAfter(8)) as experiment, pytest.raises(Interrupted):
        evaluate(run, experiment, experiment.sets.test, "test", k, "test")


def test_the_same_command_goes_on_and_another_one_does_not(small_chunks: Recipe, whole: bytes, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    stopped(run, small_chunks)
    begun = {name: (run.samples / name).read_bytes() for name in files(run)}
    with opened(small_chunks) as experiment:
        other = evaluate(run, experiment, experiment.sets.test, "test", 2, "test")
        assert other.samples_file.name == "test-2.jsonl"
        assert {name: (run.samples / name).read_bytes() for name in begun} == begun
        evaluation = evaluate(run, experiment, experiment.sets.test, "test", 5, "test")
    assert evaluation.samples_file.name == "test.jsonl"
    assert (run.samples / "test.jsonl").read_bytes() == whole


def test_resuming_something_else_is_refused_in_one_line(small_chunks: Recipe, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    stopped(run, small_chunks)
    warmer = small_chunks.model_copy(
        update={"sampling": small_chunks.sampling.model_copy(update={"temperature": 0.5}), "seed": 6}
    )
    with opened(small_chunks) as experiment:
        test = experiment.sets.test
        with pytest.raises(UsageError, match=r'samples a problem: .*"sampled": 5}, now .*"sampled": 4}') as refused:
            evaluate(run, experiment, test, "test", 4, "test", resume=True)
        assert "\n" not in str(refused.value)
        with pytest.raises(UsageError, match="problems: 6, now 5; other prompts and golds"):
            evaluate(run, experiment, test[:5], "test", 5, "test", resume=True)
        changed = [replace(test[0], gold_answer="77"), *test[1:]]
        with pytest.raises(UsageError, match=r"\(other prompts and golds\)"):
            evaluate(run, experiment, changed, "test", 5, "test", resume=True)
        with pytest.raises(UsageError, match="no unfinished evaluation 'validation'"):
            evaluate(run, experiment, test, "test", 5, "validation", resume=True)
    with opened(warmer) as experiment, pytest.raises(UsageError, match="other decoding"):
        evaluate(run, experiment, experiment.sets.test, "test", 5, "test", resume=True)


def test_other_weights_are_another_evaluation(small_chunks: Recipe, tmp_path: Path) -> None:
    import torch

    run = new_run(tmp_path)
    stopped(run, small_chunks)
    with opened(small_chunks) as experiment:
        with torch.no_grad():
            next(iter(experiment.loaded.model.parameters())).add_(1e-3)
        with pytest.raises(UsageError, match=r"\(other weights\)"):
            evaluate(run, experiment, experiment.sets.test, "test", 5, "test", resume=True)


def test_one_that_is_being_worked_on_is_left_alone(small_chunks: Recipe, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    stopped(run, small_chunks)
    with opened(small_chunks) as experiment, Partial(run.samples_file("test")).locked():
        with pytest.raises(UsageError, match="another process"):
            evaluate(run, experiment, experiment.sets.test, "test", 5, "test", resume=True)
        other = evaluate(run, experiment, experiment.sets.test, "test", 5, "test")
    assert other.samples_file.name == "test-2.jsonl"


def test_ended_between_samples_and_results_it_only_derives(
    small_chunks: Recipe, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with opened(small_chunks) as experiment:
        with monkeypatch.context() as patch:
            patch.setattr("reftcli.evaluation.stages._finished", killed)
            with pytest.raises(KeyboardInterrupt):
                evaluate(run, experiment, experiment.sets.test, "test", 5, "test")
        assert run.labels("test") == []
        monkeypatch.setattr(type(experiment.sampler), "sample", killed)  # everything is drawn
        evaluate(run, experiment, experiment.sets.test, "test", 5, "test")
    assert run.labels("test") == ["test"]
    assert (run.samples / "test.jsonl").read_bytes() == whole


@contextmanager
def after_two_chunks(say: object) -> Iterator[StopRequest]:
    """Threads get no signals: the request is there when it is looked at for the third time."""

    class Asked(StopRequest):
        looks = 0

        def __bool__(self) -> bool:
            self.looks += 1
            return self.looks > 2

    yield Asked()


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 3), (3, 2), (2, 17)])
def test_ranks_share_the_work_and_any_number_of_them_goes_on(
    before: int, after: int, small_chunks: Recipe, whole: bytes, tmp_path: Path, in_ranks: Any
) -> None:
    run = new_run(tmp_path)

    def work(count: int) -> list[Any]:
        with ExitStack() as stack:  # opened one after another: the tiny model's weights come from the global generator
            experiments = [stack.enter_context(opened(small_chunks)) for _ in range(count)]
            test = experiments[0].sets.test
            return in_ranks(
                count, lambda ranks: evaluate(run, experiments[ranks.rank], test, "test", 5, "test", ranks=ranks)
            )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collecting, "stop_on_signal", after_two_chunks)
        found = work(before)
    assert all(isinstance(error, Interrupted) for error in found), found
    assert len({str(error) for error in found}) == 1
    assert files(run) == [*(f"test.partial-{rank}.jsonl" for rank in range(before)), "test.partial.json"]
    found = work(after)
    assert len(found) == after
    assert all(evaluation == found[0] for evaluation in found), found
    assert found[0].samples_file.name == "test.jsonl"
    assert (run.samples / "test.jsonl").read_bytes() == whole
    assert files(run) == ["test.grader.json", "test.jsonl"]


def test_an_error_of_the_main_rank_is_everybodys(small_chunks: Recipe, tmp_path: Path, in_ranks: Any) -> None:
    run = new_run(tmp_path)

    with opened(small_chunks) as experiment:
        test = experiment.sets.test
        found = in_ranks(3, lambda ranks: evaluate(run, experiment, test, "test", 5, "test", resume=True, ranks=ranks))
    assert [type(error) for error in found] == [NothingToStartFrom] * 3


def test_grading_is_done_while_the_next_chunk_is_drawn(small_chunks: Recipe, tmp_path: Path) -> None:
    events: list[str] = []
    drawing_again = threading.Event()

    class Waits(ByLength):
        def grade(self, problems: Any, completions: list[str]) -> list[Grade]:
            if not events.count("graded"):
                assert drawing_again.wait(30), "the next chunk is drawn meanwhile"
            events.append("graded")
            return super().grade(problems, completions)

    with opened(small_chunks) as experiment:
        sample = experiment.sampler.sample

        class Sampler:
            def sample(self, *arguments: Any, **named: Any) -> Any:
                events.append("drawn")
                if events.count("drawn") == 2:
                    drawing_again.set()
                return sample(*arguments, **named)

        answerer = replace(experiment.answerer, sampler=Sampler(), grader=Waits())
        evaluate(new_run(tmp_path), replace(experiment, answerer=answerer), experiment.sets.test, "test", 5, "test")
    assert events.count("drawn") == events.count("graded") == 14
    ahead = [events[:i].count("drawn") - events[:i].count("graded") for i in range(len(events))]
    assert max(ahead) <= 2, "no more than two chunks are in memory"


def test_collecting_goes_on_too(small_chunks: Recipe, tmp_path: Path) -> None:
    decode = replace(greedy_decode(), decoding="sampled")
    with opened(small_chunks, StopAfter(5)) as experiment, pytest.raises(Interrupted, match="6 of 18 completions"):
        collect(experiment, experiment.sets.test, "train", 3, decode, tmp_path / "train.jsonl")
    with opened(small_chunks) as experiment:
        with pytest.raises(UsageError, match="is of another sampling pass"):
            collect(experiment, experiment.sets.test, "train", 2, decode, tmp_path / "train.jsonl")
        found = collect(experiment, experiment.sets.test, "train", 3, decode, tmp_path / "train.jsonl")
        assert found == collect(experiment, experiment.sets.test, "train", 3, decode, tmp_path / "again.jsonl")
    assert [(r.item_id, r.sample_index) for r in found] == [
        (problem.item_id, i) for problem in experiment.sets.test for i in range(3)
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.jsonl", "train.jsonl"]


def test_reranking_picks_by_score_and_keeps_the_other_numbers(recipe: Recipe, tmp_path: Path) -> None:
    run, rerank = new_run(tmp_path), new_run(tmp_path, "rerank")
    with opened(recipe) as experiment:
        evaluation = evaluate(run, experiment, experiment.sets.test, "test", 4, "test")
        records = read_samples(evaluation.samples_file)
        sampled = [r for r in records if r.decoding == "sampled"]
        origin = Origin(sampling={"temperature": 7}, limit=6)
        oracle = {(r.item_id, r.sample_index): float(r.verdict is Verdict.CORRECT) for r in sampled}
        best = with_reranking(rerank, experiment, experiment.sets.test, records, oracle, "test", origin)
        worst_scores = {key: 1 - score for key, score in oracle.items()}
        worst = with_reranking(rerank, experiment, experiment.sets.test, records, worst_scores, "worst", origin)
    results = evaluation.results
    assert results.measures["oracle"].accuracy > 0
    assert best.results.by_k("rerank")[4].accuracy == results.measures["oracle"].accuracy
    assert worst.results.by_k("rerank")[4].accuracy < results.measures["oracle"].accuracy
    assert best.results.by_k("maj") == results.by_k("maj")
    saved = json.loads((rerank.results / "test.json").read_text())
    assert saved["run"] == "rerank"
    assert (saved["sampling"], saved["limit"]) == ({"temperature": 7}, 6)  # those of the candidates
    assert saved["rerank"]["4"]["accuracy"] == results.measures["oracle"].accuracy
    scores = {r.rm_score for r in read_samples(rerank.samples / "test.jsonl") if r.decoding == "sampled"}
    assert scores == {0.0, 1.0}
    greedy = [r for r in read_samples(rerank.samples / "test.jsonl") if r.decoding == "greedy"]
    assert {r.rm_score for r in greedy} == {None}


def scores_of(file: Path) -> dict[tuple[str, int], float]:
    rows = [record for record in read_samples(file) if record.decoding == "sampled"]
    return {(r.item_id, r.sample_index): r.sample_index / 10 for r in rows}


def test_the_record_says_what_was_evaluated(recipe: Recipe, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with opened(recipe) as experiment:
        test = experiment.sets.test
        some = evaluate(run, experiment, test[:4], "test", 2, "test", limit=4)
        warmer = recipe.model_copy(update={"sampling": recipe.sampling.model_copy(update={"temperature": 3.0})})
        evaluate(run, replace(experiment, recipe=warmer), test, "test", 4, "test")
        evaluate(run, experiment, test, "test", None, "test")
    kept = {saved.label: saved for saved in saved_evaluations(run, "test")}
    assert list(kept) == ["test-3", "test-2", "test"]
    assert kept["test"].origin == some.origin
    assert [saved.origin.limit for saved in kept.values()] == [None, None, 4]
    assert [saved.origin.sampling.get("temperature") for saved in kept.values()] == [None, 3.0, 1.0]
    assert len({saved.origin.identity["weights"] for saved in kept.values()}) == 1
    between = [drawn_differently(kept[a].origin.identity, kept["test-2"].origin.identity) for a in kept]
    assert between == ["other decoding", "", "problems: 4, now 6; other prompts and golds; other decoding"]
    assert drawn_differently({}, kept["test"].origin.identity) == "what they were drawn from is not recorded"


def test_the_newest_that_has_what_is_asked_for_is_taken(recipe: Recipe, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with opened(recipe) as experiment:
        for k in (4, 2, None):
            evaluate(run, experiment, experiment.sets.test, "test", k, "test")

    def taken(*preferred: Needs) -> str:
        found = newest_evaluation(run, "test", preferred)
        assert found is not None
        return found.label

    assert taken() == taken(Needs(5)) == "test-3"
    assert taken(Needs(1)) == taken(Needs(5), Needs(1)) == taken(Needs(2, exactly=True)) == "test-2"
    assert taken(Needs(3)) == taken(Needs(4, exactly=True)) == taken(Needs(3, exactly=True), Needs(3)) == "test"
    assert taken(Needs(1, scores=True), Needs(4)) == "test"
    assert newest_evaluation(run, "validation") is None


def test_an_evaluation_whose_scoring_failed_is_scored_and_not_sampled_again(
    small_chunks: Recipe, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path)

    def fail(records: Any) -> Any:
        raise RuntimeError("out of memory")

    def evaluated(**named: Any) -> Any:
        return evaluate(run, experiment, experiment.sets.test, "test", 5, "test", **named)

    with opened(small_chunks) as experiment:
        with pytest.raises(RuntimeError):
            evaluated(score=fail)
        assert run.labels("test") == []
        monkeypatch.setattr(type(experiment.sampler), "sample", lambda *_, **__: pytest.fail("sampled again"))
        picked = evaluated(score=lambda records: scores_of(run.samples_file("test")), resume=True)
    assert run.labels("test") == ["test"]
    assert list(picked.results.by_k("rerank")) == [1, 2, 5]
    assert files(run) == ["test.grader.json", "test.jsonl"]
    rows = [json.loads(line) for line in (run.samples / "test.jsonl").read_text().splitlines()]
    scored = {row.pop("rm_score") for row in rows if row["decoding"] == "sampled"}
    assert scored == {0.0, 0.1, 0.2, 0.3, 0.4}
    assert rows == [json.loads(line) for line in whole.splitlines()]


def test_every_rank_takes_part_in_scoring(small_chunks: Recipe, tmp_path: Path, in_ranks: Any) -> None:
    run = new_run(tmp_path)
    scored = []

    def work(ranks: Any) -> Any:
        def score(records: Any) -> Any:
            scored.append((ranks.rank, len(list(records))))
            return scores_of(run.samples_file("test"))

        experiment = experiments[ranks.rank]
        return evaluate(run, experiment, experiment.sets.test, "test", 5, "test", score=score, ranks=ranks)

    with ExitStack() as stack:
        experiments = [stack.enter_context(opened(small_chunks)) for _ in range(2)]
        found = in_ranks(2, work)
    assert sorted(scored) == [(0, 36), (1, 36)], found
    assert found[0] == found[1]
    assert list(found[0].results.by_k("rerank")) == [1, 2, 5]


@pytest.mark.parametrize("resume", [False, True])
def test_a_complete_evaluation_without_scores_gets_them(
    resume: bool, small_chunks: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path)

    def evaluated(**named: Any) -> Any:
        return evaluate(run, experiment, experiment.sets.test, "test", 5, "test", **named)

    with opened(small_chunks) as experiment:
        plain = evaluated()
        with monkeypatch.context() as patch:
            patch.setattr(type(experiment.sampler), "sample", lambda *_, **__: pytest.fail("sampled again"))
            picked = evaluated(score=lambda records: scores_of(run.samples_file("test")), resume=resume)
        assert picked.samples_file == plain.samples_file
        assert picked.results.by_k("maj") == plain.results.by_k("maj")
        assert files(run) == ["test.grader.json", "test.jsonl"]
        again = evaluated(score=lambda records: scores_of(run.samples_file("test-2")))
    assert again.samples_file.name == "test-2.jsonl"  # one that was scored by another reward model, perhaps


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
