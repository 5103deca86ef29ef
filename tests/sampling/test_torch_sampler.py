from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from reftcli.problems.prompts import Prompt
from reftcli.problems.record import Problem
from reftcli.sampling.interface import Completion, Decode
from reftcli.sampling.torch_sampler import TorchSampler

VOCABULARY, EOS, PAD = 16, 2, 0
CONTEXT = 96


@cache
def model(family: str = "llama") -> PreTrainedModel:
    """Weights large enough for distributions far from uniform, a vocabulary small enough for EOS to come."""
    torch.manual_seed(4)
    if family == "gpt2":  # absolute positions, which left padding shifts
        gpt2 = GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT, initializer_range=0.3
        )
        return GPT2LMHeadModel(gpt2).eval()
    llama = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(llama).eval()


def sampler(batch_size: int = 8, pad: int = PAD, context: int = CONTEXT, family: str = "llama") -> TorchSampler:
    return TorchSampler(model(family), eos_token_id=EOS, pad_token_id=pad, batch_size=batch_size, context=context)


def prompts(n: int = 9, seed: int = 0) -> list[Prompt]:
    """Prompts of 1 to 20 tokens, PAD and EOS among them."""
    rng = random.Random(seed)
    ids = [tuple(rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 20))) for _ in range(n)]
    return [Prompt(Problem(f"item-{i}", "?", "1"), "?", tokens) for i, tokens in enumerate(ids)]


def drawn(completions: list[Completion]) -> dict[tuple[str, int], tuple[tuple[int, ...], bool]]:
    return {(c.prompt.problem.item_id, c.sample_index): (c.token_ids, c.ended) for c in completions}


GREEDY = Decode("greedy", 24)
SAMPLED = Decode("sampled", 24, seed=7)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_greedy_equals_generate_token_for_token(family: str) -> None:
    found = sampler(batch_size=4, family=family).sample(prompts(), 1, GREEDY)
    assert {len(c.token_ids) for c in found} != {24}, "some completion must end before the limit"
    for completion in found:
        ids = torch.tensor([completion.prompt.token_ids])
        expected = model(family).generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=24,
            eos_token_id=EOS,
            pad_token_id=PAD,
        )
        assert list(completion.token_ids) == expected[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("decode", [GREEDY, SAMPLED, Decode("sampled", 24, temperature=0.6, top_k=4, top_p=0.9)])
def test_logprobs_of_decoding_are_those_of_a_full_forward(family: str, decode: Decode) -> None:
    for completion in sampler(batch_size=5, family=family).sample(prompts(), 2, decode):
        ids = [*completion.prompt.token_ids, *completion.token_ids]
        with torch.no_grad():
            logits = model(family)(input_ids=torch.tensor([ids])).logits[0, len(completion.prompt.token_ids) - 1 : -1]
        expected = torch.log_softmax(logits / decode.temperature, dim=-1)
        expected = expected.gather(1, torch.tensor(completion.token_ids)[:, None]).squeeze(1)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, rtol=0, atol=1e-4)
        assert completion.logprob == pytest.approx(float(expected.sum()), abs=1e-3)


def test_a_completion_does_not_depend_on_batching_order_or_company() -> None:
    expected = drawn(sampler(batch_size=64).sample(prompts(), 4, SAMPLED))
    assert len(set(expected.values())) > 20
    for batch_size in (1, 3, 8):
        assert drawn(sampler(batch_size=batch_size).sample(prompts(), 4, SAMPLED)) == expected
    assert drawn(sampler().sample(prompts()[::-1], 4, SAMPLED)) == expected
    alone = drawn(sampler().sample(prompts()[3:4], 2, SAMPLED))
    assert alone == {key: expected[key] for key in [("item-3", 0), ("item-3", 1)]}


def test_a_lower_limit_cuts_the_same_completions() -> None:
    long, short = (drawn(sampler().sample(prompts(), 2, Decode("sampled", n, seed=7))) for n in (24, 5))
    assert all(short[key][0] == long[key][0][:5] for key in long)


def test_completions_come_in_the_order_of_the_prompts() -> None:
    found = sampler(batch_size=4).sample(prompts(), 3, SAMPLED)
    order = [(c.prompt.problem.item_id, c.sample_index) for c in found]
    assert order == [(f"item-{i}", j) for i in range(9) for j in range(3)]


@pytest.mark.parametrize("changed", [Decode("sampled", 24, seed=7, stream=1), Decode("sampled", 24, seed=8)])
def test_stream_and_seed_change_the_draws(changed: Decode) -> None:
    before = drawn(sampler().sample(prompts(), 2, SAMPLED))
    after = drawn(sampler().sample(prompts(), 2, changed))
    assert sum(before[key] == after[key] for key in before) <= len(before) // 4


def test_samples_of_one_prompt_and_twins_of_a_prompt_differ() -> None:
    twins = [Prompt(Problem(name, "?", "1"), "?", (5, 6, 7)) for name in ("a", "b")]
    found = drawn(sampler().sample(twins, 3, SAMPLED))
    assert len(set(found.values())) == 6


def test_top_k_1_is_greedy() -> None:
    greedy = sampler().sample(prompts(), 1, GREEDY)
    only_best = sampler().sample(prompts(), 1, Decode("sampled", 24, top_k=1, seed=3))
    assert drawn(only_best) == drawn(greedy)


def first_tokens(decode: Decode, n: int = 3000) -> Counter[int]:
    prompt = [Prompt(Problem("p", "?", "1"), "?", (3, 9, 4))]
    return Counter(c.token_ids[0] for c in sampler(batch_size=n).sample(prompt, n, decode))


def exact_probabilities(temperature: float = 1.0) -> torch.Tensor:
    with torch.no_grad():
        logits = model()(input_ids=torch.tensor([[3, 9, 4]])).logits[0, -1]
    return torch.softmax(logits.double() / temperature, dim=-1)


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_frequencies_are_the_models_probabilities(temperature: float) -> None:
    n, p = 3000, exact_probabilities(temperature)
    counts = first_tokens(Decode("sampled", 1, temperature=temperature, seed=11), n)
    expected = (p * n).tolist()
    common = [token for token in range(VOCABULARY) if expected[token] >= 5]
    assert len(common) >= 4
    # One class for all rare tokens together.
    observed = [*(counts[token] for token in common), n - sum(counts[token] for token in common)]
    wanted = [*(expected[token] for token in common), n - sum(expected[token] for token in common)]
    distance = sum((o - w) ** 2 / w for o, w in zip(observed, wanted, strict=True) if w > 0)
    half_degrees = torch.tensor((len(observed) - 1) / 2)
    p_value = float(torch.special.gammaincc(half_degrees, torch.tensor(distance / 2)))
    assert p_value > 1e-3


def test_frequencies_behind_drawn_tokens_by_chi_square() -> None:
    """Of the second and third token behind the most common ones: decoding, not only prefill."""
    chisquare = pytest.importorskip("scipy.stats").chisquare
    prompt = Prompt(Problem("p", "?", "1"), "?", (3, 9, 4))
    found = [c.token_ids for c in sampler(batch_size=500).sample([prompt], 6000, Decode("sampled", 3, seed=2))]
    before: tuple[int, ...] = ()
    for place in range(3):
        following = Counter(ids[place] for ids in found if ids[:place] == before and len(ids) > place)
        with torch.no_grad():
            logits = model()(input_ids=torch.tensor([[*prompt.token_ids, *before]])).logits[0, -1]
        n = following.total()
        expected = torch.softmax(logits.double(), dim=-1) * n
        common = [token for token in range(VOCABULARY) if expected[token] >= 5]
        counts, wanted = [following[token] for token in common], [float(expected[token]) for token in common]
        if n - sum(wanted) > 5:  # one class for all rare tokens together
            counts, wanted = [*counts, n - sum(counts)], [*wanted, n - sum(wanted)]
        assert len(counts) >= 3
        assert chisquare(counts, [w * sum(counts) / sum(wanted) for w in wanted]).pvalue > 1e-3
        before = (*before, max((t for t in following if t != EOS), key=lambda t: following[t]))


def test_samples_can_be_drawn_in_several_calls() -> None:
    whole = drawn(sampler().sample(prompts(), 5, SAMPLED))
    parts = [sampler().sample(prompts(), n, replace(SAMPLED, first_sample=first)) for first, n in ((0, 2), (2, 3))]
    assert drawn([completion for part in parts for completion in part]) == whole


@pytest.mark.parametrize("k", [2, 3])
def test_top_k_keeps_the_k_most_likely_and_their_proportions(k: int) -> None:
    p, kept = exact_probabilities(), set(exact_probabilities().topk(k).indices.tolist())
    counts = first_tokens(Decode("sampled", 1, top_k=k, seed=5))
    assert set(counts) == kept
    expected = {token: float(p[token] / p[list(kept)].sum()) for token in kept}
    for token, share in expected.items():
        assert counts[token] / 3000 == pytest.approx(share, abs=0.04)


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    ordered, index = exact_probabilities().sort(descending=True)
    total = ordered.cumsum(0)
    for size in (1, 2, 4):  # between the sum of size - 1 and that of size, so exactly ``size`` tokens are needed
        top_p = float((total[size - 1] + (total[size - 2] if size > 1 else 0.0)) / 2)
        counts = first_tokens(Decode("sampled", 1, top_p=top_p, seed=5))
        assert set(counts) == set(index[:size].tolist())


def test_top_k_comes_before_top_p() -> None:
    """Of the two best tokens alone, the best one reaches this top_p; of all tokens it would not."""
    ordered, index = exact_probabilities().sort(descending=True)
    among_two = float(ordered[0] / (ordered[0] + ordered[1]))
    top_p = (float(ordered[0]) + among_two) / 2
    assert set(first_tokens(Decode("sampled", 1, top_k=2, top_p=top_p, seed=5))) == {int(index[0])}


def test_a_completion_ends_with_its_first_eos_or_at_the_limit() -> None:
    found = sampler().sample(prompts(), 8, SAMPLED)
    ended = [c for c in found if c.ended]
    cut = [c for c in found if not c.ended]
    assert ended
    assert cut
    assert all(c.token_ids.index(EOS) == len(c.token_ids) - 1 for c in ended)
    assert all(len(c.token_ids) == 24 and EOS not in c.token_ids for c in cut)
    assert all(len(c.logprobs) == len(c.token_ids) for c in found)
    assert all(c.total_tokens == len(c.prompt.token_ids) + len(c.token_ids) for c in found)


def test_an_eos_on_the_last_allowed_token_counts_as_ended() -> None:
    ended = next(c for c in sampler().sample(prompts(), 8, SAMPLED) if c.ended and len(c.token_ids) > 1)
    limit = len(ended.token_ids)
    again = sampler().sample([ended.prompt], 8, Decode("sampled", limit, seed=7))[ended.sample_index]
    assert again.ended
    assert again.token_ids == ended.token_ids


def test_prompt_and_completion_stay_within_the_context() -> None:
    wide = drawn(sampler().sample(prompts(), 4, SAMPLED))
    narrow = sampler(context=22).sample(prompts(), 4, SAMPLED)
    assert any(c.total_tokens == 22 for c in narrow)
    for completion in narrow:
        assert completion.total_tokens <= 22
        ids = wide[completion.prompt.problem.item_id, completion.sample_index][0]
        assert completion.token_ids == ids[: 22 - len(completion.prompt.token_ids)]


def test_the_limit_of_prompt_and_completion_together() -> None:
    wide = drawn(sampler().sample(prompts(), 4, SAMPLED))
    assert max(len(prompt.token_ids) for prompt in prompts()) < 22
    for completion in sampler().sample(prompts(), 4, Decode("sampled", 24, max_total_tokens=22, seed=7)):
        ids = wide[completion.prompt.problem.item_id, completion.sample_index][0]
        assert completion.token_ids == ids[: 22 - len(completion.prompt.token_ids)]


def test_pad_may_be_eos() -> None:
    for decode in (GREEDY, SAMPLED):
        assert drawn(sampler(pad=EOS).sample(prompts(), 2, decode)) == drawn(sampler().sample(prompts(), 2, decode))


def test_progress_counts_every_completion_once() -> None:
    done: list[int] = []
    sampler(batch_size=4).sample(prompts(), 3, SAMPLED, on_done=done.append)
    assert sum(done) == 27
    assert len(done) > 1


def test_the_mode_of_the_model_is_restored_and_no_gradient_kept() -> None:
    training = model().train()
    try:
        with_dropout_mode = drawn(sampler().sample(prompts(), 1, SAMPLED))
        assert training.training
    finally:
        training.eval()
    assert drawn(sampler().sample(prompts(), 1, SAMPLED)) == with_dropout_mode
    assert not model().training
