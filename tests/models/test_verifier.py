from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from reftcli.models.load import load_classifier, load_model, save_model
from reftcli.models.source import resolve_model
from reftcli.models.tiny import tiny_tokenizer
from reftcli.models.verifier import LikelihoodClassifier, class_logits, encode, padded, save_classifier

PAIRS = [("Ann has 5 books. How many?", " She has 5."), ("Ben", " 7"), ("Cat has 3 pens. Dan", " has 4 pens more. 7")]


@pytest.fixture(scope="module")
def classifier() -> LikelihoodClassifier:
    return LikelihoodClassifier(load_model(resolve_model("tiny")).model.eval(), weights=(0.5, 0.25), bias=2.0)


def rows(pairs: list[tuple[str, str]]) -> list[dict[str, object]]:
    return [
        {"input_ids": each.input_ids, "prompt_tokens": each.prompt_tokens} for each in encode(tiny_tokenizer(), pairs)
    ]


def by_hand(model: torch.nn.Module, prompt: str, completion: str) -> tuple[float, float]:
    """Sum and least of log pi(token) over the completion's tokens, one text at a time."""
    tokenizer = tiny_tokenizer()
    ids = tokenizer(prompt + completion, add_special_tokens=False)["input_ids"]
    start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    logprobs = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0], dim=-1)
    found = [float(logprobs[i - 1, ids[i]]) for i in range(start, len(ids))]
    return sum(found), min(found)


@torch.no_grad()
def test_the_logit_is_a_linear_function_of_sum_and_least_log_probability(classifier: LikelihoodClassifier) -> None:
    logits = class_logits(classifier, padded(rows(PAIRS), 0))
    evidence = [by_hand(classifier.model, *pair) for pair in PAIRS]
    expected = [0.5 * total + 0.25 * least + 2.0 for total, least in evidence]
    assert (logits[:, 1] - logits[:, 0]).tolist() == pytest.approx(expected, abs=1e-3)


@torch.no_grad()
def test_absolute_positions_are_right_in_a_padded_batch() -> None:
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=len(tiny_tokenizer()), n_embd=16, n_layer=1, n_head=2)).eval()
    torch.nn.init.normal_(gpt2.transformer.wpe.weight)
    found = LikelihoodClassifier(gpt2).evidence(**padded(rows(PAIRS), 0))
    for row, pair in zip(found.tolist(), PAIRS, strict=True):
        assert row == pytest.approx(by_hand(gpt2, *pair), abs=1e-3)
    assert LikelihoodClassifier(gpt2).evidence(**padded(rows([("Ben", "")]), 0)).tolist() == [[0.0, 0.0]]


def test_a_token_across_the_cut_is_the_completions() -> None:
    (merged,) = encode(tiny_tokenizer(), [("Ann has 1", "2 books")])
    alone = tiny_tokenizer()("Ann has", add_special_tokens=False)["input_ids"]
    assert merged.prompt_tokens == len(alone)
    assert encode(tiny_tokenizer(), []) == []


def test_the_head_is_fitted_like_a_logistic_regression(classifier: LikelihoodClassifier) -> None:
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal((-20, -4), (8, 2), (20_000, 2)), dtype=torch.float32)
    correct = torch.tensor(rng.random(20_000)) < torch.sigmoid(0.3 * x[:, 0] + 0.5 * x[:, 1] + 7)
    fitted = LikelihoodClassifier(classifier.model)
    fitted.fit(x, correct)
    assert fitted.head.weight[0].tolist() == pytest.approx([0.3, 0.5], abs=0.05)
    assert fitted.head.bias.item() == pytest.approx(7, abs=0.4)
    # Weights of classes shift the odds and nothing else.
    fitted.fit(x, correct, torch.tensor([1.0, np.e]))
    assert fitted.head.weight[0].tolist() == pytest.approx([0.3, 0.5], abs=0.05)
    assert fitted.head.bias.item() == pytest.approx(8, abs=0.5)
    separable = torch.tensor([[-9.0, -3.0], [-2.0, -1.0], [-1.0, -0.5]])
    fitted.fit(separable, torch.tensor([False, True, True]))
    assert all(0 <= weight < 100 for weight in fitted.head.weight[0].tolist())


def test_what_is_likelier_never_looks_worse(classifier: LikelihoodClassifier) -> None:
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal((-20, -4), (8, 2), (5_000, 2)), dtype=torch.float32)
    fitted, alone = LikelihoodClassifier(classifier.model), LikelihoodClassifier(classifier.model)
    for signs, used in (((1.0, -1.0), [True, False]), ((-1.0, 1.0), [False, True])):
        odds = signs[0] * 0.3 * x[:, 0] + signs[1] * 0.5 * x[:, 1] + 3 * signs[0]
        correct = torch.tensor(rng.random(5_000)) < torch.sigmoid(odds)
        fitted.fit(x, correct)
        # What is left is what one finds who knows nothing of the other.
        alone.fit(x * torch.tensor(used), correct)
        assert [weight > 0 for weight in fitted.head.weight[0].tolist()] == used
        assert torch.allclose(fitted.head.weight, alone.head.weight, atol=1e-4)
        assert torch.allclose(fitted.head.bias, alone.head.bias, atol=1e-3)
    correct = torch.tensor(rng.random(5_000)) < torch.sigmoid(-0.3 * x[:, 0] - 0.5 * x[:, 1] - 7)
    fitted.fit(x, correct)
    assert fitted.head.weight[0].tolist() == [0, 0]
    assert fitted.head.bias.item() == pytest.approx(float(torch.logit(correct.double().mean())), abs=1e-4)


@torch.no_grad()
def test_a_saved_likelihood_is_a_causal_model_and_loads_as_it_was(
    classifier: LikelihoodClassifier, tmp_path: Path
) -> None:
    save_classifier(tmp_path, classifier, tiny_tokenizer())
    loaded = load_classifier(resolve_model(str(tmp_path)), 0).eval()
    batch = padded(rows(PAIRS), 0)
    assert isinstance(loaded, LikelihoodClassifier)
    assert torch.allclose(class_logits(loaded, batch), class_logits(classifier, batch), atol=1e-5)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.vocab_size == len(tiny_tokenizer())


def test_what_a_new_classifier_is_can_be_chosen(tmp_path: Path) -> None:
    loaded = load_model(resolve_model("tiny"))
    save_model(tmp_path, loaded.model, loaded.tokenizer)
    assert isinstance(load_classifier(resolve_model(str(tmp_path)), 0, "likelihood"), LikelihoodClassifier)
    assert load_classifier(resolve_model(str(tmp_path)), 0).config.num_labels == 2
