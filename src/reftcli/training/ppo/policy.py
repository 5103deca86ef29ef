"""The trained network: the policy with a value head on its last hidden state."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from reftcli.models.precision import Autocast


@dataclass(frozen=True, slots=True)
class ScoringInput:
    """Rollouts as the network reads them: prompt and completion joined, padded on the right.

    Padding on the right of a causal model needs no mask to be exact, but the mask is given all the same.
    ``predicts[b, i]`` is True where position i predicts a completion token; ``targets`` are those tokens, flattened
    row by row, _N in all.
    """

    input_ids: Tensor
    attention_mask: Tensor
    predicts: Tensor
    targets: Tensor


class PolicyWithValueHead(nn.Module):
    """pi(a|s) and V(s) from one backbone. Takes the place of TRL's ``PolicyAndValueWrapper``.

    Only positions that predict a completion token go through the vocabulary projection, so the logits are [_N, V]
    and not [_B, _L, V].
    """

    def __init__(self, policy: PreTrainedModel, value_head: nn.Linear) -> None:
        super().__init__()
        self.policy = policy
        self.value_head = value_head
        self.is_gradient_checkpointing = bool(getattr(policy, "is_gradient_checkpointing", False))

    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        self.policy.gradient_checkpointing_enable(**kwargs)
        self.is_gradient_checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        self.policy.gradient_checkpointing_disable()
        self.is_gradient_checkpointing = False

    def forward(
        self, batch: ScoringInput, temperature: float, autocast: Autocast = nullcontext, with_entropy: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """(log-probabilities [_N], values [_N], entropies [_N] or None) of the completion tokens, in fp32 or better."""
        with autocast():
            hidden = predicting_states(self.policy, batch)
            logits = self.policy.get_output_embeddings()(hidden)
            values = self.value_head(hidden).squeeze(-1)
        logprobs, entropy = _token_statistics(_at_least_fp32(logits) / temperature, batch.targets, with_entropy)
        return logprobs, _at_least_fp32(values), entropy


def reference_logprobs(model: PreTrainedModel, batch: ScoringInput, temperature: float, autocast: Autocast) -> Tensor:
    """log ref(a|s) of the completion tokens, [_N]."""
    with torch.no_grad(), autocast():
        logits = model.get_output_embeddings()(predicting_states(model, batch))
    return _token_statistics(_at_least_fp32(logits) / temperature, batch.targets, with_entropy=False)[0]


def predicting_states(model: PreTrainedModel, batch: ScoringInput) -> Tensor:
    """Last hidden states at the positions that predict a completion token, [_N, H]."""
    states = model.base_model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
    ).last_hidden_state
    selected: Tensor = states[batch.predicts]
    return selected


def _at_least_fp32(x: Tensor) -> Tensor:
    """Statistics of a bf16 forward are made in fp32; those of a float64 model stay as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _token_statistics(logits: Tensor, targets: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
    log_normaliser = torch.logsumexp(logits, dim=-1)
    logprobs = logits.gather(1, targets[:, None]).squeeze(1) - log_normaliser
    if not with_entropy:
        return logprobs, None
    # H = log Z - sum(p * z)
    return logprobs, log_normaliser - (torch.softmax(logits, dim=-1) * logits).sum(dim=-1)


def new_value_head(policy: PreTrainedModel, seed: int) -> nn.Linear:
    """One linear layer with bias, randomly initialised as in the paper's scripts.

    First values are not near 0 where hidden states are large: on SmolLM2-135M their standard deviation is 0.6, on the
    embedded model 0.1, for rewards between 0 and 1.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(policy.config.hidden_size, 1)
        nn.init.normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
    return head


def check_backbone_and_head(policy: PreTrainedModel) -> None:
    """Asserts that head(backbone(x)) are the model's own logits (some families scale or cap them).

    Raises:
        ValueError: they are not, so the losses would be of another model.
    """
    input_ids = torch.arange(4, device=policy.device)[None] % policy.config.vocab_size
    was_training = policy.training
    policy.eval()
    with torch.no_grad():
        expected = policy(input_ids=input_ids, use_cache=False).logits
        states = policy.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        found = policy.get_output_embeddings()(states)
    policy.train(was_training)
    if not torch.allclose(expected.float(), found.float(), rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"{type(policy).__name__}: its logits are not head(backbone(x)); this family is not supported in rl"
        )
