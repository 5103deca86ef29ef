from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from reftcli.models.attention import attention
from reftcli.models.packing import Packing
from reftcli.models.short_sequences import attend_short_sequences, takes_short_sequences

LENGTHS = {
    "one": (7,),
    "of one token": (1, 1),
    "very different": (1, 90, 2, 17, 33, 64, 65, 3),
    "more than fit in a block": (50,) * 70,
}


def random_states(lengths: tuple[int, ...], heads: int, groups: int, **kind: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value in the layout that projections leave: views of [1, N, heads, D]."""
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(1, sum(lengths), n, 8, generator=generator, **kind) for n in (heads, groups, groups)]
    query, key, value = (states.requires_grad_().transpose(1, 2) for states in made)
    return query, key, value


def naive(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scale: float) -> Tensor:
    """Head by head and sequence by sequence."""
    per, outputs = query.shape[1] // key.shape[1], []
    for start, length in zip(torch.tensor([0, *lengths]).cumsum(0).tolist(), lengths, strict=False):
        here = slice(start, start + length)
        later = torch.ones(length, length).triu(1).bool()
        heads = [
            (query[0, h, here] @ key[0, h // per, here].T * scale).masked_fill(later, -torch.inf).softmax(-1)
            @ value[0, h // per, here]
            for h in range(query.shape[1])
        ]
        outputs.append(torch.stack(heads, dim=1))
    return torch.cat(outputs)[None]


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_outputs_and_gradients_are_those_of_plain_attention(
    lengths: tuple[int, ...], heads: int, groups: int, scale: float | None
) -> None:
    states = random_states(lengths, heads, groups, dtype=torch.float64)
    expected = naive(*states, lengths, 8**-0.5 if scale is None else scale)
    found = attend_short_sequences(*states, Packing(lengths), scale)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    towards = torch.randn(found.shape, dtype=torch.float64)
    gradients = torch.autograd.grad(found, states, towards)
    for one, other in zip(gradients, torch.autograd.grad(expected, states, towards), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_it_is_what_the_library_computes_where_it_does_not_serve() -> None:
    lengths, towards = (30, 25, 32), torch.randn(1, 87, 4, 8)
    states = random_states(lengths, 4, 2)
    found, _ = attention(torch.nn.Identity(), *states, None, packing=Packing(lengths))
    # A dropout that drops nothing takes the other way.
    other, _ = attention(torch.nn.Identity(), *states, None, packing=Packing(lengths), dropout=1e-30)
    assert "ShortSequences" in type(found.grad_fn).__name__
    assert "ShortSequences" not in type(other.grad_fn).__name__
    torch.testing.assert_close(found, other, rtol=1e-5, atol=1e-6)
    gradients = zip(*(torch.autograd.grad(output, states, towards) for output in (found, other)), strict=True)
    for one, another in gradients:
        torch.testing.assert_close(one, another, rtol=1e-4, atol=1e-5)


def test_without_a_gradient_nothing_is_kept() -> None:
    with torch.no_grad():
        found = attend_short_sequences(*random_states((5, 6), 2, 2), Packing((5, 6)), None)
    assert found.grad_fn is None
    frozen = [states.detach() for states in random_states((5, 6), 2, 2)]
    assert not attend_short_sequences(*frozen, Packing((5, 6)), None).requires_grad


def test_only_some_gradients_may_be_wanted() -> None:
    query, key, value = random_states((5, 6), 2, 2)
    found = attend_short_sequences(query.detach(), key, value.detach(), Packing((5, 6)), None)
    assert torch.autograd.grad(found.sum(), key)[0].shape == key.shape


@pytest.mark.parametrize("bad", range(3), ids=["query", "key", "value"])
def test_what_is_no_number_stays_in_its_sequence(bad: int) -> None:
    lengths = (16, 15, 14, 16)
    states = random_states(lengths, 4, 2)
    with torch.no_grad():
        states[bad][0, :, 0] = torch.nan
    found = attend_short_sequences(*states, Packing(lengths), None)
    assert found[:, 16:].isfinite().all()
    for gradient in torch.autograd.grad(found[:, 16:].sum(), states):
        assert gradient[0, :, 16:].isfinite().all()


def test_gradients_may_be_taken_twice() -> None:
    states = random_states((5, 6), 4, 2)
    found = attend_short_sequences(*states, Packing((5, 6)), None).sum()  # a gradient without memory of its own
    first = torch.autograd.grad(found, states, retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(found, states), strict=True):
        assert torch.equal(one, other)


def test_lengths_must_add_up() -> None:
    with pytest.raises(ValueError, match="7 tokens are packed, not 11 queries, 11 keys"):
        attend_short_sequences(*random_states((5, 6), 2, 2), Packing((3, 4)), None)


def test_where_it_serves() -> None:
    states, short = random_states((5, 6), 2, 2), Packing((5, 6))
    assert takes_short_sequences(*states, short, 0.0)
    assert not takes_short_sequences(*states, short, 0.1)
    assert takes_short_sequences(*states, Packing((5, 32)), 0.0)  # heads of 8 elements
    assert not takes_short_sequences(*states, Packing((5, 33)), 0.0)
    wide = [torch.zeros(1, 2, 1, 64)] * 3
    assert takes_short_sequences(*wide, Packing((5, 192)), 0.0)
    assert not takes_short_sequences(*wide, Packing((5, 193)), 0.0)
    assert not takes_short_sequences(*states[:2], states[2][..., :4], short, 0.0)
    assert not takes_short_sequences(*(x.bfloat16() for x in states), short, 0.0)
    assert not takes_short_sequences(states[0], states[1], states[2].bfloat16(), short, 0.0)
    assert not takes_short_sequences(*(x.to("meta") for x in states), short, 0.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert not takes_short_sequences(*states, short, 0.0)
