from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from reftcli.models.attention import NAME, own_attention, takes_own_attention
from reftcli.models.lora import add_lora
from reftcli.models.packing import packed
from reftcli.models.read_rows import reading_only, taken

IDS, LENGTHS, READ = torch.arange(3, 23), [12, 8], torch.tensor([3, 4, 11, 15])


def llama(dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=50, num_hidden_layers=3, hidden_size=32, intermediate_size=64,
                         num_attention_heads=4, num_key_value_heads=2)  # fmt: skip
    return LlamaForCausalLM(config).to(dtype).eval()


def states_and_gradients(model: Any, pruned: bool) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    rows = READ if pruned else torch.arange(len(IDS))
    with own_attention(model), reading_only(model, rows):
        states = model.base_model(**packed(IDS, LENGTHS), use_cache=False).last_hidden_state[0, READ]
    (states**2).sum().backward()
    return states, {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def rows_seen_by(module: nn.Module) -> list[int]:
    seen: list[int] = []
    module.register_forward_hook(lambda _, arguments, __: seen.append(arguments[0].shape[:-1].numel()))
    return seen


def test_states_and_gradients_are_the_same_where_they_are_read() -> None:
    model = llama()
    (found, gradients), (expected, others) = (states_and_gradients(model, pruned) for pruned in (True, False))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], rtol=1e-9, atol=1e-12)


def test_only_the_last_layer_is_spared() -> None:
    model = llama()
    seen = [rows_seen_by(layer.mlp.gate_proj) for layer in model.model.layers]
    states_and_gradients(model, pruned=True)
    assert seen == [[20], [20], [4]]


def test_afterwards_everything_is_computed_again_also_after_an_error() -> None:
    model = llama()
    seen = rows_seen_by(model.model.layers[-1].mlp.gate_proj)
    with pytest.raises(KeyError), reading_only(model, READ):
        raise KeyError
    model(input_ids=IDS[None])
    assert seen == [20]


def test_layers_that_are_run_again_are_left_alone() -> None:
    model = llama().train()
    model.set_attn_implementation(NAME)  # they are run again after the block
    expected, gradients = states_and_gradients(model, pruned=True)
    model.gradient_checkpointing_enable()
    seen = rows_seen_by(model.model.layers[-1].mlp.gate_proj)
    found, again = states_and_gradients(model, pruned=True)
    assert seen == [20, 20]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(again, gradients)


def test_without_gradients_nothing_is_run_again() -> None:
    model = llama().train()
    model.gradient_checkpointing_enable()
    seen = rows_seen_by(model.model.layers[-1].mlp.gate_proj)
    with torch.no_grad(), own_attention(model), reading_only(model, READ):
        model.base_model(**packed(IDS, LENGTHS), use_cache=False)
    assert seen == [4]


@pytest.mark.parametrize("n", [0, 1, 70])
def test_any_number_of_rows_in_any_order(n: int) -> None:
    model, ids = llama(), torch.arange(100) % 50
    rows = torch.randperm(100, generator=torch.Generator().manual_seed(0))[:n]
    with torch.no_grad(), own_attention(model):
        expected = model.base_model(**packed(ids, [60, 40]), use_cache=False).last_hidden_state[0]
        seen = rows_seen_by(model.model.layers[-1].mlp.gate_proj)
        with reading_only(model, rows):
            found = model.base_model(**packed(ids, [60, 40]), use_cache=False).last_hidden_state[0]
    torch.testing.assert_close(found[rows], expected[rows], rtol=1e-10, atol=1e-12)
    assert n <= seen[0] <= n * 33 / 32


def test_layers_of_lora_are_spared_too() -> None:
    model = llama()
    add_lora(model, rank=2, alpha=2, seed=0)
    (found, gradients), (expected, others) = (states_and_gradients(model, pruned) for pruned in (True, False))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert gradients.keys() == others.keys() != set()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], rtol=1e-9, atol=1e-12)


def test_a_family_without_such_a_module_computes_all() -> None:
    model = OPTForCausalLM(
        OPTConfig(vocab_size=50, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
                  word_embed_proj_dim=32, max_position_embeddings=64)
    ).eval()  # fmt: skip
    seen = rows_seen_by(model.model.decoder.layers[-1].fc1)
    with torch.no_grad(), reading_only(model, READ):
        model(input_ids=IDS[None])
    assert seen == [20]


class MixesPositions(nn.Module):
    def forward(self, states: Tensor) -> Tensor:
        return states.cumsum(dim=1)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_family_that_mixes_positions_there_is_found_out(checkpointing: bool) -> None:
    model = llama(torch.float32)
    if checkpointing:
        model.gradient_checkpointing_enable()
    assert takes_own_attention(model)
    model.model.layers[-1].mlp = MixesPositions()
    assert not takes_own_attention(model)


def test_a_network_that_is_called_otherwise_is_refused() -> None:
    model = llama()
    network, states = model.model.layers[-1].mlp, torch.zeros(2, 20, 32, dtype=torch.float64)
    for wrong in (lambda: network(states), lambda: network(states[0]), lambda: network(x=states[:1])):
        with pytest.raises(ValueError, match=r"mlp|unpack"), reading_only(model, READ):
            wrong()


def test_taken_rows_and_their_gradient() -> None:
    states = torch.randn(6, 3, requires_grad=True)
    rows = torch.tensor([4, 0, 5])
    found = taken(states, rows)
    assert torch.equal(found, states[rows])
    towards = torch.randn(3, 3)
    (gradient,) = torch.autograd.grad(found, states, towards)
    expected = torch.zeros(6, 3)
    expected[rows] = towards
    assert torch.equal(gradient, expected)
