"""Rollouts of all processes on every process: what follows is then computed on the global batch, as if by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reftcli.runs.ranks import Ranks
from reftcli.training.ppo.rollout import Rollout, completion_mask


def everybodys(
    ranks: Ranks, rollouts: Sequence[Rollout], columns: Sequence[Tensor]
) -> tuple[list[Rollout], list[Tensor]]:
    """The global batch in its order, from the rows ``rank, rank + count, rank + 2 count, ...`` that each process holds.

    Args:
        columns: per-token numbers of the own rollouts, each [_b, _t].

    Returns:
        All rollouts, and the columns as [_B, _T].
    """
    if ranks.count == 1:
        return list(rollouts), list(columns)
    device = columns[0].device
    lengths = [len(rollout.completion.token_ids) for rollout in rollouts]
    own = [_flat(column, lengths) for column in columns]
    gathered = ranks.gather((list(rollouts), own))
    total = sum(len(theirs) for theirs, _ in gathered)
    order = [(i % ranks.count, i // ranks.count) for i in range(total)]
    everything = [gathered[rank][0][place] for rank, place in order]
    mask = completion_mask(everything, device)
    rows = [
        np.concatenate([_row(gathered[rank], number, place) for rank, place in order]) for number in range(len(columns))
    ]
    return everything, [
        torch.zeros(mask.shape, dtype=column.dtype, device=device).masked_scatter(
            mask, torch.from_numpy(row).to(device=device, dtype=column.dtype)
        )
        for column, row in zip(columns, rows, strict=True)
    ]


def _flat(column: Tensor, lengths: Sequence[int]) -> list[np.ndarray]:
    """The numbers of each row's tokens, without the padding."""
    values = column.detach().cpu().numpy()
    return [values[row, :length] for row, length in enumerate(lengths)]


def _row(part: tuple[list[Rollout], list[list[np.ndarray]]], column: int, place: int) -> np.ndarray:
    return part[1][column][place]
