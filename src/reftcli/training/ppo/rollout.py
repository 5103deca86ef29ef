"""Rollouts: what the policy did with a batch of prompts, graded and rewarded, and the same as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from reftcli.grading.interface import Grade
from reftcli.rewards.shaping import Reward
from reftcli.sampling.interface import Completion
from reftcli.training.ppo.policy import ScoringInput


@dataclass(frozen=True, slots=True)
class Rollout:
    """One completion of one prompt with everything that led to its reward."""

    completion: Completion
    text: str
    grade: Grade
    reward: Reward


@dataclass(frozen=True, slots=True)
class RolloutBatch:
    """Rollouts as tensors. _B rollouts, _T tokens of the longest completion; padded places are False in ``mask``.

    ``old_logprobs``, ``ref_logprobs``, ``values``, ``entropy``: [_B, _T] under the policy that sampled;
    ``advantages`` (whitened) and ``returns``: [_B, _T]; ``row_weight``: [_B], 0 for ungradable rollouts.
    """

    rollouts: Sequence[Rollout]
    mask: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    entropy: Tensor
    kl: Tensor
    advantages: Tensor
    returns: Tensor
    row_weight: Tensor


def scoring_input(rollouts: Sequence[Rollout], pad_token_id: int, device: torch.device) -> ScoringInput:
    """Prompt and completion of each rollout in one row, padded on the right to the longest."""
    lengths = [len(r.completion.prompt.token_ids) + len(r.completion.token_ids) for r in rollouts]
    shape = (len(rollouts), max(lengths))
    input_ids = torch.full(shape, pad_token_id)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    predicts = torch.zeros(shape, dtype=torch.bool)
    targets: list[int] = []
    for row, (rollout, length) in enumerate(zip(rollouts, lengths, strict=True)):
        prompt_ids, completion_ids = rollout.completion.prompt.token_ids, rollout.completion.token_ids
        input_ids[row, :length] = torch.tensor([*prompt_ids, *completion_ids])
        attention_mask[row, :length] = 1
        predicts[row, len(prompt_ids) - 1 : length - 1] = True
        targets.extend(completion_ids)
    return ScoringInput(
        input_ids.to(device), attention_mask.to(device), predicts.to(device), torch.tensor(targets, device=device)
    )


def completion_mask(rollouts: Sequence[Rollout], device: torch.device) -> Tensor:
    """[_B, _T], True at completion tokens."""
    lengths = torch.tensor([len(r.completion.token_ids) for r in rollouts], device=device)
    return torch.arange(int(lengths.max()), device=device)[None] < lengths[:, None]


def by_row(flat: Tensor, mask: Tensor) -> Tensor:
    """Values of completion tokens, flat [_N], at their places in [_B, _T]; 0 elsewhere. Keeps gradients."""
    return torch.zeros(mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(mask, flat)


def process_rewards(rollouts: Sequence[Rollout], mask: Tensor) -> Tensor | None:
    """Per-token rewards [_B, _T] where any rollout has them."""
    if all(rollout.reward.per_token is None for rollout in rollouts):
        return None
    rewards = torch.zeros(mask.shape, device=mask.device)
    for row, rollout in enumerate(rollouts):
        if rollout.reward.per_token is not None:
            values = torch.tensor(rollout.reward.per_token, device=mask.device)
            rewards[row, : len(values)] = values
    return rewards


def rows_of(batch: RolloutBatch, rows: Sequence[int]) -> RolloutBatch:
    """The same record for some of its rollouts, cut to their longest completion."""
    index = torch.tensor(list(rows), device=batch.mask.device)
    longest = int(batch.mask[index].sum(dim=1).max())
    parts: dict[str, Any] = {"rollouts": [batch.rollouts[row] for row in rows]}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            parts[field.name] = value[index][:, :longest] if value.dim() == 2 else value[index]
    return RolloutBatch(**parts)
