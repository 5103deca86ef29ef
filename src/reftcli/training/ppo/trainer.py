"""ReFT's PPO on TRL's PPOTrainer: graders that see the whole row, validation, best checkpoint, resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from reftcli.errors import DataError, Interrupted, TrainingStopped
from reftcli.evaluation.answering import share_of
from reftcli.evaluation.samples import SampleRecord
from reftcli.grading.interface import Grader, Verdict
from reftcli.models.load import LoadedModel
from reftcli.models.precision import autocast_for
from reftcli.problems.prompts import Prompt, PromptBuilder
from reftcli.recipe.schema import ModelSettings, RlSettings
from reftcli.rewards.shaping import shape_reward
from reftcli.runs.files import JsonlWriter, drop_rows_after, read_jsonl
from reftcli.runs.folder import Run
from reftcli.runs.interrupts import StopRequest, stop_on_signal
from reftcli.runs.progress import Progress
from reftcli.runs.ranks import ALONE, Ranks
from reftcli.runs.trackers import MetricsLog, Trackers
from reftcli.sampling.interface import Completion, Decode, Sampler
from reftcli.sampling.torch_sampler import TorchSampler
from reftcli.training.engines import Engine, beyond_bf16, engine_of, set_masters
from reftcli.training.ppo.best import (
    doubt_about_best,
    patience_spent,
    right_answers,
    share_right,
    take_if_best,
    validations_of,
)
from reftcli.training.ppo.checkpoint import RlState, Trained, restore_checkpoint, save_checkpoint
from reftcli.training.ppo.config import ppo_config
from reftcli.training.ppo.phases import PhaseClock
from reftcli.training.ppo.policy import (
    ReferenceModel,
    SeparateValueModel,
    check_backbone_and_head,
    new_value_model,
    turn_off_dropout,
)
from reftcli.training.ppo.rollout import Rollout, RolloutBatch
from reftcli.training.ppo.row import rollout_metrics, stop_if_wrong
from reftcli.training.ppo.schedule import ProblemOrder
from reftcli.training.ppo.update import Networks, rollout_batch, rollout_error, update_policy
from reftcli.training.ppo.watch import Watch
from reftcli.training.saving import save_model_of_all
from reftcli.training.trl_seam import NoRewardModel, PPOTrainer, shared_backbone, use_max_grad_norm

_ROLLOUTS_SAVED_PER_UPDATE = 4
_MAX_ROLLOUT_ERROR = 5e-3
"""Nats. Two ways to add up the same products differ by about 1e-5 in fp32, an error of the code by much more."""


@dataclass(frozen=True, slots=True)
class Collaborators:
    """What the trainer asks for completions, grades and validation."""

    builder: PromptBuilder
    sampler: Sampler
    grader: Grader
    validate: Callable[[int], list[SampleRecord]]
    """Greedy answers to the validation problems after so many updates."""
    progress: Progress
    trackers: Trackers | None = None
    ranks: Ranks = ALONE


@dataclass(frozen=True, slots=True)
class RlOutcome:
    """How an RL stage ended. ``tokens`` counts prompts and completions of all rollouts, once."""

    updates: int
    tokens: int
    best_accuracy: float
    best_update: int
    final_accuracy: float
    ended_by: Literal["updates", "patience"] = "updates"
    """All updates were made, or validation did not get better any more."""
    best_p: float = 1.0
    """How likely the best one's gain over the start is where there is none: see `reftcli.training.ppo.best`."""


class ReftPPOTrainer(PPOTrainer):  # type: ignore[misc]
    """`PPOTrainer` with its ``train`` replaced; construction (module, optimizer, accelerate) stays TRL's.

    Args:
        loaded: the policy, on any device.
        reference: the frozen warm-up model; None: the policy without its LoRA layers.
        prompts: training prompts, all within the limit.
        updates: number of rollout batches.
    """

    def __init__(
        self,
        *,
        run: Run,
        loaded: LoadedModel,
        reference: torch.nn.Module | None,
        prompts: Sequence[Prompt],
        updates: int,
        settings: RlSettings,
        model_settings: ModelSettings,
        seed: int,
        collaborators: Collaborators,
    ) -> None:
        check_backbone_and_head(loaded.model)
        self._run, self._prompts, self._updates, self._settings, self._seed = run, prompts, updates, settings, seed
        self._collaborators = collaborators
        self._ranks = ranks = collaborators.ranks
        if len(prompts) < settings.batch_size:
            raise DataError(
                f"{len(prompts)} training problems do not fill rl.batch_size {settings.batch_size}; lower it"
            )
        self._order = ProblemOrder(len(prompts), settings.batch_size, seed)
        if model_settings.gradient_checkpointing:  # TRL's argument alone does not reach the policy
            loaded.model.gradient_checkpointing_enable()
        exact = beyond_bf16(loaded.model)
        with shared_backbone(), use_max_grad_norm(settings.max_grad_norm):
            super().__init__(
                args=ppo_config(
                    run.folder, settings, model_settings, updates, seed, loaded.eos_token_id, processes=ranks.count
                ),
                processing_class=loaded.tokenizer,
                model=loaded.model,
                ref_model=NoRewardModel() if reference is None else ReferenceModel(reference, settings.logprob_chunk),
                reward_model=NoRewardModel(),
                value_model=new_value_model(loaded.model, settings.value_model),
                train_dataset=list(range(len(prompts))),
                eval_dataset=[0],
                data_collator=list,
            )
        wrapper = self.accelerator.unwrap_model(self.model)
        engine = engine_of(self.accelerator, self.model, self.optimizer, _frozen(wrapper.policy, exact, ranks))
        self._networks = self._make_networks(engine, has_reference=reference is not None, model_settings=model_settings)
        set_masters(wrapper.policy, exact)
        if isinstance(wrapper.value_head, SeparateValueModel):
            set_masters(wrapper.value_head.model, exact)  # a copy of the policy
        self._trained = Trained(wrapper.policy, loaded.tokenizer, wrapper.value_head, engine, self.lr_scheduler, ranks)
        wrapper.logprob_chunk = settings.logprob_chunk
        self._sampler = collaborators.sampler
        if isinstance(self._sampler, TorchSampler) and settings.value_model == "shared":
            self._sampler = self._sampler.with_values(wrapper.value_head)
        turn_off_dropout(wrapper)  # the probability ratio of an unchanged policy must be 1
        # Layers are run again in the backward pass (gradient checkpointing) in training mode only.
        self.model.train(wrapper.policy.is_gradient_checkpointing)

    def _make_networks(self, engine: Engine, *, has_reference: bool, model_settings: ModelSettings) -> Networks:
        settings = self._settings
        share = (settings.mini_batch_size or settings.batch_size) // self._ranks.count
        return Networks(
            policy=self.model,
            reference=self.ref_model if has_reference else None,
            accelerator=self.accelerator,
            engine=engine,
            ranks=self._ranks,
            autocast=autocast_for(model_settings.precision, self.accelerator.device),
            micro_batch_size=min(settings.micro_batch_size or share, share),
        )

    def train(self, resume_from: Path | None = None) -> RlOutcome:
        """Runs the remaining updates.

        Raises:
            Interrupted: somebody asked to stop; a checkpoint was written.
            TrainingStopped: going on would be wrong (too many ungradable rollouts, a loss that is not a number).
        """
        state = RlState() if resume_from is None else restore_checkpoint(resume_from, self._trained)
        last_kept = -1 if resume_from is None else state.update
        if self._ranks.is_main:
            drop_rows_after(self._run.metrics_file, last_kept)
            drop_rows_after(self._run.samples / "rollouts.jsonl", last_kept)
        progress = self._collaborators.progress
        with (
            MetricsLog(self._run, self._collaborators.trackers) as metrics,
            self._run.rows(self._run.samples / "rollouts.jsonl") as samples,
            stop_on_signal(progress.say) as stop,
            progress.task("rl", self._updates, "update") as task,
        ):
            task.advance(state.update)
            watch = Watch(read_jsonl(self._run.metrics_file))
            if state.update == 0:
                self._validate(state, metrics)
            while self._goes_on(state):
                row, batch = self._one_update(state.update)
                state.update += 1
                state.tokens += sum(r.completion.total_tokens for r in batch.rollouts)
                self._save_rollouts(samples, batch, state.update)
                stop_if_wrong(row, self._settings)
                metrics.write({"step": state.update, "time": time.time(), **row})
                self._warn(watch, state.update, row, metrics)
                task.show(row)
                task.advance()
                if state.update % self._settings.validate_every == 0 or state.update == self._updates:
                    self._validate(state, metrics)
                    task.show({"val_accuracy": state.last_accuracy})
                self._checkpoint_if_due(state, stop)
        outcome = self._outcome(state)
        self._save_model(self._run.final)
        return outcome

    def _outcome(self, state: RlState) -> RlOutcome:
        """How it ended; says what a person should know of that."""
        ended_by = self._ended_by(state)
        if said := doubt_about_best(state, looks=validations_of(self._updates, self._settings)):
            self._collaborators.progress.say(said)
        best = (state.best_accuracy, state.best_update)
        return RlOutcome(state.update, state.tokens, *best, state.last_accuracy, ended_by, state.best_p)

    def _save_model(self, folder: Path) -> None:
        trained = self._trained
        save_model_of_all(folder, trained.policy, trained.tokenizer, trained.engine, self._ranks)

    def _goes_on(self, state: RlState) -> bool:
        return state.update < self._updates and not patience_spent(state, self._settings)

    def _ended_by(self, state: RlState) -> Literal["updates", "patience"]:
        if state.update >= self._updates:
            return "updates"
        self._collaborators.progress.say(
            f"ended early after update {state.update} of {self._updates}: validation accuracy has not risen above the "
            f"{state.highest_accuracy:.3f} of update {state.highest_update} in {self._settings.patience} validations "
            "(rl.patience)"
        )
        return "patience"

    def _warn(self, watch: Watch, step: int, row: Mapping[str, float], metrics: MetricsLog) -> None:
        """Says what goes wrong, and keeps it: the person may not be there."""
        for alarm in watch.after(row):
            self._collaborators.progress.say(f"warning: update {step}: {alarm.text}")
            metrics.write({"step": step, "time": time.time(), "warning": alarm.cause, "message": alarm.text})

    def _one_update(self, update: int) -> tuple[dict[str, Any], RolloutBatch]:
        clock = PhaseClock(self.accelerator.device)
        self._ranks.is_at(f"update {update + 1}, rollout")
        completions = self._completions(update)
        clock.end("rollout")
        self._ranks.is_at(f"update {update + 1}, grading")
        rollouts = self._graded(completions)
        clock.end("grading")
        self._ranks.is_at(f"update {update + 1}, scoring and update")
        batch = rollout_batch(self._networks, rollouts, self._settings)
        verified = self._verified(update, batch)
        clock.end("scoring")
        statistics = update_policy(
            self._networks, batch, self._settings, np.random.default_rng([self._seed, update, 1])
        )
        self._sampler.weights_changed()
        lr = self.lr_scheduler.get_last_lr()[0]
        self.lr_scheduler.step()
        clock.end("update")
        return {**rollout_metrics(batch), **statistics.means(), **verified, "lr": lr, **clock.seconds()}, batch

    def _verified(self, update: int, batch: RolloutBatch) -> dict[str, float]:
        """Now and then, decoded log-probabilities against those of the forward pass that training makes.

        Raises:
            TrainingStopped: they are not the same in fp32, so the ratios of PPO would be wrong.
        """
        every = self._settings.verify_every
        if self._settings.rollout_logprobs != "decoded" or not every or update % every:
            return {}
        error = rollout_error(self._networks, batch, self._settings)
        same_arithmetic = isinstance(self._sampler, TorchSampler) and self._networks.autocast is nullcontext
        if error > _MAX_ROLLOUT_ERROR and same_arithmetic:
            raise TrainingStopped(
                f"log-probabilities of decoding and of training differ by {error:.2g} in update {update + 1}: this "
                "model's decoding is not exact here; use --set rl.rollout_logprobs=recomputed"
            )
        return {"rollout_error": error}

    def _completions(self, update: int) -> list[Completion]:
        """One for each problem of the batch (this rank's share)."""
        share = self._order.batch(update)[self._ranks.rank :: self._ranks.count]
        prompts = [self._prompts[i] for i in share]
        total = self._settings.max_total_tokens
        decode = Decode(
            "sampled", total, total, temperature=self._settings.temperature, seed=self._seed, stream=update + 1
        )
        with self._trained.engine.whole_weights():
            return self._sampler.sample(prompts, 1, decode)

    def _graded(self, completions: Sequence[Completion]) -> list[Rollout]:
        """Completions with their grades and rewards."""
        texts = [self._collaborators.builder.completion_text(c.prompt, c.token_ids) for c in completions]
        grades = self._collaborators.grader.grade([c.prompt.problem for c in completions], texts)
        table, zero = self._settings.reward_table, self._settings.truncated == "zero"
        return [
            Rollout(c, text, grade, shape_reward(grade, table, truncated=not c.ended, zero_truncated=zero))
            for c, text, grade in zip(completions, texts, grades, strict=True)
        ]

    def _validate(self, state: RlState, metrics: MetricsLog) -> None:
        """Greedy accuracy on validation; the best model so far (`rl.best`) is kept in ``best/``."""
        self._ranks.is_at(f"validation after update {state.update}")
        with self._trained.engine.whole_weights():
            records = self._collaborators.validate(state.update)
        right = right_answers(records)
        state.last_accuracy = share_right(right)
        row = {
            "val_accuracy": state.last_accuracy,
            "val_no_answer": share_of(Verdict.NO_ANSWER, records),
            "val_n": len(records),
        }
        metrics.write({"step": state.update, "time": time.time(), **row})
        if take_if_best(state, right, self._settings, self._updates):
            self._save_model(self._run.best)

    def _checkpoint_if_due(self, state: RlState, stop: StopRequest) -> None:
        due = state.update % self._settings.checkpoint_every == 0
        stopping = any(self._ranks.gather(bool(stop)))  # one process was asked: all of them stop here
        if due or stopping:
            save_checkpoint(self._run, self._trained, state, self._settings.keep)
        if stopping and self._goes_on(state):
            raise Interrupted(f"stopped after update {state.update} of {self._updates}; go on with --resume")

    def _save_rollouts(self, samples: JsonlWriter, batch: RolloutBatch, step: int) -> None:
        # Those that could not be graded come first: their reasons are what somebody will look for.
        for rollout in sorted(batch.rollouts, key=lambda r: r.reward.weight)[:_ROLLOUTS_SAVED_PER_UPDATE]:
            completion, grade = rollout.completion, rollout.grade
            record = SampleRecord(
                item_id=completion.prompt.problem.item_id,
                split="train",
                sample_index=0,
                decoding="sampled",
                prompt=completion.prompt.text,
                completion=rollout.text,
                predicted_answer=grade.predicted_answer,
                gold_answer=completion.prompt.problem.gold_answer,
                verdict=grade.verdict,
                score=grade.score,
                reward=rollout.reward.terminal if rollout.reward.weight else None,
                why=grade.why,
                logprob=completion.logprob,
                step=step,
            )
            samples.write(record.to_json())


def _frozen(policy: torch.nn.Module, exact: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Those of the exact weights that are not trained, for the process that saves models."""
    trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    return {name: weight for name, weight in exact.items() if name not in trained} if ranks.is_main else {}
