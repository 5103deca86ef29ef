from __future__ import annotations

import json

import pytest
import torch

from reftcli.models.load import frozen_copy
from reftcli.models.tiny import TOKENIZER_FILE, build_tokenizer, tiny_model, tiny_tokenizer


def test_the_shipped_tokenizer_is_the_one_that_the_code_builds() -> None:
    built = json.loads(build_tokenizer().to_str())
    assert built == json.loads(TOKENIZER_FILE.read_text(encoding="utf-8"))


def test_weights_are_the_same_every_time_and_about_a_million() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = tiny_model(720)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    second = tiny_model(720)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert 0.7e6 < sum(p.numel() for p in first.parameters()) < 1.3e6


@pytest.mark.parametrize("text", ["Ann has 17 apples.\n    return count", "é ☃ 日本\ttab", '"""', " leading", ""])
def test_any_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_numbers_of_the_toy_problems_are_single_tokens() -> None:
    tokenizer = tiny_tokenizer()
    for n in range(2, 30):
        assert len(tokenizer(f" {n}", add_special_tokens=False)["input_ids"]) == 1


def test_special_tokens_match_the_model() -> None:
    tokenizer, model = tiny_tokenizer(), tiny_model(720)
    assert len(tokenizer) <= model.config.vocab_size
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 2)
    assert (model.config.pad_token_id, model.config.eos_token_id) == (0, 2)
    assert tokenizer.padding_side == "left"


def test_a_frozen_copy_does_not_follow_the_original() -> None:
    model = tiny_model(720)
    reference = frozen_copy(model)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert not torch.equal(next(model.parameters()), next(reference.parameters()))
    assert not any(p.requires_grad for p in reference.parameters())
    assert not reference.training
