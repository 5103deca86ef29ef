"""The equations of PPO as pure functions.

Notation: _B rollouts, _T tokens of the longest completion. ``mask[b, t]`` is True where rollout b has a t-th completion
token; everything else is padding and comes out as 0. Sources: PPO, arXiv 1707.06347; GAE, arXiv 1506.02438; the
settings of ReFT, arXiv 2401.08967; KL estimators, http://joschu.net/blog/kl-approx.html.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LossAverage = Literal["sequence", "token"]


def kl_per_token(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, estimator: Literal["k1", "k3"]) -> Tensor:
    """KL(pi || ref) at each token, estimated from the token that was sampled.

    With d = log pi(a|s) - log ref(a|s):   k1 = d,   k3 = exp(-d) - 1 + d  (never negative, lower variance).

    Args:
        logprobs, ref_logprobs: [_B, _T], nats.
    """
    _check_shapes(logprobs, ref_logprobs, mask)
    difference = logprobs - ref_logprobs
    kl = difference if estimator == "k1" else torch.expm1(-difference) + difference
    return kl.masked_fill(~mask, 0.0)


def token_rewards(terminal: Tensor, per_token: Tensor | None, kl: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """r[t] = process[t] - beta * KL[t],   and the terminal reward is added at the last completion token.

    Args:
        terminal: [_B], on the action that emits EOS (or the last one of a truncated completion).
        per_token: [_B, _T] process rewards, or None.
    """
    _check_shapes(kl, mask)
    if terminal.shape != mask.shape[:1]:
        raise ValueError(f"terminal rewards have shape {tuple(terminal.shape)}, expected {tuple(mask.shape[:1])}")
    rewards = -kl_coef * kl
    if per_token is not None:
        _check_shapes(per_token, mask)
        rewards = rewards + per_token
    last = mask.sum(dim=1).clamp(min=1) - 1
    rewards = rewards.scatter_add(1, last[:, None], terminal[:, None].to(rewards.dtype))
    return rewards.masked_fill(~mask, 0.0)


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation; the value after the last token is 0.

    delta[t] = r[t] + gamma * V[t+1] - V[t]
    A[t]     = delta[t] + gamma * lam * A[t+1]
    R[t]     = A[t] + V[t]

    Returns:
        advantages A and returns R, [_B, _T].
    """
    _check_shapes(rewards, values, mask)
    values = values.masked_fill(~mask, 0.0)
    advantages = torch.zeros_like(rewards)
    next_advantage = next_value = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantages[:, t] = torch.where(mask[:, t], delta + gamma * lam * next_advantage, 0.0)
        next_advantage, next_value = advantages[:, t], values[:, t]
    return advantages, (advantages + values).masked_fill(~mask, 0.0)


def moments(x: Tensor, weight: Tensor) -> Tensor:
    """[sum of w, sum of w x, sum of w x^2] in float64, of the global batch that every process holds."""
    _check_shapes(x, weight)
    x, weight = x.double(), weight.double()
    return torch.stack([weight.sum(), (weight * x).sum(), (weight * x * x).sum()])


def whiten(advantages: Tensor, mask: Tensor, global_moments: Tensor, epsilon: float = 1e-8) -> Tensor:
    """(A - mean) / sqrt(variance + epsilon), with mean and variance over all tokens of the global batch."""
    _check_shapes(advantages, mask)
    n, total, squares = global_moments
    if n == 0:
        return torch.zeros_like(advantages)
    mean = total / n
    variance = (squares / n - mean * mean).clamp(min=0)
    whitened: Tensor = (advantages - mean.to(advantages.dtype)) * torch.rsqrt(variance + epsilon).to(advantages.dtype)
    return whitened.masked_fill(~mask, 0.0)


def token_weights(mask: Tensor, row_weight: Tensor, average: LossAverage) -> Tensor:
    """What each token counts in a loss, before division by the global sum of these weights' rows.

    "sequence": w[b, t] = weight[b] / length[b], so that a sum over tokens is a mean per completion;
    "token":    w[b, t] = weight[b].
    A loss is  sum(w * loss) / normaliser,  with the normaliser from `loss_normaliser` over the whole mini-batch.
    """
    lengths = mask.sum(dim=1, keepdim=True).clamp(min=1)
    weight = row_weight[:, None].expand_as(mask)
    weight = weight / lengths if average == "sequence" else weight
    return weight.masked_fill(~mask, 0.0)


def loss_normaliser(weights: Tensor) -> Tensor:
    """Sum of token weights: the number of completions ("sequence") or of tokens ("token") that count."""
    total: Tensor = weights.sum()
    return total


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """Loss at each token, and where the ratio was outside the clip range."""

    per_token: Tensor
    clipped: Tensor
    ratio: Tensor


def policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_range: float
) -> PolicyLoss:
    """ratio = exp(log pi - log pi_old);   loss = max(-A * ratio, -A * clip(ratio, 1 - eps, 1 + eps))."""
    _check_shapes(logprobs, old_logprobs, advantages, mask)
    ratio = torch.exp((logprobs - old_logprobs).masked_fill(~mask, 0.0))
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    outside = ((ratio - 1).abs() > clip_range) & mask
    return PolicyLoss(torch.maximum(unclipped, clipped).masked_fill(~mask, 0.0), outside, ratio)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip_range: float) -> Tensor:
    """0.5 * max((V - R)^2, (clip(V, V_old - eps, V_old + eps) - R)^2)  at each token, [_B, _T]."""
    _check_shapes(values, old_values, returns, mask)
    near = torch.clamp(values, old_values - clip_range, old_values + clip_range)
    loss = 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2)
    return loss.masked_fill(~mask, 0.0)


def _check_shapes(*tensors: Tensor) -> None:
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) != 1 or tensors[0].dim() != 2:
        raise ValueError(f"expected tensors of one shape [B, T], got {[tuple(t.shape) for t in tensors]}")
