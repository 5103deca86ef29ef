from __future__ import annotations

import torch

from reftcli.grading.interface import Grade, Verdict
from reftcli.problems.prompts import Prompt
from reftcli.problems.record import Problem
from reftcli.rewards.shaping import Reward
from reftcli.sampling.interface import Completion
from reftcli.training.ppo.rollout import (
    Rollout,
    RolloutBatch,
    by_row,
    completion_mask,
    process_rewards,
    rows_of,
    scoring_input,
)

CPU = torch.device("cpu")
EOS = 9


def rollout(prompt_ids: list[int], ids: list[int], reward: Reward | None = None) -> Rollout:
    prompt = Prompt(Problem("p", "?", "1"), "?", tuple(prompt_ids))
    completion = Completion(prompt, 0, tuple(ids), (), ended=ids[-1] == EOS)
    return Rollout(completion, "", Grade.of(Verdict.CORRECT), reward or Reward(1.0))


ROLLOUTS = [rollout([1, 2, 3], [4, 9]), rollout([9], [5, 9, 6, 7]), rollout([1, 2], [9])]


def test_prompts_and_completions_lie_end_to_end() -> None:
    batch = scoring_input(ROLLOUTS, CPU)
    assert batch.input_ids.tolist() == [1, 2, 3, 4, 9, 9, 5, 9, 6, 7, 1, 2, 9]
    assert batch.lengths == (5, 5, 3)
    assert batch.predicts.tolist() == [2, 3, 5, 6, 7, 8, 11]
    assert batch.targets.tolist() == [4, 9, 5, 9, 6, 7, 9]


def test_flat_values_go_to_their_places_and_keep_gradients() -> None:
    mask = completion_mask(ROLLOUTS, CPU)
    assert mask.int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]
    flat = torch.arange(1.0, 8.0, requires_grad=True)
    placed = by_row(flat, mask)
    assert placed.tolist() == [[1, 2, 0, 0], [3, 4, 5, 6], [7, 0, 0, 0]]
    (placed * torch.tensor([[2.0], [3.0], [5.0]])).sum().backward()
    assert flat.grad is not None
    assert flat.grad.tolist() == [2, 2, 3, 3, 3, 3, 5]


def test_process_rewards_stand_at_their_tokens() -> None:
    mask = completion_mask(ROLLOUTS, CPU)
    assert process_rewards(ROLLOUTS, mask) is None
    with_one = [ROLLOUTS[0], rollout([9], [5, 9, 6, 7], Reward(1.0, per_token=(0.5, 0.0, 0.25, 2.0))), ROLLOUTS[2]]
    found = process_rewards(with_one, mask)
    assert found is not None
    assert found.tolist() == [[0] * 4, [0.5, 0, 0.25, 2], [0] * 4]


def test_some_rows_of_a_batch_are_cut_to_their_longest() -> None:
    mask = completion_mask(ROLLOUTS, CPU)
    numbered = torch.arange(12.0).reshape(3, 4)
    batch = RolloutBatch(
        ROLLOUTS, mask, *[numbered + 100 * i for i in range(7)], row_weight=torch.tensor([1.0, 0.0, 0.5])
    )
    part = rows_of(batch, [2, 0])
    assert part.rollouts == [ROLLOUTS[2], ROLLOUTS[0]]
    assert part.mask.int().tolist() == [[1, 0], [1, 1]]
    assert part.row_weight.tolist() == [0.5, 1.0]
    assert part.old_logprobs.tolist() == [[8, 9], [0, 1]]
    assert part.returns.tolist() == [[608, 609], [600, 601]]
