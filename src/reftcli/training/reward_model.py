"""Trains the reward model: a binary classifier of completions, with cross-entropy on graded samples."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
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
from reftcli.models.precision import uses_bf16
from reftcli.recipe.schema import ModelSettings, RerankSettings
from reftcli.runs.interrupts import StopRequest, stop_on_signal
from reftcli.runs.progress import Progress, Task


@dataclass(frozen=True, slots=True)
class LabelledCompletion:
    """Prompt and completion as text, and whether the grader called it correct."""

    item_id: str
    text: str
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
        rows.append(
            LabelledCompletion(record.item_id, record.prompt + record.completion, record.verdict is Verdict.CORRECT)
        )
    return rows


def train_reward_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[LabelledCompletion],
    settings: RerankSettings,
    model_settings: ModelSettings,
    seed: int,
    folder: Path,
    progress: Progress,
) -> None:
    """Trains in place.

    Raises:
        DataError: all rows have the same label, or none is within the length limit.
    """
    share = sum(row.correct for row in rows) / max(len(rows), 1)
    if not 0 < share < 1:
        raise DataError(
            f"{len(rows)} distinct samples, share correct {share:.2f}: a reward model needs right and wrong ones "
            "(raise rerank.samples_per_problem, or train the warm-up differently)"
        )
    dataset = _dataset(tokenizer, rows, settings.max_length)
    micro = min(settings.micro_batch_size or settings.batch_size, settings.batch_size)
    steps = max(1, round(settings.epochs * math.ceil(len(dataset) / settings.batch_size)))
    with progress.task("reward model", steps, "step") as task, stop_on_signal(progress.say) as stop:
        trainer = Trainer(
            model=model,
            args=_arguments(folder, settings, model_settings, seed, steps, micro),
            train_dataset=dataset,
            data_collator=DataCollatorWithPadding(tokenizer),
            callbacks=[_Advance(task, stop)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        if stop:
            raise Interrupted("stopped while the reward model was trained; nothing of it is kept")
    model.eval()


def _arguments(
    folder: Path, settings: RerankSettings, model_settings: ModelSettings, seed: int, steps: int, micro: int
) -> TrainingArguments:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=math.ceil(settings.batch_size / micro),
        max_steps=steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(settings.lr_warmup * steps),
        weight_decay=settings.weight_decay,
        bf16=uses_bf16(model_settings.precision, device),
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type != "cpu",
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
    )


def _dataset(tokenizer: PreTrainedTokenizerBase, rows: Sequence[LabelledCompletion], max_length: int) -> Dataset:
    """Tokens and labels of the rows within the limit. The classifier reads the last token, so padding side is free."""
    encoded = [
        (tokenizer(row.text, add_special_tokens=False)["input_ids"], CORRECT_CLASS if row.correct else 0)
        for row in rows
    ]
    kept = [(ids, label) for ids, label in encoded if len(ids) <= max_length]
    if not kept:
        raise DataError(f"no sample has at most rerank.max_length {max_length} tokens")
    return Dataset.from_dict({"input_ids": [ids for ids, _ in kept], "labels": [label for _, label in kept]})


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

    def __init__(self, task: Task, stop: StopRequest) -> None:
        self._task, self._stop = task, stop

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._task.advance()
        if self._stop:
            control.should_training_stop = True
