from __future__ import annotations

import pytest
import torch
from transformers import GraniteConfig, GraniteForCausalLM, LlamaConfig, LlamaForCausalLM

from reftcli.errors import UsageError
from reftcli.models.precision import autocast_for
from reftcli.training.ppo import policy as policy_module
from reftcli.training.ppo.policy import (
    PolicyWithValueHead,
    ScoringInput,
    check_backbone_and_head,
    new_value_head,
    reference_logprobs,
)

SIZES = {
    "vocab_size": 30,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def llama(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**SIZES, initializer_range=0.3)).eval()


def batch() -> ScoringInput:
    """Row 0: prompt of 2, completion of 3. Row 1: prompt of 1, completion of 1."""
    return ScoringInput(
        input_ids=torch.tensor([3, 4, 5, 6, 7, 8, 9]),
        lengths=(5, 2),
        predicts=torch.tensor([1, 2, 3, 5]),
        targets=torch.tensor([5, 6, 7, 9]),
    )


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_entropies_and_values_are_those_of_the_full_forward(temperature: float, packs: bool) -> None:
    model = llama()
    head = new_value_head(model)
    policy = PolicyWithValueHead(model, head)
    assert policy.packs
    policy.packs = packs
    logprobs, values, entropy = policy(batch(), temperature, with_entropy=True)
    expected = []
    for ids, start in (([3, 4, 5, 6, 7], 2), ([8, 9], 1)):
        output = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        log_p = torch.log_softmax(output.logits[0] / temperature, dim=-1)
        for position in range(start - 1, len(ids) - 1):
            p = log_p[position].exp()
            value = head(output.hidden_states[-1][0, position]).item()
            expected.append(
                (log_p[position, ids[position + 1]].item(), value, -(p * log_p[position]).sum().item()),
            )
    assert entropy is not None
    found = torch.stack([logprobs, values, entropy], dim=1)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("packs", [True, False])
def test_chunks_change_nothing_that_is_scored(packs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama()
    policy = PolicyWithValueHead(model, new_value_head(model))
    policy.packs = packs
    with torch.no_grad():
        whole = policy(batch(), 0.9, with_entropy=True)
        reference = reference_logprobs(model, batch(), 0.9, autocast_for("fp32", torch.device("cpu")), packs)
        policy.logprob_chunk = 3
        seen: list[int] = []
        made = policy_module._logprobs_and_entropies
        monkeypatch.setattr(
            policy_module,
            "_logprobs_and_entropies",
            lambda logits, *rest: seen.append(len(logits)) or made(logits, *rest),
        )
        for found, expected in zip(policy(batch(), 0.9, with_entropy=True), whole, strict=True):
            torch.testing.assert_close(found, expected)
        again = reference_logprobs(model, batch(), 0.9, autocast_for("fp32", torch.device("cpu")), packs, chunk=3)
        torch.testing.assert_close(again, reference)
    assert 0 < max(seen) <= 3


def test_chunks_under_bf16_are_the_same_arithmetic_forwards_and_backwards() -> None:
    gradients = []
    for chunk in (None, 3):
        model = llama()
        policy = PolicyWithValueHead(model, new_value_head(model))
        policy.logprob_chunk = chunk
        logprobs, _, _ = policy(batch(), 1.0, autocast_for("bf16", torch.device("cpu")))
        logprobs.sum().backward()
        gradients.append((logprobs.detach(), model.lm_head.weight.grad, model.model.layers[0].mlp.up_proj.weight.grad))
    for whole, chunked in zip(*gradients, strict=True):
        assert float((whole - chunked).norm()) < 5e-3 * float(whole.norm())


def test_entropies_cost_nothing_where_nobody_asks() -> None:
    model = llama()
    assert PolicyWithValueHead(model, new_value_head(model))(batch(), 1.0)[2] is None


def test_reference_logprobs_are_those_of_the_policy_and_carry_no_gradient() -> None:
    model = llama()
    policy = PolicyWithValueHead(model, new_value_head(model))
    found = reference_logprobs(model, batch(), 0.9, autocast_for("fp32", torch.device("cpu")), packs=True)
    torch.testing.assert_close(found, policy(batch(), 0.9)[0].detach())
    assert not found.requires_grad


def test_bf16_forward_gives_fp32_numbers_near_the_exact_ones() -> None:
    model = llama()
    policy = PolicyWithValueHead(model, new_value_head(model))
    exact, _, _ = policy(batch(), 1.0)
    logprobs, values, _ = policy(batch(), 1.0, autocast_for("bf16", torch.device("cpu")))
    assert logprobs.dtype == values.dtype == torch.float32
    assert 0 < float((logprobs - exact).abs().max()) < 0.3


def test_first_values_are_zero() -> None:
    model = llama()
    _, values, _ = PolicyWithValueHead(model, new_value_head(model))(batch(), 1.0)
    assert values.abs().max() == 0


def test_a_family_that_scales_its_logits_is_refused() -> None:
    torch.manual_seed(0)
    scaled = GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=4.0, initializer_range=0.3))
    with pytest.raises(UsageError, match="GraniteForCausalLM"):
        check_backbone_and_head(scaled)


@pytest.mark.parametrize("training", [True, False])
def test_a_plain_family_passes_and_keeps_its_mode(training: bool) -> None:
    model = llama().train(training)
    check_backbone_and_head(model)
    assert model.training is training
