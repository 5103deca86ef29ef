from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from reftcli.errors import UsageError
from reftcli.models.attention import takes_own_attention
from reftcli.models.lora import add_lora, has_lora, lora_state, merged_state, without_lora

IDS = torch.arange(3, 9)[None]


def model(family: str) -> Any:
    torch.manual_seed(0)
    if family == "gpt2":  # its layers are transposed ones, and its head is tied
        return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4)).eval()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, num_hidden_layers=2, **sizes)).eval()


def trained(family: str) -> Any:
    found = model(family)
    add_lora(found, rank=4, alpha=8, seed=1)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return found


@torch.no_grad()
def logits(found: Any) -> torch.Tensor:
    return found(input_ids=IDS, use_cache=False).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_new_layers_change_nothing_and_are_all_that_trains(family: str) -> None:
    plain, found = model(family), model(family)
    add_lora(found, rank=4, alpha=8, seed=1)
    assert type(found) is type(plain)
    assert torch.equal(logits(found), logits(plain))
    assert has_lora(found)
    assert not has_lora(plain)
    trainable = [name for name, parameter in found.named_parameters() if parameter.requires_grad]
    assert trainable
    assert all(".lora_" in name for name in trainable)
    assert takes_own_attention(found)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_without_its_layers_a_model_is_what_it_was(family: str) -> None:
    found = trained(family)
    changed = logits(found)
    with without_lora(found):
        torch.testing.assert_close(logits(found), logits(model(family)))
    torch.testing.assert_close(logits(found), changed)
    assert not torch.allclose(changed, logits(model(family)))
    assert any(parameter.requires_grad for parameter in found.parameters())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_merged_weights_load_as_a_plain_model(family: str, tmp_path: Path) -> None:
    found = trained(family)
    assert merged_state(found).keys() == model(family).state_dict().keys()
    found.save_pretrained(tmp_path, state_dict=merged_state(found))
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert not has_lora(again)
    torch.testing.assert_close(logits(again), logits(found), rtol=1e-4, atol=1e-5)


def test_the_layers_alone_restore_a_model() -> None:
    found, again = trained("llama"), model("llama")
    add_lora(again, rank=4, alpha=8, seed=9)
    again.load_state_dict(lora_state(found), strict=False)
    assert torch.equal(logits(again), logits(found))


def test_layers_are_a_function_of_their_seed() -> None:
    states = []
    for seed in (1, 1, 2):
        found = model("llama")
        add_lora(found, rank=2, alpha=8, seed=seed)
        states.append(torch.cat([tensor.flatten() for tensor in lora_state(found).values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(UsageError, match="LoRA does not fit"):
        add_lora(nn.Sequential(nn.LayerNorm(3)), rank=2, alpha=8, seed=0)  # type: ignore[arg-type]
