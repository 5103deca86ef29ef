from __future__ import annotations

import numpy as np
import pytest
import torch

from reftcli.sampling.choosing import choose
from reftcli.sampling.interface import Decode

SAMPLED = Decode("sampled", 1)


def logits(rows: int, size: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1, 2, 16, 255, 256, 257, 512, 700, 49152])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_token_is_where_the_cumulative_distribution_passes_the_number(size: int, temperature: float) -> None:
    rows = 40
    scores, uniform = logits(rows, size), torch.rand(rows, generator=torch.Generator().manual_seed(1))
    found = choose(scores.clone(), Decode("sampled", 1, temperature=temperature), uniform)
    p = torch.softmax(scores.double() / temperature, dim=-1)
    upto = p.cumsum(dim=-1)
    place = found.tokens[:, None]
    low, high = (upto - p).gather(1, place).squeeze(1), upto.gather(1, place).squeeze(1)
    assert bool(((low - 1e-5 <= uniform) & (uniform <= high + 1e-5)).all())
    torch.testing.assert_close(found.logprobs.double(), p.log().gather(1, place).squeeze(1), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.entropies.double(), -(p * p.log()).sum(dim=-1), rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [3, 256, 600, 1024])
@pytest.mark.parametrize("number", [0.0, 1e-9, 0.5, 1 - 2**-24])
def test_a_token_that_cannot_come_never_does_at_either_end(size: int, number: float) -> None:
    for only in {0, 1, size // 2, size - 1}:
        scores = torch.full((2, size), -torch.inf)
        scores[:, only] = torch.tensor([-40.0, 40.0])
        found = choose(scores, SAMPLED, torch.full((2,), number))
        assert found.tokens.tolist() == [only, only]
        assert found.logprobs.tolist() == found.entropies.tolist() == [0.0, 0.0]


def test_tokens_of_weight_zero_between_others_are_never_chosen() -> None:
    scores = logits(1, 2000).repeat(3000, 1)
    scores[:, ::2] = -torch.inf
    found = choose(scores, SAMPLED, torch.linspace(0, 1 - 1e-6, 3000))
    assert bool((found.tokens % 2 == 1).all())
    assert bool(torch.isfinite(found.entropies).all())


def test_greedy_takes_the_best_and_its_logprob_is_at_temperature_1() -> None:
    scores = logits(5, 300)
    found = choose(scores.clone(), Decode("greedy", 1, temperature=0.1), None)
    assert found.tokens.tolist() == scores.argmax(dim=-1).tolist()
    torch.testing.assert_close(found.logprobs, torch.log_softmax(scores, -1).max(-1).values, rtol=0, atol=1e-5)


def test_frequencies_over_a_large_vocabulary_by_chi_square() -> None:
    chisquare = pytest.importorskip("scipy.stats").chisquare
    n, size = 20_000, 1500
    scores = logits(1, size, seed=5) / 3
    uniform = torch.from_numpy(np.random.default_rng(2).random(n, dtype=np.float32))
    tokens = torch.cat([choose(scores.repeat(2000, 1), SAMPLED, part).tokens for part in uniform.split(2000)])
    expected = torch.softmax(scores[0].double(), dim=-1).numpy() * n
    observed = np.bincount(tokens.numpy(), minlength=size)
    common = expected >= 5
    assert common.sum() > 100
    counts = np.append(observed[common], observed[~common].sum())
    assert chisquare(counts, np.append(expected[common], expected[~common].sum())).pvalue > 1e-3
