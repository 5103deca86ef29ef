from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from reftcli.errors import DataError, Interrupted
from reftcli.evaluation.data import data_request
from reftcli.evaluation.experiment import chosen
from reftcli.evaluation.samples import read_samples
from reftcli.models.load import load_model
from reftcli.models.source import resolve_model
from reftcli.problems.load import load_problem_sets
from reftcli.problems.prompts import Example, PromptBuilder, training_examples
from reftcli.recipe.schema import ModelSettings, Recipe, WarmupSettings
from reftcli.runs.files import read_jsonl
from reftcli.runs.folder import Run, create_run
from reftcli.runs.progress import Progress, SilentProgress
from reftcli.runs.trackers import Trackers
from reftcli.training.stages import StageRequest, warmup_stage
from reftcli.training.warmup import run_warmup

SHORT = WarmupSettings(schedule_epochs=2, stop_epoch=None, learning_rate=1e-3, batch_size=4, lr_warmup=0.25)


@pytest.fixture(scope="module")
def examples(recipe: Recipe) -> list[Example]:
    loaded = load_model(resolve_model("tiny"))
    builder = PromptBuilder(loaded.tokenizer, "ncot", "paper", loaded.eos_token_id)
    train = load_problem_sets(data_request(recipe.data)).train
    return training_examples(builder, chosen(train, 12, 0), 1024)[0]


def train(
    examples: list[Example],
    folder: Path,
    settings: WarmupSettings = SHORT,
    progress: Progress | None = None,
    resume: Run | None = None,
    trackers: Trackers | None = None,
) -> Run:
    run = resume or create_run(folder, stage="warmup", name="w", recipe_yaml="", record={})
    run_warmup(
        run,
        load_model(resolve_model("tiny")),
        examples,
        lambda step: [],
        settings,
        ModelSettings(),
        seed=0,
        progress=progress or SilentProgress(),
        resume=resume is not None,
        trackers=trackers,
    )
    return run


def steps(run: Run) -> list[dict[str, Any]]:
    return [row for row in read_jsonl(run.metrics_file) if "loss" in row]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder).state_dict())


def identical(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return all(torch.equal(first[name], second[name]) for name in first)


def target_losses(examples: list[Example]) -> list[float]:
    """Cross-entropy of the untrained model at each target token, EOS included, and at no token of the prompt."""
    model = load_model(resolve_model("tiny")).model.eval()
    losses = []
    for example in examples:
        ids = [*example.prompt.token_ids, *example.target_ids]
        with torch.no_grad():
            logp = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0], dim=-1)
        start = len(example.prompt.token_ids)
        losses += [-float(logp[t - 1, ids[t]]) for t in range(start, len(ids))]
    return losses


@pytest.mark.parametrize("micro", [None, 3])
def test_the_loss_is_that_of_the_target_tokens_and_eos_alone(
    examples: list[Example], tmp_path: Path, micro: int | None
) -> None:
    """One step over all examples, so the first loss that is logged is that of the untrained model."""
    settings = SHORT.model_copy(update={"batch_size": 12, "schedule_epochs": 1, "micro_batch_size": micro})
    run = train(examples, tmp_path, settings)
    expected = target_losses(examples)
    assert steps(run)[0]["loss"] == pytest.approx(sum(expected) / len(expected), abs=2e-4)


def test_labels_hide_the_prompt_and_show_the_eos(examples: list[Example]) -> None:
    from reftcli.training.warmup import _dataset

    rows = _dataset(examples)
    assert len(rows) == 12
    for row, example in zip(rows, examples, strict=True):
        n = len(example.prompt.token_ids)
        assert row["input_ids"] == [*example.prompt.token_ids, *example.target_ids]
        assert row["labels"] == [-100] * n + list(example.target_ids)
        assert row["labels"][-1] == 2


def test_the_learning_rate_rises_then_falls_to_the_end_of_the_schedule(examples: list[Example], tmp_path: Path) -> None:
    run = train(examples, tmp_path, SHORT.model_copy(update={"schedule_epochs": 4}))
    rates = [row["lr"] for row in steps(run)]
    assert len(rates) == 12
    # 3 steps of lr_warmup (a quarter of 12), then a straight line that would be 0 one step after the last.
    expected = [1e-3 * (s / 3 if s < 3 else (12 - s) / 9) for s in range(12)]
    assert rates == pytest.approx(expected, abs=1e-12)


def test_an_early_stop_cuts_the_schedule_and_does_not_shorten_it(examples: list[Example], tmp_path: Path) -> None:
    whole = train(examples, tmp_path / "whole", SHORT.model_copy(update={"schedule_epochs": 4}))
    cut = train(examples, tmp_path / "cut", SHORT.model_copy(update={"schedule_epochs": 4, "stop_epoch": 2}))
    first, second = steps(whole), steps(cut)
    assert [row["step"] for row in second] == list(range(1, 7))
    assert [row["lr"] for row in second] == [row["lr"] for row in first[:6]]
    assert [row["loss"] for row in second] == [row["loss"] for row in first[:6]]


def test_both_folders_hold_the_trained_model_and_validation_is_recorded(warm: Run) -> None:
    assert identical(warm.final, warm.best)
    start = load_model(resolve_model("tiny")).model.state_dict()
    assert not any(torch.equal(value, start[name]) for name, value in weights(warm.final).items() if "proj" in name)
    rows = read_jsonl(warm.metrics_file)
    last = rows[-1]
    assert (last["step"], last["val_n"]) == (60, 8)
    records = read_samples(warm.samples / "validation-step-60.jsonl")
    assert last["val_accuracy"] == sum(r.verdict == "correct" for r in records) / 8
    assert last["val_no_answer"] == sum(r.verdict == "no_answer" for r in records) / 8
    assert last["val_no_answer"] <= 0.5, "after 60 steps answers have their form"
    assert sum(row["loss"] for row in rows[50:60]) < 0.25 * sum(row["loss"] for row in rows[:10])


def test_interrupted_and_resumed_ends_at_the_same_bits(
    examples: list[Example], tmp_path: Path, stop_after: Callable[..., Any]
) -> None:
    straight = train(examples, tmp_path / "straight")
    with pytest.raises(Interrupted, match="stopped after step 2 of 6; go on with --resume"):
        train(examples, tmp_path / "cut", progress=stop_after("warm-up", 2))
    run = Run(tmp_path / "cut" / "w")
    assert not run.final.exists()
    train(examples, tmp_path / "cut", resume=run)
    assert identical(run.final, straight.final)
    without_clock = [[(row["step"], row["loss"], row["lr"]) for row in steps(r)] for r in (run, straight)]
    assert without_clock[0] == without_clock[1]


def test_resumed_when_every_step_is_done_trains_no_further(
    examples: list[Example], tmp_path: Path, stop_after: Callable[..., Any]
) -> None:
    """As after a crash between the last checkpoint and the final model; the schedule would have gone on."""
    settings = SHORT.model_copy(update={"schedule_epochs": 4, "stop_epoch": 2})
    straight = train(examples, tmp_path / "straight", settings)
    expected = tmp_path / "expected"
    shutil.copytree(straight.final, expected)
    for folder in (straight.final, straight.best):
        folder.unlink() if folder.is_symlink() else shutil.rmtree(folder)
    train(examples, tmp_path, settings, resume=straight)
    assert identical(straight.final, expected)
    assert [row["step"] for row in steps(straight)] == list(range(1, 7))


def test_no_example_left_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training example is left"):
        train([], tmp_path)


def test_examples_over_the_limit_are_counted_and_listed(recipe: Recipe, tmp_path: Path, stop_after: Any) -> None:
    """Questions of three steps are longer than those of one."""
    data = recipe.data.model_copy(update={"level": None, "train_size": 30})
    sets = load_problem_sets(data_request(data))
    source = resolve_model("tiny")
    loaded = load_model(source)
    builder = PromptBuilder(loaded.tokenizer, "ncot", "paper", loaded.eos_token_id)
    found = training_examples(builder, sets.train, 1024)[0]
    lengths = sorted(len(e.prompt.token_ids) + len(e.target_ids) for e in found)
    limit = lengths[14]
    settings = SHORT.model_copy(update={"max_length": limit, "schedule_epochs": 0.5})
    small = recipe.model_copy(update={"data": data, "warmup": settings})
    progress = stop_after("nothing", 0)
    run, outcome = warmup_stage(StageRequest(small, sets, source, tmp_path, name="w"), progress)
    kept = sum(length <= limit for length in lengths)
    assert outcome.steps == round(0.5 * math.ceil(kept / 4))
    rows = read_jsonl(run.folder / "dropped.jsonl")
    assert len(rows) == 30 - kept > 0
    assert all(f"limit {limit}" in row["reason"] for row in rows)
    assert any(f"{30 - kept} of 30 training problems left out" in line for line in progress.said)


class Kept(Trackers):
    """Keeps the rows that it is given."""

    def __init__(self) -> None:
        super().__init__("warmup", lambda line: None)
        self.rows: list[dict[str, Any]] = []

    def log(self, row: Any) -> None:
        self.rows.append(dict(row))


def test_trackers_are_given_what_the_file_has(examples: list[Example], tmp_path: Path) -> None:
    trackers = Kept()
    run = train(examples, tmp_path, SHORT.model_copy(update={"schedule_epochs": 1}), trackers=trackers)
    assert trackers.rows == read_jsonl(run.metrics_file)
    assert [row["step"] for row in trackers.rows] == [1, 2, 3, 3]
