from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from reftcli.errors import DataError, Interrupted, RuntimeFailure, TrainingStopped, UsageError
from reftcli.evaluation.data import data_request
from reftcli.evaluation.samples import read_samples
from reftcli.grading.interface import Grade, Verdict
from reftcli.models.source import resolve_model
from reftcli.problems.load import load_problem_sets
from reftcli.problems.record import Problem
from reftcli.recipe.schema import Recipe
from reftcli.runs.files import read_jsonl
from reftcli.runs.folder import Run
from reftcli.runs.progress import Progress, SilentProgress
from reftcli.training.stages import StageRequest, rl_stage

CONTRACT_KEYS = {
    "step",
    "time",
    "reward_mean",
    "accuracy",
    "kl",
    "entropy",
    "completion_length",
    "eos_rate",
    "truncated_rate",
    "ungradable",
    "policy_loss",
    "value_loss",
    "clip_fraction",
    "grad_norm",
    "lr",
    "seconds",
}


def changed(recipe: Recipe, **rl: Any) -> Recipe:
    return recipe.model_copy(update={"rl": recipe.rl.model_copy(update=rl)})


def request(recipe: Recipe, warm: Run, runs_dir: Path, name: str, resume: Run | None = None) -> StageRequest:
    sets = load_problem_sets(data_request(recipe.data))
    source = resolve_model(str(warm.final))
    return StageRequest(recipe, sets, source, runs_dir, name=name, parent=warm, resume=resume)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder).state_dict())


def identical(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def metrics(run: Run) -> list[dict[str, Any]]:
    """Rows without what a clock says."""
    rows = read_jsonl(run.metrics_file)
    return [{key: value for key, value in row.items() if key != "time" and "seconds" not in key} for row in rows]


@pytest.fixture(scope="module")
def finished(recipe: Recipe, warm: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three updates, nobody interrupts."""
    run, outcome = rl_stage(request(recipe, warm, tmp_path_factory.mktemp("rl"), "rl"), SilentProgress())
    assert outcome.updates == 3
    return run


def test_updates_change_the_weights_and_both_models_load(finished: Run, warm: Run) -> None:
    before, after = weights(warm.final), weights(finished.final)
    assert all(not torch.equal(before[name], after[name]) for name in before if "proj" in name)
    assert weights(finished.best).keys() == after.keys()
    for folder in (finished.best, finished.final):
        assert AutoTokenizer.from_pretrained(folder).eos_token == "<eos>"


def test_metrics_have_the_contracts_keys_and_plausible_values(finished: Run) -> None:
    rows = [row for row in read_jsonl(finished.metrics_file) if "reward_mean" in row]
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row.keys() >= CONTRACT_KEYS
        assert 0 <= row["reward_mean"] <= 1
        assert row["eos_rate"] + row["truncated_rate"] == pytest.approx(1)
        assert row["ungradable"] == 0
        assert 0 < row["entropy"] < 7
        assert 0 < row["completion_length"] <= 84
        assert row["lr"] == pytest.approx(1e-3)
        assert row["grad_norm"] > 0
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-3), "the policy starts as the reference"
    assert abs(rows[2]["kl"]) > 1e-3


def test_the_seconds_of_the_phases_add_up(finished: Run) -> None:
    for row in (row for row in read_jsonl(finished.metrics_file) if "reward_mean" in row):
        phases = [row[f"seconds_{phase}"] for phase in ("rollout", "grading", "scoring", "update")]
        assert all(seconds > 0 for seconds in phases)
        assert sum(phases) == pytest.approx(row["seconds"])


def test_validation_rows_stand_at_the_start_on_the_schedule_and_at_the_end(finished: Run, recipe: Recipe) -> None:
    rows = [row for row in read_jsonl(finished.metrics_file) if "val_accuracy" in row]
    assert [(row["step"], row["val_n"]) for row in rows] == [(0, 8), (2, 8), (3, 8)]
    for row in rows:
        records = read_samples(finished.samples / f"validation-step-{row['step']}.jsonl")
        assert len(records) == 8
        assert {(r.decoding, r.split, r.step) for r in records} == {("greedy", "validation", row["step"])}
        assert row["val_accuracy"] == sum(r.verdict is Verdict.CORRECT for r in records) / 8


def test_the_best_model_is_the_one_of_the_best_validation(finished: Run) -> None:
    outcome = finished.record()["outcome"]
    rows = [row for row in read_jsonl(finished.metrics_file) if "val_accuracy" in row]
    best = max(rows, key=lambda row: row["val_accuracy"])
    assert (outcome["best_accuracy"], outcome["best_update"]) == (best["val_accuracy"], best["step"])
    assert outcome["final_accuracy"] == rows[-1]["val_accuracy"]
    assert outcome["tokens"] > 3 * 8 * 20


def test_rollouts_are_kept_with_their_rewards(finished: Run, recipe: Recipe) -> None:
    records = read_samples(finished.samples / "rollouts.jsonl")
    assert {record.step for record in records} == {1, 2, 3}
    table = recipe.rl.reward_table
    paid = {Verdict.CORRECT: table.correct, Verdict.WRONG: table.wrong, Verdict.NO_ANSWER: table.no_answer}
    for record in records:
        assert record.reward == paid[record.verdict]
        assert record.prompt.startswith("Question:\n")
        assert record.logprob is not None
        assert record.logprob < 0


def test_the_record_says_how_it_ended(finished: Run, warm: Run) -> None:
    record = finished.record()
    assert (record["stage"], record["status"], record["parent"]) == ("rl", "finished", warm.name)
    assert len(record["model"]["sha256"]) == 64


def test_interrupted_after_one_update_and_resumed_ends_at_the_same_bits(
    finished: Run, recipe: Recipe, warm: Run, runs_dir: Path, stop_after: Callable[..., Any]
) -> None:
    progress = stop_after("rl", 1)
    with pytest.raises(Interrupted, match="stopped after update 1 of 3; go on with --resume"):
        rl_stage(request(recipe, warm, runs_dir, "cut"), progress)
    run = Run(runs_dir / "cut")
    assert run.record()["status"] == "interrupted"
    assert [number for number, _ in run.step_folders()] == [1]
    assert progress.said, "the person is told that the work in hand is finished first"
    assert not run.final.exists()
    assert weights(run.checkpoints / "step-1" / "model").keys() == weights(warm.final).keys()

    again, outcome = rl_stage(request(recipe, warm, runs_dir, "cut", resume=run), SilentProgress())
    assert again.record()["status"] == "finished"
    assert identical(run.final, finished.final)
    assert identical(run.best, finished.best)
    assert metrics(run) == metrics(finished)
    assert (run.samples / "rollouts.jsonl").read_text() == (finished.samples / "rollouts.jsonl").read_text()
    assert vars_of(outcome) == finished.record()["outcome"]


def vars_of(outcome: Any) -> dict[str, Any]:
    return {name: getattr(outcome, name) for name in outcome.__slots__}


def test_resumed_after_a_crash_forgets_what_the_checkpoint_does_not_know(
    finished: Run, recipe: Recipe, warm: Run, runs_dir: Path, stop_after: Callable[..., Any]
) -> None:
    """As after kill -9: rows of a later update stand in the files, a checkpoint was being written."""
    with pytest.raises(Interrupted):
        rl_stage(request(recipe, warm, runs_dir, "cut"), stop_after("rl", 1))
    run = Run(runs_dir / "cut")
    for file in (run.metrics_file, run.samples / "rollouts.jsonl"):
        complete = file.read_text()
        file.write_text(
            complete + complete.splitlines()[-1].replace('"step": 1', '"step": 2') + "\n" + '{"step": 2, "k'
        )
    partial = run.checkpoints / ".step-2.123.partial" / "model"
    partial.mkdir(parents=True)
    rl_stage(request(recipe, warm, runs_dir, "cut", resume=run), SilentProgress())
    assert identical(run.final, finished.final)
    assert metrics(run) == metrics(finished)


def test_resuming_without_any_checkpoint_starts_again(
    finished: Run, recipe: Recipe, warm: Run, runs_dir: Path, stop_after: Callable[..., Any]
) -> None:
    with pytest.raises(Interrupted):
        rl_stage(request(recipe, warm, runs_dir, "cut"), stop_after("rl", 1))
    run = Run(runs_dir / "cut")
    shutil.rmtree(run.checkpoints)
    rl_stage(request(recipe, warm, runs_dir, "cut", resume=run), SilentProgress())
    assert identical(run.final, finished.final)
    assert metrics(run) == metrics(finished)


def test_a_checkpoint_that_cannot_be_read_is_one_line(
    recipe: Recipe, warm: Run, runs_dir: Path, stop_after: Callable[..., Any]
) -> None:
    with pytest.raises(Interrupted):
        rl_stage(request(recipe, warm, runs_dir, "cut"), stop_after("rl", 1))
    run = Run(runs_dir / "cut")
    state = run.checkpoints / "step-1" / "trainer_state.pt"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(RuntimeFailure, match=r"step-1 cannot be resumed from: .") as caught:
        rl_stage(request(recipe, warm, runs_dir, "cut", resume=run), SilentProgress())
    assert "\n" not in str(caught.value)


def test_checkpoints_are_kept_to_the_newest(recipe: Recipe, warm: Run, runs_dir: Path) -> None:
    small = changed(recipe, checkpoint_every=1, keep=2, validate_every=50)
    run, _ = rl_stage(request(small, warm, runs_dir, "kept"), SilentProgress())
    assert [number for number, _ in run.step_folders()] == [2, 3]
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-2", "step-3"]
    assert identical(run.checkpoints / "step-3" / "model", run.final)


class SomeUngradable:
    """A grader that cannot judge every n-th completion."""

    def __init__(self, every: int) -> None:
        self.spec = {"type": "test"}
        self._every = every

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Grade]:
        bad = Grade.of(Verdict.UNGRADABLE, why="the judge was away")
        return [bad if i % self._every == self._every - 1 else Grade.of(Verdict.CORRECT) for i in range(len(problems))]

    def same_answer(self, problem: Problem, a: str, b: str) -> bool:
        return a == b

    def close(self) -> None:
        return None


def test_more_than_5_percent_ungradable_ends_the_run_and_the_reasons_are_on_disk(
    recipe: Recipe, warm: Run, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reftcli.evaluation.experiment.grader_of", lambda recipe, sets: SomeUngradable(8))
    with pytest.raises(TrainingStopped, match=r"12% of the rollouts could not be graded .*rollouts\.jsonl"):
        rl_stage(request(recipe, warm, runs_dir, "stopped"), SilentProgress())
    run = Run(runs_dir / "stopped")
    assert run.record()["status"] == "failed"
    assert "could not be graded" in run.record()["error"]
    why = [r.why for r in read_samples(run.samples / "rollouts.jsonl") if r.verdict is Verdict.UNGRADABLE]
    assert why == ["the judge was away"]
    assert not run.final.exists()


def test_fewer_ungradable_ones_are_counted_and_left_out_of_the_means(
    recipe: Recipe, warm: Run, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reftcli.evaluation.experiment.grader_of", lambda recipe, sets: SomeUngradable(8))
    run, _ = rl_stage(
        request(changed(recipe, max_ungradable=0.2, updates=1), warm, runs_dir, "counted"), SilentProgress()
    )
    row = next(row for row in read_jsonl(run.metrics_file) if "reward_mean" in row)
    assert (row["ungradable"], row["reward_mean"], row["accuracy"]) == (0.125, 1.0, 1.0)


def test_a_batch_larger_than_the_problems_is_refused(recipe: Recipe, warm: Run, runs_dir: Path) -> None:
    with pytest.raises(DataError, match=r"96 training problems do not fill rl\.batch_size 97; lower it"):
        rl_stage(request(changed(recipe, batch_size=97, mini_batch_size=None), warm, runs_dir, "big"), SilentProgress())


def test_prompts_over_the_limit_are_left_out_and_listed(recipe: Recipe, warm: Run, runs_dir: Path) -> None:
    progress: Progress = SilentProgress()
    with pytest.raises(DataError, match="no training problem has a prompt of at most 5 tokens"):
        rl_stage(request(changed(recipe, max_prompt_tokens=5), warm, runs_dir, "short"), progress)
    dropped = read_jsonl(runs_dir / "short" / "dropped.jsonl")
    assert len(dropped) == 96
    assert all("limit 5" in row["reason"] for row in dropped)


def test_prompts_that_leave_no_room_in_the_models_context_are_left_out(
    recipe: Recipe, warm: Run, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reftcli.evaluation.experiment._context", lambda *_: 6)
    with pytest.raises(DataError, match="no training problem has a prompt of at most 5 tokens"):
        rl_stage(request(recipe, warm, runs_dir, "narrow"), SilentProgress())


# What a resumed run begins with.


def test_other_problems_than_it_began_with_are_refused(
    recipe: Recipe, warm: Run, runs_dir: Path, stop_after: Callable[..., Any]
) -> None:
    with pytest.raises(Interrupted):
        rl_stage(request(recipe, warm, runs_dir, "cut"), stop_after("rl", 1))
    run = Run(runs_dir / "cut")
    asked = request(recipe, warm, runs_dir, "cut", resume=run)
    other = load_problem_sets(dataclasses.replace(data_request(recipe.data), split_seed=7))
    with pytest.raises(UsageError, match="began with other train problems than toy gives now"):
        rl_stage(dataclasses.replace(asked, sets=other), SilentProgress())
    rl_stage(asked, SilentProgress())


def test_other_weights_than_it_began_with_are_refused(
    recipe: Recipe, warm: Run, runs_dir: Path, stop_after: Callable[..., Any]
) -> None:
    """They are the reference: the price of KL would be counted from another model."""
    own = Run(shutil.copytree(warm.folder, runs_dir / "own"))
    with pytest.raises(Interrupted):
        rl_stage(request(recipe, own, runs_dir, "cut"), stop_after("rl", 1))
    file = own.final / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(UsageError, match="began with other weights"):
        rl_stage(request(recipe, own, runs_dir, "cut", resume=Run(runs_dir / "cut")), SilentProgress())


# Early stop.


def eighths(right: int) -> list[bool]:
    return [place < right for place in range(8)]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validations find these accuracies, one after another: the best is that of update 1, a tie is no progress."""
    found = iter([2, 4, 3, 4, 6, 6])
    monkeypatch.setattr("reftcli.training.ppo.trainer.right_answers", lambda records: eighths(next(found)))


@pytest.mark.usefixtures("scripted")
def test_without_a_better_validation_the_stage_ends_early_and_cleanly(
    recipe: Recipe, warm: Run, runs_dir: Path, stop_after: Callable[..., Any]
) -> None:
    patient = changed(recipe, updates=5, validate_every=1, checkpoint_every=1, patience=2)
    with pytest.raises(Interrupted, match="stopped after update 2 of 5"):
        rl_stage(request(patient, warm, runs_dir, "early"), stop_after("rl", 2))
    run, said = Run(runs_dir / "early"), stop_after("nothing", 0)
    _, outcome = rl_stage(request(patient, warm, runs_dir, "early", resume=run), said)
    assert (outcome.updates, outcome.best_update, outcome.ended_by) == (3, 1, "patience")
    assert (outcome.best_accuracy, outcome.final_accuracy) == (0.5, 0.5)
    assert [line for line in said.said if not line.startswith("warning")] == [
        "ended early after update 3 of 5: validation accuracy has not risen above the 0.500 of update 1 in 2 "
        "validations (rl.patience)",
        "best/ is update 1, but its validation accuracy 0.500 is no evidence of a gain over the start's 0.250 (McNemar p "
        "1 over 5 validations of 8 problems): more validation problems would tell",
    ]
    record = run.record()
    assert (record["status"], record["outcome"]["ended_by"]) == ("finished", "patience")
    assert identical(run.final, run.checkpoints / "step-3" / "model")

    # As after a crash between the last checkpoint and the final model: nothing more is trained.
    shutil.rmtree(run.final)
    again = rl_stage(request(patient, warm, runs_dir, "early", resume=run), said)[1]
    assert again == outcome
    assert identical(run.final, run.checkpoints / "step-3" / "model")


def test_a_run_that_makes_all_updates_says_so(finished: Run) -> None:
    assert finished.record()["outcome"]["ended_by"] == "updates"


# Warnings.


def test_a_warning_is_said_once_and_kept_and_a_resumed_run_knows_the_updates_before(
    recipe: Recipe, warm: Run, runs_dir: Path, stop_after: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reftcli.evaluation.experiment.grader_of", lambda recipe, sets: SomeUngradable(1000))
    longer = changed(recipe, updates=4)
    with pytest.raises(Interrupted):
        rl_stage(request(longer, warm, runs_dir, "equal"), stop_after("rl", 2))
    run, progress = Run(runs_dir / "equal"), stop_after("nothing", 0)
    rl_stage(request(longer, warm, runs_dir, "equal", resume=run), progress)
    (said,) = [line for line in progress.said if "all rewards" in line]
    assert said.startswith("warning: update 3: all rewards of an update were equal, 3 updates in a row")
    assert said.endswith("every answer is right, so stop here or take harder problems")
    (row,) = [row for row in read_jsonl(run.metrics_file) if row.get("warning") == "no_signal"]
    assert row["step"] == 3
    assert row["message"] in said


# Trackers.


def test_metrics_go_to_the_trackers_and_a_resumed_run_goes_on_with_the_same(
    recipe: Recipe, warm: Run, runs_dir: Path, stop_after: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[dict[str, Any]] = []
    logged: list[tuple[int, dict[str, float]]] = []
    ends: list[int] = []

    def init(**given: Any) -> Any:
        opened.append(given)
        return SimpleNamespace(
            step=0,
            offline=False,
            url="https://wandb.test/run",
            log=lambda row, step: logged.append((step, row)),
            finish=lambda *, exit_code: ends.append(exit_code),
        )

    wandb = ModuleType("wandb")
    vars(wandb).update(init=init, Settings=dict)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    tracked = recipe.model_copy(update={"report_to": "wandb"})
    progress = stop_after("rl", 1)
    with pytest.raises(Interrupted):
        rl_stage(request(tracked, warm, runs_dir, "tracked"), progress)
    assert "metrics also go to wandb: https://wandb.test/run" in progress.said
    run = Run(runs_dir / "tracked")
    rl_stage(request(tracked, warm, runs_dir, "tracked", resume=run), SilentProgress())
    first, second = opened
    assert first["id"] == second["id"] == run.record()["trackers"]["wandb"]
    assert (first["name"], first["resume"], first["config"]["rl"]["updates"]) == ("tracked", "allow", 3)
    assert ends == [1, 0]
    rows = read_jsonl(run.metrics_file)
    updates = [(row["step"], row["kl"]) for row in rows if "reward_mean" in row]
    assert [(step, row["rl/kl"]) for step, row in logged if "rl/kl" in row] == updates
    validations = [(row["step"], row["val_accuracy"]) for row in rows if "val_accuracy" in row]
    assert [(step, row["val/accuracy"]) for step, row in logged if "val/accuracy" in row] == validations
