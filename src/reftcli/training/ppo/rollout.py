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


def scoring_input(rollouts: Sequence[Rollout], device: torch.device) -> ScoringInput:
    """Prompt and completion of each rollout, end to end."""
    tokens: list[int] = []
    lengths: list[int] = []
    predicts: list[int] = []
    targets: list[int] = []
    for rollout in rollouts:
        prompt_ids, completion_ids = rollout.completion.prompt.token_ids, rollout.completion.token_ids
        first = len(tokens) + len(prompt_ids) - 1
        predicts.extend(range(first, first + len(completion_ids)))
        tokens.extend((*prompt_ids, *completion_ids))
        targets.extend(completion_ids)
        lengths.append(len(prompt_ids) + len(completion_ids))
    input_ids, positions, wanted = (torch.tensor(ids, device=device) for ids in (tokens, predicts, targets))
    return ScoringInput(input_ids, tuple(lengths), positions, wanted)


def completion_mask(rollouts: Sequence[Rollout], device: torch.device) -> Tensor:
    """[_B, _T], True at completion tokens."""
    lengths = torch.tensor([len(r.completion.token_ids) for r in rollouts], device=device)
    return torch.arange(int(lengths.max()), device=device)[None] < lengths[:, None]


def by_row(flat: Tensor, mask: Tensor) -> Tensor:
    """Values of completion tokens, flat [_N], at their places in [_B, _T]; 0 elsewhere. Keeps gradients."""
    return torch.zeros(mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(mask, flat)


def as_rows(columns: Sequence[Sequence[float]], mask: Tensor) -> Tensor:
    """Numbers of completion tokens, one sequence for each rollout, at their places in [_B, _T]; 0 elsewhere."""
    flat = torch.tensor([number for column in columns for number in column], dtype=torch.float32, device=mask.device)
    return by_row(flat, mask)


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
