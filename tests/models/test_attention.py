from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    CodeGenConfig,
    CodeGenForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from reftcli.models.attention import NAME, attention, own_attention, takes_own_attention
from reftcli.models.packing import packed

GQA = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
FAMILIES: dict[str, tuple[Any, Any, bool]] = {
    "llama": (LlamaForCausalLM, LlamaConfig(vocab_size=50, num_hidden_layers=2, **GQA), True),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(vocab_size=50, num_hidden_layers=2, **GQA), True),
    "opt": (
        OPTForCausalLM,
        OPTConfig(vocab_size=50, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
                  word_embed_proj_dim=32, max_position_embeddings=64),
        True,
    ),
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4), True),
    "codegen, which has no attention interface": (
        CodeGenForCausalLM,
        CodeGenConfig(vocab_size=50, n_embd=32, n_layer=2, n_head=4, rotary_dim=4),
        False,
    ),
    "gemma2, which caps its scores": (
        Gemma2ForCausalLM,
        Gemma2Config(vocab_size=50, num_hidden_layers=2, head_dim=8, **GQA),
        False,
    ),
}  # fmt: skip


def model(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    cls, config, _ = FAMILIES[family]
    found: PreTrainedModel = cls(config).eval()
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("training", [True, False])
def test_a_family_is_taken_or_left_as_it_was(family: str, training: bool) -> None:
    candidate = model(family).train(training)
    before = candidate.config._attn_implementation
    assert takes_own_attention(candidate) is FAMILIES[family][2]
    assert candidate.config._attn_implementation == before != NAME
    assert candidate.training is training


@pytest.mark.parametrize("family", [family for family, row in FAMILIES.items() if row[2]])
def test_packed_sequences_do_not_see_each_other(family: str) -> None:
    found = model(family)
    first, second = torch.arange(3, 9), torch.arange(20, 24)
    with torch.no_grad(), own_attention(found):
        together = found.base_model(**packed(torch.cat([first, second]), [6, 4]), use_cache=False).last_hidden_state
    with torch.no_grad():
        alone = [found.base_model(input_ids=ids[None]).last_hidden_state[0] for ids in (first, second)]
    torch.testing.assert_close(together[0, :10], torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert found.config._attn_implementation != NAME


def test_one_query_over_grouped_keys_equals_plain_attention() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 6, 1, 8, generator=generator)
    key, value = (torch.randn(3, 2, 5, 8, generator=generator) for _ in range(2))
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 1], [0, 0, 0, 0, 1]]).bool()
    found, _ = attention(torch.nn.Identity(), query, key, value, mask[:, None, None], scaling=0.3)
    scores = query @ key.repeat_interleave(3, 1).transpose(2, 3) * 0.3
    expected = scores.masked_fill(~mask[:, None, None], -torch.inf).softmax(-1) @ value.repeat_interleave(3, 1)
    torch.testing.assert_close(found, expected.transpose(1, 2))


def test_many_queries_are_causal_without_a_mask() -> None:
    query, key, value = (torch.randn(1, heads, 4, 8) for heads in (4, 2, 2))
    found, _ = attention(torch.nn.Identity(), query, key, value, None, scaling=0.5)
    scores = query @ key.repeat_interleave(2, 1).transpose(2, 3) * 0.5
    causal = torch.ones(4, 4).tril().bool()
    expected = scores.masked_fill(~causal, -torch.inf).softmax(-1) @ value.repeat_interleave(2, 1)
    torch.testing.assert_close(found, expected.transpose(1, 2))
