"""The row of an update in ``metrics.jsonl``, and what in it ends the run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from reftcli.errors import TrainingStopped
from reftcli.grading.interface import Verdict
from reftcli.recipe.schema import RlSettings
from reftcli.rewards.shaping import ungradable_share
from reftcli.training.ppo.rollout import RolloutBatch


def rollout_metrics(batch: RolloutBatch) -> dict[str, float]:
    """Means over the rollouts that count; ``kl`` and ``entropy`` in nats: per completion, and per token."""
    counted = [rollout for rollout in batch.rollouts if rollout.reward.weight]
    n, everything = max(len(counted), 1), len(batch.rollouts)
    token_weight = batch.mask * batch.row_weight[:, None]
    tokens = token_weight.sum().clamp(min=1)
    earned = [rollout.reward.terminal + sum(rollout.reward.per_token or ()) for rollout in counted]
    return {
        "reward_mean": sum(earned) / n,
        "reward_std": float(np.std(earned)) if earned else 0.0,
        "accuracy": sum(rollout.grade.verdict is Verdict.CORRECT for rollout in counted) / n,
        "no_answer": sum(rollout.grade.verdict is Verdict.NO_ANSWER for rollout in counted) / n,
        "kl": float((batch.kl * token_weight).sum() / batch.row_weight.sum().clamp(min=1)),
        "entropy": float((batch.entropy * token_weight).sum() / tokens),
        "completion_length": float(batch.mask.sum() / everything),
        "eos_rate": sum(rollout.completion.ended for rollout in batch.rollouts) / everything,
        "truncated_rate": sum(not rollout.completion.ended for rollout in batch.rollouts) / everything,
        "ungradable": ungradable_share([rollout.grade for rollout in batch.rollouts]),
    }


def stop_if_wrong(row: Mapping[str, float], settings: RlSettings) -> None:
    """Raises TrainingStopped where going on would be wrong."""
    if row["ungradable"] > settings.max_ungradable:
        raise TrainingStopped(
            f"{row['ungradable']:.0%} of the rollouts could not be graded (limit rl.max_ungradable "
            f"{settings.max_ungradable:.0%}): see `why` in samples/rollouts.jsonl, and `reft data check`"
        )
    wrong = [name for name in ("policy_loss", "value_loss", "grad_norm") if not np.isfinite(row[name])]
    if wrong:
        raise TrainingStopped(f"{', '.join(wrong)} is not a number; lower rl.learning_rate or use model.precision fp32")
