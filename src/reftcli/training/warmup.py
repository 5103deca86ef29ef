"""The warm-up: SFT on (question, chain of thought) with TRL's SFTTrainer."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer

from reftcli.errors import DataError, Interrupted
from reftcli.evaluation.answering import accuracy, share_of
from reftcli.evaluation.samples import SampleRecord
from reftcli.grading.interface import Verdict
from reftcli.models.load import LoadedModel, default_device
from reftcli.models.precision import device_arguments, uses_bf16
from reftcli.problems.prompts import Example
from reftcli.recipe.batches import micro_batches, whole_batches
from reftcli.recipe.schema import ModelSettings, WarmupSettings
from reftcli.runs.files import disk_errors, drop_rows_after
from reftcli.runs.folder import Run
from reftcli.runs.interrupts import StopRequest, stop_on_signal
from reftcli.runs.progress import Progress, Task
from reftcli.runs.ranks import ALONE, Ranks
from reftcli.runs.trackers import MetricsLog, Trackers
from reftcli.training.engines import engine_identity, engine_of
from reftcli.training.saving import save_model_of_all
from reftcli.training.sft_checkpoints import adopt_checkpoint, latest_as_trainer_wants, working_folder

_IGNORED = -100
"""Label of tokens that are not in the loss (PyTorch's cross-entropy)."""


@dataclass(frozen=True, slots=True)
class WarmupOutcome:
    """How a warm-up ended. ``tokens`` counts every token of every example that passed through the model."""

    steps: int
    tokens: int
    accuracy: float
    no_answer: float


def run_warmup(
    run: Run,
    loaded: LoadedModel,
    examples: Sequence[Example],
    validate: Callable[[int], list[SampleRecord]],
    settings: WarmupSettings,
    model_settings: ModelSettings,
    seed: int,
    progress: Progress,
    resume: bool = False,
    trackers: Trackers | None = None,
    ranks: Ranks = ALONE,
) -> WarmupOutcome:
    """Trains in place; writes ``final/``, ``best/`` (the same model: the stop is a setting), checkpoints and metrics.

    Raises:
        DataError: no example is left.
        Interrupted: somebody asked to stop; a checkpoint was written.
    """
    if not examples:
        raise DataError("no training example is left; `reft data check` lists why rows are dropped")
    steps_per_epoch = math.ceil(len(examples) / settings.batch_size)
    last_step = max(1, round(settings.epochs * steps_per_epoch))
    steps = run.step_folders() if resume else []
    if ranks.is_main:
        drop_rows_after(run.metrics_file, steps[-1][0] if steps else -1)
    with (
        MetricsLog(run, trackers) as metrics,
        stop_on_signal(progress.say) as stop,
        progress.task("warm-up", last_step, "step") as task,
    ):
        watcher = _Watcher(run, last_step, metrics, task, stop, ranks)
        trainer = SFTTrainer(
            model=loaded.model,
            args=_sft_config(working_folder(run), settings, model_settings, seed, steps_per_epoch, ranks.count),
            train_dataset=_dataset(whole_batches(examples, settings.batch_size)),
            processing_class=loaded.tokenizer,
            callbacks=[watcher],
        )
        trainer.remove_callback(PrinterCallback)
        if steps and steps[-1][0] >= last_step:
            # Trainer asks its callbacks only after a step, so it would take one too many.
            watcher.step, folder = steps[-1]
            saved = type(loaded.model).from_pretrained(folder / "model", dtype=torch.float32)
            loaded.model.load_state_dict(saved.state_dict())
            loaded.model.to(trainer.args.device)  # training would have moved it there
            task.advance(last_step)
        else:
            with (
                disk_errors(run.checkpoints),
                latest_as_trainer_wants(run, ranks) if resume else nullcontext() as checkpoint,
            ):
                trainer.train(resume_from_checkpoint=checkpoint)
        if watcher.stopping and watcher.step < last_step:
            raise Interrupted(f"stopped after step {watcher.step} of {last_step}; go on with --resume")
        loaded.model.eval()
        engine = engine_of(trainer.accelerator, trainer.model_wrapped, trainer.optimizer)
        with engine.whole_weights():
            ranks.is_at("validation")
            records = validate(watcher.step)
        row = {"val_accuracy": accuracy(records), "val_no_answer": share_of(Verdict.NO_ANSWER, records)}
        metrics.write({"step": watcher.step, "time": time.time(), **row, "val_n": len(records)})
    save_model_of_all(run.final, loaded.model, loaded.tokenizer, engine, ranks)
    if ranks.is_main:
        if not run.best.exists():
            run.best.symlink_to(run.final.name)  # one validation, so the last weights are the best ones
        shutil.rmtree(working_folder(run), ignore_errors=True)
    tokens = round(sum(len(e.prompt.token_ids) + len(e.target_ids) for e in examples) * settings.epochs)
    return WarmupOutcome(watcher.step, tokens, row["val_accuracy"], row["val_no_answer"])


def _dataset(examples: Sequence[Example]) -> Dataset:
    """Ready tokens and labels, so that the prompt's tokens are those of RL; the loss sees target and EOS only."""
    return Dataset.from_dict(
        {
            "input_ids": [[*e.prompt.token_ids, *e.target_ids] for e in examples],
            "labels": [[_IGNORED] * len(e.prompt.token_ids) + list(e.target_ids) for e in examples],
        }
    )


def _sft_config(
    folder: Path,
    settings: WarmupSettings,
    model_settings: ModelSettings,
    seed: int,
    steps_per_epoch: int,
    processes: int,
) -> SFTConfig:
    micro, accumulated = micro_batches(settings.batch_size, settings.micro_batch_size, processes)
    device = default_device()
    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulated,
        num_train_epochs=settings.schedule_epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_schedule,
        # A share is turned into steps here: transformers 5 dropped the ratio.
        warmup_steps=round(settings.lr_warmup * settings.schedule_epochs * steps_per_epoch),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        max_length=None,
        bf16=uses_bf16(model_settings.precision, device),
        gradient_checkpointing=model_settings.gradient_checkpointing,
        ddp_find_unused_parameters=False,
        **device_arguments(),
        logging_strategy="steps",
        logging_steps=1,
        save_strategy="steps",
        save_steps=max(1, steps_per_epoch // settings.checkpoints_per_epoch),
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
    )


class _Watcher(TrainerCallback):  # type: ignore[misc]
    """Stops at the last step (the schedule may be longer), saves on request, writes metrics and moves the bar."""

    def __init__(
        self, run: Run, last_step: int, metrics: MetricsLog, task: Task, stop: StopRequest, ranks: Ranks
    ) -> None:
        self.step = 0
        self.stopping = False
        self._run, self._ranks = run, ranks
        self._last_step, self._metrics, self._task, self._stop = last_step, metrics, task, stop
        self._started = time.perf_counter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.step = state.global_step
        self._task.advance(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.step = state.global_step
        self._task.advance()
        self._ranks.is_at(f"step {self.step + 1}")
        self.stopping = any(self._ranks.gather(bool(self._stop)))  # one process was asked: all of them stop here
        if self.stopping:
            control.should_save = True
        if self.stopping or self.step >= self._last_step:
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._ranks.gather(None)  # everybody's part is written
        if self._ranks.is_main:
            adopt_checkpoint(self._run, state.global_step, keep=1, engine=engine_identity(self._ranks.count))
        self._ranks.gather(None)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        now = time.perf_counter()
        row = {"loss": logs["loss"], "lr": logs.get("learning_rate"), "grad_norm": logs.get("grad_norm")}
        self._metrics.write({"step": state.global_step, "time": time.time(), **row, "seconds": now - self._started})
        self._started = now
        self._task.show({"loss": logs["loss"]})
