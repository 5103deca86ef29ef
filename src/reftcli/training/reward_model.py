"""Trains the reward model: a binary classifier of completions, with cross-entropy on graded samples."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from reftcli.errors import DataError, Interrupted
from reftcli.evaluation.reward_scores import CORRECT_CLASS
from reftcli.evaluation.samples import SampleRecord
from reftcli.grading.interface import Verdict
from reftcli.models.load import default_device
from reftcli.models.precision import autocast_for, device_arguments, uses_bf16
from reftcli.models.verifier import Classifier, LikelihoodClassifier, encode, padded
from reftcli.recipe.batches import micro_batches, whole_batches
from reftcli.recipe.schema import ModelSettings, RerankSettings
from reftcli.runs.interrupts import StopRequest, stop_on_signal
from reftcli.runs.progress import Progress, Task
from reftcli.runs.ranks import ALONE, Ranks
from reftcli.training.engines import Engine, engine_of

_FIT_ON = 10_000
"""Samples that the three numbers of a likelihood's head are fitted on, at most."""

_STOPPED = (
    "stopped while the reward model was trained; its samples are kept, of the reward model nothing: "
    "`reft rerank --resume` goes on"
)


@dataclass(frozen=True, slots=True)
class LabelledCompletion:
    """Prompt and completion as text, and whether the grader called it correct."""

    item_id: str
    prompt: str
    completion: str
    correct: bool


def labelled(records: Sequence[SampleRecord]) -> list[LabelledCompletion]:
    """Graded samples without repeats of the same text for the same problem; ungradable ones are left out."""
    seen: set[tuple[str, str]] = set()
    rows = []
    for record in records:
        key = (record.item_id, record.completion)
        if key in seen or record.verdict is Verdict.UNGRADABLE:
            continue
        seen.add(key)
        correct = record.verdict is Verdict.CORRECT
        rows.append(LabelledCompletion(record.item_id, record.prompt, record.completion, correct))
    return rows


def share_correct(rows: Sequence[LabelledCompletion]) -> float:
    """The class balance: share of rows labelled correct, 0 to 1."""
    return sum(row.correct for row in rows) / max(len(rows), 1)


def train_reward_model(
    model: Classifier,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[LabelledCompletion],
    settings: RerankSettings,
    model_settings: ModelSettings,
    seed: int,
    folder: Path,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> Engine | None:
    """Trains in place; returns what holds the weights now, None where that is the model itself as it was.

    Raises:
        DataError: all rows have the same label, or none is within the length limit.
    """
    share = share_correct(rows)
    if not 0 < share < 1:
        raise DataError(
            f"{len(rows)} distinct samples, share correct {share:.2f}: a reward model needs right and wrong ones "
            "(raise rerank.samples_per_problem, or train the warm-up differently)"
        )
    kept = _within_limit(tokenizer, rows, settings.max_length)
    weights = class_weights([row["labels"] == CORRECT_CLASS for row in kept], settings.class_weights == "balanced")
    if isinstance(model, LikelihoodClassifier):
        _fit_likelihood(model, kept, weights, settings, model_settings, seed, progress)
    if settings.trained == "head":
        if isinstance(model, LikelihoodClassifier):
            model.eval()
            return None
        model.base_model.requires_grad_(False)
    engine = _train_by_steps(model, tokenizer, kept, weights, settings, model_settings, seed, folder, progress, ranks)
    model.eval()
    return engine


def _train_by_steps(
    model: Classifier,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    weights: tuple[float, float],
    settings: RerankSettings,
    model_settings: ModelSettings,
    seed: int,
    folder: Path,
    progress: Progress,
    ranks: Ranks,
) -> Engine:
    sizes = micro_batches(settings.batch_size, settings.micro_batch_size, ranks.count)
    steps = max(1, round(settings.epochs * math.ceil(len(rows) / settings.batch_size)))
    with progress.task("reward model", steps, "step") as task, stop_on_signal(progress.say) as stop:
        trainer = Trainer(
            model=model,
            args=_arguments(folder, settings, model_settings, seed, steps, sizes),
            train_dataset=Dataset.from_list([dict(row) for row in whole_batches(rows, settings.batch_size)]),
            data_collator=lambda batch: padded(batch, _pad_token_id(tokenizer)),
            compute_loss_func=_loss(weights, task),
            callbacks=[advance := _Advance(task, stop, ranks)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        if advance.stopping:
            raise Interrupted(_STOPPED)
        return engine_of(trainer.accelerator, trainer.model_wrapped, trainer.optimizer)


def class_weights(correct: Sequence[bool], balanced: bool) -> tuple[float, float]:
    """Weights of (not correct, correct) samples in the loss.

    balanced: w_c = m / (2 m_c), so both classes weigh the same in all and a sample weighs 1 on average
    """
    right = sum(correct)
    wrong = len(correct) - right
    if not balanced or 0 in (right, wrong):
        return 1.0, 1.0
    return len(correct) / (2 * wrong), len(correct) / (2 * right)


def _loss(weights: tuple[float, float], task: Task) -> Callable[..., Tensor]:
    """sum_i w_{y_i} CE_i / m, m over all micro-batches of the step. ``outputs.logits``: [B, 2], ``labels``: [B]."""

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        logits = outputs.logits.float()
        each = cross_entropy(logits, labels, logits.new_tensor(weights), reduction="none")
        task.show({"loss": float(each.detach().mean())})
        return each.sum() / (labels.numel() if num_items_in_batch is None else num_items_in_batch)

    return loss


def _fit_likelihood(
    model: LikelihoodClassifier,
    rows: Sequence[Mapping[str, Any]],
    weights: tuple[float, float],
    settings: RerankSettings,
    model_settings: ModelSettings,
    seed: int,
    progress: Progress,
) -> None:
    """The head that explains the labels best, with the model's weights as they are."""
    some = random.Random(seed).sample(range(len(rows)), min(_FIT_ON, len(rows)))
    some.sort(key=lambda i: len(rows[i]["input_ids"]))
    size = settings.micro_batch_size or settings.batch_size
    autocast = autocast_for(model_settings.precision, model.device)
    found = []
    model.eval()
    with progress.task("likelihoods", len(some), "completion") as task, stop_on_signal(progress.say) as stop:
        for start in range(0, len(some), size):
            batch = padded([rows[i] for i in some[start : start + size]], 0)  # the mask says what is padding
            batch.pop("labels")
            with torch.no_grad(), autocast():
                found.append(model.evidence(**{name: tensor.to(model.device) for name, tensor in batch.items()}))
            task.advance(len(some[start : start + size]))
            if stop:
                raise Interrupted(_STOPPED)
    correct = torch.tensor([rows[i]["labels"] == CORRECT_CLASS for i in some], device=model.device)
    model.fit(torch.cat(found).float(), correct, torch.tensor(weights))


def _arguments(
    folder: Path, settings: RerankSettings, model_settings: ModelSettings, seed: int, steps: int, sizes: tuple[int, int]
) -> TrainingArguments:
    device, (micro, accumulated) = default_device(), sizes
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulated,
        max_steps=steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(settings.lr_warmup * steps),
        weight_decay=settings.weight_decay,
        bf16=uses_bf16(model_settings.precision, device),
        gradient_checkpointing=model_settings.gradient_checkpointing,
        ddp_find_unused_parameters=False,
        **device_arguments(),
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
    )


def _within_limit(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[LabelledCompletion], max_length: int
) -> list[dict[str, Any]]:
    """``input_ids``, ``prompt_tokens`` and ``labels`` of the rows of at most so many tokens."""
    encoded = encode(tokenizer, [(row.prompt, row.completion) for row in rows])
    kept = [
        {
            "input_ids": list(each.input_ids),
            "prompt_tokens": each.prompt_tokens,
            "labels": CORRECT_CLASS if row.correct else 0,
        }
        for each, row in zip(encoded, rows, strict=True)
        if len(each.input_ids) <= max_length
    ]
    if not kept:
        raise DataError(f"no sample has at most rerank.max_length {max_length} tokens")
    return kept


def _pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)


def held_out(
    rows: Sequence[LabelledCompletion], share: float, seed: int
) -> tuple[list[LabelledCompletion], list[LabelledCompletion]]:
    """(training, held-out) rows, split by problem so that no question is on both sides."""
    items = sorted({row.item_id for row in rows})
    random.Random(seed).shuffle(items)
    kept_out = set(items[: max(1, round(share * len(items)))])
    return [row for row in rows if row.item_id not in kept_out], [row for row in rows if row.item_id in kept_out]


class _Advance(TrainerCallback):  # type: ignore[misc]
    """Moves the bar, and ends the training on request."""

    def __init__(self, task: Task, stop: StopRequest, ranks: Ranks) -> None:
        self.stopping = False
        self._task, self._stop, self._ranks = task, stop, ranks

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._task.advance()
        self.stopping = any(self._ranks.gather(bool(self._stop)))  # one process was asked: all of them stop here
        if self.stopping:
            control.should_training_stop = True
