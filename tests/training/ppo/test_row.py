"""The row of an update: means over what counts, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reftcli.errors import TrainingStopped
from reftcli.grading.interface import Grade, Verdict
from reftcli.problems.prompts import Prompt
from reftcli.problems.record import Problem
from reftcli.recipe.schema import RlSettings
from reftcli.rewards.shaping import Reward
from reftcli.sampling.interface import Completion
from reftcli.training.ppo.rollout import Rollout, RolloutBatch
from reftcli.training.ppo.row import rollout_metrics, stop_if_wrong

PROMPT = Prompt(Problem("p", "?", "1"), "?", (5,))


def rollout(length: int, verdict: Verdict, reward: Reward, *, ended: bool = True) -> Rollout:
    return Rollout(Completion(PROMPT, 0, (7,) * length, (), ended=ended), "", Grade.of(verdict), reward)


def batch() -> RolloutBatch:
    """A right answer of 2 tokens with process rewards, a wrong one cut off after 1, and one that counts nowhere."""
    rollouts = [
        rollout(2, Verdict.CORRECT, Reward(1.0, per_token=(0.25, 0.5))),
        rollout(1, Verdict.WRONG, Reward(0.25), ended=False),
        rollout(2, Verdict.UNGRADABLE, Reward(9.0, weight=0.0)),
    ]
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    numbers = torch.tensor([[1.0, 3.0], [2.0, 0.0], [50.0, 50.0]])
    weight = torch.tensor([1.0, 1.0, 0.0])
    return RolloutBatch(rollouts, mask, *(7 * (numbers,)), weight)


def test_means_are_over_what_counts_and_rewards_are_whole() -> None:
    row = rollout_metrics(batch())
    assert row["reward_mean"] == pytest.approx((1.75 + 0.25) / 2)  # what each earned in all, not only at its end
    assert row["reward_std"] == pytest.approx(0.75)
    assert (row["accuracy"], row["no_answer"]) == (0.5, 0.0)
    assert row["kl"] == pytest.approx((1 + 3 + 2) / 2)  # per completion
    assert row["entropy"] == pytest.approx((1 + 3 + 2) / 3)  # per token


def test_lengths_and_ends_are_over_everything() -> None:
    row = rollout_metrics(batch())
    assert row["completion_length"] == pytest.approx(5 / 3)
    assert (row["eos_rate"], row["truncated_rate"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert row["ungradable"] == pytest.approx(1 / 3)


def test_nothing_that_counts_is_no_division_by_zero() -> None:
    nothing = replace(batch(), rollouts=batch().rollouts[2:], mask=batch().mask[2:], row_weight=torch.zeros(1))
    nothing = replace(nothing, kl=batch().kl[2:], entropy=batch().entropy[2:])
    assert rollout_metrics(nothing)["reward_mean"] == rollout_metrics(nothing)["kl"] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ungradable": 0.06}, "6% of the rollouts could not be graded"),
        ({"value_loss": float("nan")}, "value_loss is not a number"),
        ({"grad_norm": float("inf")}, "grad_norm is not a number"),
    ],
)
def test_what_ends_the_run(change: dict[str, float], words: str) -> None:
    fine = {"ungradable": 0.05, "policy_loss": 0.1, "value_loss": 0.2, "grad_norm": 1.0}
    stop_if_wrong(fine, RlSettings())
    with pytest.raises(TrainingStopped, match=words):
        stop_if_wrong({**fine, **change}, RlSettings())
