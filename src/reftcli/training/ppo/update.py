"""From a rollout batch to new weights: values, KL, rewards, advantages, then clipped losses in mini-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from reftcli.models.lora import without_lora
from reftcli.models.precision import Autocast
from reftcli.recipe.schema import RlSettings
from reftcli.runs.ranks import Ranks
from reftcli.training.engines import Engine
from reftcli.training.ppo import maths
from reftcli.training.ppo.exchange import everybodys
from reftcli.training.ppo.policy import ScoringInput, reference_logprobs
from reftcli.training.ppo.rollout import (
    Rollout,
    RolloutBatch,
    as_rows,
    by_row,
    completion_mask,
    process_rewards,
    rows_of,
    scoring_input,
)


@dataclass(frozen=True, slots=True)
class Networks:
    """The networks of an update and how they run. ``policy`` and ``reference`` may be wrapped by accelerate."""

    policy: Any
    reference: nn.Module | None
    """A `ReferenceModel`. None: the policy without its LoRA layers."""
    accelerator: Accelerator
    engine: Engine
    ranks: Ranks
    autocast: Autocast
    micro_batch_size: int
    """Rollouts per forward pass on this process."""

    @property
    def packs(self) -> bool:
        """Whether sequences are run end to end."""
        return bool(self.accelerator.unwrap_model(self.policy).packs)


@dataclass(slots=True)
class UpdateStatistics:
    """What the mini-batches of an update found, in order; each is the mean over a mini-batch of all processes."""

    policy_loss: list[float] = field(default_factory=list)
    value_loss: list[float] = field(default_factory=list)
    clip_fraction: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)

    def means(self) -> dict[str, float]:
        """Over the mini-batches."""
        return {name: float(np.mean(getattr(self, name))) for name in self.__slots__}


def rollout_batch(networks: Networks, rollouts: Sequence[Rollout], settings: RlSettings) -> RolloutBatch:
    """Own rollouts scored under policy and reference; rewards, advantages and returns of everybody's."""
    own_mask = completion_mask(rollouts, networks.accelerator.device)
    own_scores = _scores(networks, rollouts, own_mask, settings)
    own_columns = [*own_scores.columns(), _reference(networks, rollouts, own_mask, settings)]
    rollouts, (*columns, ref_logprobs) = everybodys(networks.ranks, rollouts, own_columns)
    scores, mask = Scores(*columns), completion_mask(rollouts, networks.accelerator.device)
    values = scores.values
    row_weight = values.new_tensor([rollout.reward.weight for rollout in rollouts])
    terminal = values.new_tensor([rollout.reward.terminal for rollout in rollouts])

    own = scores.logprobs if scores.for_kl is None else scores.for_kl
    kl = maths.kl_per_token(own, ref_logprobs, mask, settings.kl_estimator)
    rewards = maths.token_rewards(terminal, process_rewards(rollouts, mask), kl, mask, settings.kl_coef)
    advantages, returns = maths.gae(rewards, values, mask, settings.gamma, settings.lam)
    if settings.whitening:
        advantages = maths.whiten(advantages, mask, maths.moments(advantages, mask * row_weight[:, None]))
    return RolloutBatch(
        rollouts, mask, scores.logprobs, ref_logprobs, values, scores.entropy, kl, advantages, returns, row_weight
    )


@dataclass(frozen=True, slots=True)
class Scores:
    """What the policy says of the tokens it chose, each [_B, _T]."""

    logprobs: Tensor
    values: Tensor
    entropy: Tensor
    for_kl: Tensor | None = None
    """Log-probabilities by the same arithmetic as the reference's, where ``logprobs`` come from another engine."""

    def columns(self) -> list[Tensor]:
        """The fields that are there, in order."""
        return [column for column in (self.logprobs, self.values, self.entropy, self.for_kl) if column is not None]


def _scores(networks: Networks, rollouts: Sequence[Rollout], mask: Tensor, settings: RlSettings) -> Scores:
    """As they were while the completions were drawn, where the sampler says so: no second forward pass.

    Log-probabilities of decoding are the truth about where a completion came from, also where values are made here.
    """
    completions = [rollout.completion for rollout in rollouts]
    own = (all(c.logprobs for c in completions), all(c.values and c.entropies for c in completions))
    # All processes go the same way: one that had to score again would wait for partners that do not come.
    has_logprobs, has_the_rest = (all(theirs) for theirs in zip(*networks.ranks.gather(own), strict=True))
    if settings.rollout_logprobs == "recomputed" or not has_logprobs:
        return recomputed_scores(networks, rollouts, mask, settings)
    logprobs = as_rows([completion.logprobs for completion in completions], mask)
    if not has_the_rest:
        again = recomputed_scores(networks, rollouts, mask, settings)
        return replace(again, logprobs=logprobs, for_kl=again.logprobs)
    values = as_rows([completion.values for completion in completions], mask)
    return Scores(logprobs, values, as_rows([completion.entropies for completion in completions], mask))


@torch.no_grad()
def recomputed_scores(networks: Networks, rollouts: Sequence[Rollout], mask: Tensor, settings: RlSettings) -> Scores:
    """By a forward pass of the kind that training makes."""
    parts = [
        networks.policy(batch, settings.temperature, networks.autocast, with_entropy=True)
        for batch in _scoring_inputs(networks, rollouts)
    ]
    return Scores(*(by_row(torch.cat(column), mask) for column in zip(*parts, strict=True)))


def rollout_error(networks: Networks, batch: RolloutBatch, settings: RlSettings) -> float:
    """Largest difference between log-probabilities (nats) in a batch and recomputed ones, over all processes."""
    own = rows_of(batch, range(networks.ranks.rank, len(batch.rollouts), networks.ranks.count))
    again = recomputed_scores(networks, own.rollouts, own.mask, settings)
    return max(networks.ranks.gather(float((again.logprobs - own.old_logprobs).abs().max())))


def _reference(networks: Networks, rollouts: Sequence[Rollout], mask: Tensor, settings: RlSettings) -> Tensor:
    policy = networks.accelerator.unwrap_model(networks.policy).policy
    with nullcontext() if networks.reference is not None else without_lora(policy):
        reference = networks.reference or partial(reference_logprobs, policy, chunk=settings.logprob_chunk)
        parts = [
            reference(batch, settings.temperature, networks.autocast, networks.packs)
            for batch in _scoring_inputs(networks, rollouts)
        ]
    return by_row(torch.cat(parts), mask)


def _scoring_inputs(networks: Networks, rollouts: Sequence[Rollout]) -> Iterator[ScoringInput]:
    for start in range(0, len(rollouts), networks.micro_batch_size):
        yield scoring_input(rollouts[start : start + networks.micro_batch_size], networks.accelerator.device)


def update_policy(
    networks: Networks, batch: RolloutBatch, settings: RlSettings, rng: np.random.Generator
) -> UpdateStatistics:
    """``ppo_epochs`` passes over the batch, one optimizer step per mini-batch."""
    statistics = UpdateStatistics()
    for _ in range(settings.ppo_epochs):
        for rows in _mini_batches(len(batch.rollouts), settings, rng):
            _optimizer_step(networks, rows_of(batch, rows), settings, statistics)
    return statistics


def _mini_batches(n: int, settings: RlSettings, rng: np.random.Generator) -> Iterator[list[int]]:
    """Rows of the global batch, shuffled, in mini-batches: the same ones on every process."""
    size = settings.mini_batch_size or settings.batch_size
    order = rng.permutation(n).tolist()
    for start in range(0, n, size):
        yield order[start : start + size]


def _optimizer_step(networks: Networks, mini: RolloutBatch, settings: RlSettings, statistics: UpdateStatistics) -> None:
    """One step on one mini-batch of all processes, each of which takes its share of the rows.

    Micro-batches only bound memory: the gradient is that of the whole mini-batch.
    """
    ranks, engine = networks.ranks, networks.engine
    weights = maths.token_weights(mini.mask, mini.row_weight, settings.loss_average)
    normaliser = maths.loss_normaliser(weights).clamp(min=1e-8)
    own = list(range(ranks.rank, len(mini.rollouts), ranks.count))
    micro_batches = [[own[i] for i in rows] for rows in _micro_batches(len(own), networks.micro_batch_size)]
    totals = torch.zeros(3, device=networks.accelerator.device)
    for i, rows in enumerate(micro_batches):
        with engine.accumulating(last=i + 1 == len(micro_batches)):
            policy_loss, value_loss, clipped = _losses(networks, rows_of(mini, rows), weights[rows], settings)
            loss = (policy_loss + settings.vf_coef * value_loss) / normaliser
            engine.backward(loss * ranks.count)  # gradients are averaged over processes: the sum is meant
        totals += torch.stack([policy_loss.detach(), value_loss.detach(), clipped]) / normaliser
    norm = engine.step(settings.max_grad_norm)
    policy_loss, value_loss, clipped = networks.accelerator.reduce(totals, "sum")
    statistics.policy_loss.append(float(policy_loss))
    statistics.value_loss.append(float(value_loss))
    statistics.clip_fraction.append(float(clipped))
    statistics.grad_norm.append(norm)


def _micro_batches(n: int, size: int) -> Iterator[list[int]]:
    for start in range(0, n, size):
        yield list(range(start, min(start + size, n)))


def _losses(
    networks: Networks, micro: RolloutBatch, weights: Tensor, settings: RlSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted sums over the tokens of a micro-batch: policy loss, value loss, clipped tokens."""
    inputs = scoring_input(micro.rollouts, networks.accelerator.device)
    flat_logprobs, flat_values, _ = networks.policy(inputs, settings.temperature, networks.autocast)
    logprobs, values = by_row(flat_logprobs, micro.mask), by_row(flat_values, micro.mask)
    policy = maths.policy_loss(logprobs, micro.old_logprobs, micro.advantages, micro.mask, settings.clip_range)
    value = maths.value_loss(values, micro.values, micro.returns, micro.mask, settings.value_clip_range)
    weights = weights[:, : micro.mask.shape[1]]
    return (policy.per_token * weights).sum(), (value * weights).sum(), (policy.clipped * weights).sum()
