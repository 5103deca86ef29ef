"""The equations of PPO against arrays worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from reftcli.training.ppo import maths

LN2 = math.log(2.0)


def t(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def m(*rows: list[int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.bool)


def same(found: Tensor, *rows: list[float], atol: float = 1e-12) -> None:
    torch.testing.assert_close(found, t(*rows), rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("k1", [LN2, -LN2, 0.0]),
        ("k3", [0.5 - 1 + LN2, 2 - 1 - LN2, 0.0]),
    ],
)
def test_kl_by_hand(estimator: str, expected: list[float]) -> None:
    kl = maths.kl_per_token(t([LN2, 0.0, 9.0]), t([0.0, LN2, -9.0]), m([1, 1, 0]), estimator)
    same(kl, expected)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_both_estimators_have_the_kl_as_their_mean(estimator: str) -> None:
    p, q = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64), torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64)
    exact = float((p * (p / q).log()).sum())
    found = maths.kl_per_token(p.log()[None], q.log()[None], m([1, 1, 1]), estimator)
    assert float((p * found).sum()) == pytest.approx(exact, abs=1e-12)


def test_k3_is_never_negative() -> None:
    d = torch.linspace(-5, 5, 101, dtype=torch.float64)[None]
    assert (maths.kl_per_token(d, torch.zeros_like(d), torch.ones_like(d, dtype=torch.bool), "k3") >= 0).all()


def test_terminal_reward_stands_on_the_last_token_of_each_row() -> None:
    kl = t([0.5, 1.0, 2.0], [1.0, 9.0, 9.0])
    rewards = maths.token_rewards(torch.tensor([1.0, 0.1]).double(), None, kl, m([1, 1, 1], [1, 0, 0]), 0.1)
    same(rewards, [-0.05, -0.1, 0.8], [0.0, 0.0, 0.0], atol=1e-8)


def test_process_rewards_are_added_to_each_token_and_padding_stays_zero() -> None:
    kl, mask = t([0.5, 1.0, 2.0], [1.0, 9.0, 9.0]), m([1, 1, 1], [1, 0, 0])
    process = t([0.1, 0.2, 0.3], [0.4, 7.0, 7.0])
    rewards = maths.token_rewards(torch.tensor([1.0, 0.5]).double(), process, kl, mask, 0.1)
    same(rewards, [0.05, 0.1, 1.1], [0.8, 0.0, 0.0])


def test_gae_with_discount_and_lambda_by_hand() -> None:
    # Row 0: deltas 1 + .5*1 - .5, 2 + .5*2 - 1, 3 - 2 = 1, 2, 1;  gamma * lam = .25.  Row 1 has one token; the values
    # in its padding must not leak.
    rewards, values = t([1.0, 2.0, 3.0], [0.75, 50.0, 50.0]), t([0.5, 1.0, 2.0], [0.25, 99.0, 99.0])
    advantages, returns = maths.gae(rewards, values, m([1, 1, 1], [1, 0, 0]), gamma=0.5, lam=0.5)
    same(advantages, [1.5625, 2.25, 1.0], [0.5, 0.0, 0.0])
    same(returns, [2.0625, 3.25, 3.0], [0.75, 0.0, 0.0])


def test_gae_of_the_paper_by_hand() -> None:
    advantages, returns = maths.gae(t([0.0, 1.0]), t([0.4, 0.6]), m([1, 1]), gamma=1.0, lam=0.95)
    same(advantages, [0.2 + 0.95 * 0.4, 0.4])
    same(returns, [0.98, 1.0])


def test_gae_with_lambda_one_returns_the_discounted_sum_of_rewards() -> None:
    _, returns = maths.gae(t([1.0, 10.0, 100.0]), t([3.0, -2.0, 7.0]), m([1, 1, 1]), gamma=0.5, lam=1.0)
    same(returns, [1 + 5 + 25, 10 + 50, 100.0])


def test_whitened_advantages_have_mean_0_and_variance_1_over_completion_tokens() -> None:
    mask = m([1, 1, 1], [1, 0, 0])
    advantages = t([1.0, 4.0, -2.0], [11.0, 500.0, 500.0])
    white = maths.whiten(advantages, mask, maths.moments(advantages, mask.double()))
    assert float(white[mask].mean()) == pytest.approx(0, abs=1e-9)
    assert float(white[mask].var(correction=0)) == pytest.approx(1, abs=1e-6)
    assert (white[~mask] == 0).all()


def test_rows_of_weight_0_do_not_move_the_moments() -> None:
    mask, row_weight = m([1, 1, 0], [1, 1, 1]), torch.tensor([1.0, 0.0])
    advantages = t([1.0, 2.0, 0.0], [3.0, 6.0, 9.0])
    white = maths.whiten(advantages, mask, maths.moments(advantages, mask * row_weight[:, None]))
    same(white[:1], [-1.0, 1.0, 0.0], atol=1e-6)  # mean 1.5, deviation 0.5


def test_moments_of_two_ranks_add_up_to_those_of_the_batch() -> None:
    x, weight = torch.randn(6, 4, dtype=torch.float64), torch.rand(6, 4, dtype=torch.float64)
    parts = maths.moments(x[:2], weight[:2]) + maths.moments(x[2:], weight[2:])
    torch.testing.assert_close(parts, maths.moments(x, weight))


def test_whitening_nothing_gives_zeros_and_equal_advantages_stay_finite() -> None:
    mask, x = m([1, 1]), t([3.0, 3.0])
    same(maths.whiten(x, mask, torch.zeros(3, dtype=torch.float64)), [0.0, 0.0])
    same(maths.whiten(x, mask, maths.moments(x, mask.double())), [0.0, 0.0], atol=1e-3)


@pytest.mark.parametrize(
    ("average", "expected", "normaliser"),
    [
        ("sequence", [[0.25] * 4, [0.5, 0.5, 0, 0], [0, 0, 0, 0]], 2.0),
        ("token", [[1.0] * 4, [1.0, 1.0, 0, 0], [0, 0, 0, 0]], 6.0),
    ],
)
def test_token_weights(average: maths.LossAverage, expected: list[list[float]], normaliser: float) -> None:
    mask = m([1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0])
    weights = maths.token_weights(mask, torch.tensor([1.0, 1.0, 0.0]), average)
    torch.testing.assert_close(weights, torch.tensor(expected))
    assert float(maths.loss_normaliser(weights)) == normaliser


def test_policy_loss_by_hand() -> None:
    ratios = [1.5, 1.5, 0.5, 0.5, 1.1, 4.0]
    advantages = t([1.0, -1.0, 1.0, -1.0, 2.0, 7.0])
    loss = maths.policy_loss(
        torch.tensor([ratios], dtype=torch.float64).log(), torch.zeros(1, 6).double(), advantages, m([1] * 5 + [0]), 0.2
    )
    same(loss.per_token, [-1.2, 1.5, -0.5, 0.8, -2.2, 0.0])
    assert loss.clipped.tolist() == [[True, True, True, True, False, False]]
    same(loss.ratio, [1.5, 1.5, 0.5, 0.5, 1.1, 1.0])


def test_policy_loss_has_no_gradient_where_the_clip_holds() -> None:
    logprobs = t([1.5, 1.5]).log().requires_grad_()
    loss = maths.policy_loss(logprobs, torch.zeros(1, 2).double(), t([1.0, -1.0]), m([1, 1]), 0.2)
    loss.per_token.sum().backward()
    assert logprobs.grad is not None
    same(logprobs.grad, [0.0, 1.5])


def test_value_loss_by_hand() -> None:
    # V_old 0, eps 0.2: V = 1 is near 0.2;  R = 2: max(1, 1.8^2);  R = 0.5: max(.25, .09);  V = 0.1 stays as it is.
    values, returns = t([1.0, 1.0, 0.1, 5.0]), t([2.0, 0.5, 0.5, 9.0])
    loss = maths.value_loss(values, torch.zeros(1, 4).double(), returns, m([1, 1, 1, 0]), 0.2)
    same(loss, [0.5 * 1.8**2, 0.5 * 0.25, 0.5 * 0.16, 0.0])


A, B, MASK = torch.zeros(2, 3), torch.zeros(2, 4), torch.ones(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    "call",
    [
        lambda: maths.kl_per_token(A, B, MASK, "k1"),
        lambda: maths.kl_per_token(A[0], A[0], MASK[0], "k1"),
        lambda: maths.token_rewards(torch.zeros(3), None, A, MASK, 0.1),
        lambda: maths.token_rewards(torch.zeros(2), B, A, MASK, 0.1),
        lambda: maths.gae(A, B, MASK, 1.0, 1.0),
        lambda: maths.moments(A, B),
        lambda: maths.whiten(B, MASK, torch.ones(3)),
        lambda: maths.policy_loss(A, A, B, MASK, 0.2),
        lambda: maths.value_loss(A, A, A[:1], MASK, 0.2),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="shape"):
        call()
