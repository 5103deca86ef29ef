"""The trained network: the policy with a value head on its last hidden state."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from reftcli.errors import UsageError
from reftcli.models.attention import NAME, own_attention, takes_own_attention
from reftcli.models.onednn import products_of
from reftcli.models.packing import in_multiples, packed
from reftcli.models.precision import Autocast
from reftcli.models.read_rows import reading_only, taken
from reftcli.training.engines import gathered
from reftcli.training.ppo.logprobs import at_least_fp32, chunked_logprobs, entropies_of, logprobs_of


@dataclass(frozen=True, slots=True)
class ScoringInput:
    """Rollouts as the network reads them: prompts with their completions, end to end.

    ``input_ids``: [_L], ``lengths`` of the sequences sum to _L. ``predicts``: [_N] different positions that predict a
    completion token; ``targets``: [_N], those tokens.
    """

    input_ids: Tensor
    lengths: tuple[int, ...]
    predicts: Tensor
    targets: Tensor


class SeparateValueModel(nn.Module):
    """V(s) from a backbone of its own."""

    def __init__(self, model: PreTrainedModel, head: nn.Linear) -> None:
        super().__init__()
        self.model = model
        self.head = head

    def forward(self, batch: ScoringInput, packs: bool) -> Tensor:
        """Values [_N, 1] of the positions that predict a completion token."""
        values: Tensor = self.head(predicting_states(self.model, batch, packs))
        return values


class PolicyWithValueHead(nn.Module):
    """pi(a|s) and V(s) from one backbone. Takes the place of TRL's ``PolicyAndValueWrapper``.

    Only positions that predict a completion token go through the vocabulary projection, so the logits are [_N, V]
    and not [_B, _L, V]; with ``logprob_chunk`` never more than [chunk, V] of them exist.
    """

    def __init__(self, policy: PreTrainedModel, value_head: nn.Linear | SeparateValueModel) -> None:
        super().__init__()
        self.policy = policy
        self.value_head = value_head
        self.packs = takes_own_attention(policy)
        self.logprob_chunk: int | None = None
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
        head, n = self.policy.get_output_embeddings(), len(batch.targets)
        with autocast():
            hidden = predicting_states(self.policy, batch, self.packs)
            separate = isinstance(self.value_head, SeparateValueModel)
            values = (self.value_head(batch, self.packs) if separate else self.value_head(hidden)).squeeze(-1)
            hidden, targets = in_multiples(hidden), in_multiples(batch.targets)
            if self.logprob_chunk is not None and not with_entropy:
                logprobs = chunked_logprobs(hidden, head, targets, temperature, self.logprob_chunk)
                return logprobs[:n], at_least_fp32(values), None
            # With entropies there is no gradient that could need all logits at once.
            logprobs, entropy = _read_off(head, hidden, targets, temperature, self.logprob_chunk, with_entropy)
        return logprobs[:n], at_least_fp32(values), entropy[:n] if with_entropy else None


def _read_off(
    head: Any, hidden: Tensor, targets: Tensor, temperature: float, chunk: int | None, with_entropy: bool = False
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies [_N] (those empty unless wanted), with at most [chunk, V] logits at a time."""
    if chunk is None:
        return _logprobs_and_entropies(head(hidden), targets, temperature, with_entropy)
    with gathered(head), products_of(head):
        pieces = zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True)
        parts = [
            _logprobs_and_entropies(functional.linear(h, head.weight, head.bias), y, temperature, with_entropy)
            for h, y in pieces
        ]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _logprobs_and_entropies(
    logits: Tensor, targets: Tensor, temperature: float, with_entropy: bool
) -> tuple[Tensor, Tensor]:
    # The entropy first: the gradient of the log-probabilities overwrites the logits.
    entropy = entropies_of(logits, temperature) if with_entropy else logits.new_empty(0)
    return logprobs_of(logits, targets, temperature), entropy


def reference_logprobs(
    model: PreTrainedModel,
    batch: ScoringInput,
    temperature: float,
    autocast: Autocast,
    packs: bool,
    chunk: int | None = None,
) -> Tensor:
    """log ref(a|s) of the completion tokens, [_N]; with a chunk at most [chunk, V] logits exist."""
    with torch.no_grad(), autocast():
        states, targets = in_multiples(predicting_states(model, batch, packs)), in_multiples(batch.targets)
        logprobs, _ = _read_off(model.get_output_embeddings(), states, targets, temperature, chunk)
    return logprobs[: len(batch.targets)]


class ReferenceModel(nn.Module):
    """The frozen warm-up model as a module that accelerate and DeepSpeed can hold; called as `reference_logprobs`."""

    def __init__(self, model: PreTrainedModel, logprob_chunk: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.logprob_chunk = logprob_chunk
        self.config = model.config  # DeepSpeed's preparation reads it

    def forward(self, batch: ScoringInput, temperature: float, autocast: Autocast, packs: bool) -> Tensor:
        return reference_logprobs(self.model, batch, temperature, autocast, packs, self.logprob_chunk)


def predicting_states(model: PreTrainedModel, batch: ScoringInput, packs: bool) -> Tensor:
    """Last hidden states at the positions that predict a completion token, [_N, H].

    ``packs``: run the sequences end to end, so that nothing is computed for padding; else padded on the right.
    """
    if not packs:
        rows = list(torch.split(batch.input_ids, list(batch.lengths)))
        input_ids = pad_sequence(rows, batch_first=True)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        states = model.base_model(input_ids=input_ids, attention_mask=mask, use_cache=False).last_hidden_state
        selected: Tensor = states[mask.bool()][batch.predicts]
        return selected
    if model.is_gradient_checkpointing and model.config._attn_implementation != NAME:
        model.set_attn_implementation(NAME)  # for good: the backward pass runs the layers again
    with own_attention(model), reading_only(model, batch.predicts):
        states = model.base_model(**packed(batch.input_ids, batch.lengths), use_cache=False).last_hidden_state[0]
    return taken(states, batch.predicts)


def new_value_head(policy: PreTrainedModel) -> nn.Linear:
    """One linear layer with bias whose first values are 0.

    The paper's scripts begin with random weights of standard deviation 0.02. Where hidden states are large, that makes
    values with a standard deviation of 0.6 (SmolLM2-135M), for rewards between 0 and 1: noise in the first advantages.
    """
    head = nn.Linear(policy.config.hidden_size, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def new_value_model(policy: PreTrainedModel, kind: Literal["shared", "separate"]) -> nn.Module:
    """What the setting ``rl.value_model`` means: a head for the policy's backbone, or a copy of the model with one."""
    head = new_value_head(policy)
    if kind == "shared":
        return head
    model = copy.deepcopy(policy)
    model.requires_grad_(True)
    model.get_output_embeddings().requires_grad_(False)
    model.get_input_embeddings().requires_grad_(True)  # the same weights, in models that tie them
    return SeparateValueModel(model, head)


def turn_off_dropout(model: nn.Module) -> None:
    """Also where it is a number and no layer: OPT drops out functionally, and drops whole layers."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "activation_dropout", "layerdrop"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def check_backbone_and_head(policy: PreTrainedModel) -> None:
    """Asserts that head(backbone(x)) are the model's own logits (some families scale or cap them).

    Raises:
        UsageError: they are not, so the losses would be of another model.
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
        raise UsageError(
            f"{type(policy).__name__}: its logits are not head(backbone(x)); this family is not supported in rl"
        )
