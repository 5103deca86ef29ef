from __future__ import annotations

import random

import pytest
import torch

from reftcli.models.packing import Packing

LENGTHS = {
    "one": (5,),
    "of one token": (1, 1, 1),
    "of one length": (4,) * 9,
    "very different": (1, 90, 2, 17, 33, 64, 65, 3),
    "many": tuple(random.Random(0).randint(1, 70) for _ in range(60)),
}
HEADS = [(4, 4), (6, 2), (4, 1)]


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize(("heads", "groups"), HEADS)
def test_a_matrix_holds_the_heads_of_a_group_and_one_sequence(
    lengths: tuple[int, ...], heads: int, groups: int
) -> None:
    layout = Packing(lengths).layout(heads, groups)
    # Each number says where it comes from: token, head.
    tokens = torch.arange(sum(lengths))[:, None] * 10.0
    query = (tokens + torch.arange(heads))[None, :, :, None]
    key = (tokens + torch.arange(groups))[None, :, :, None]
    starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
    seen = []
    matrices = layout.matrices([layout.laid_out(query)], [layout.laid_out(key)])
    for block, (queries, keys) in zip(layout.blocks, matrices, strict=True):
        found = queries.view(groups, len(block.sequences), heads // groups, block.longest)
        for place, sequence in enumerate(block.sequences):
            start, length = starts[sequence], lengths[sequence]
            expected = query[0, start : start + length, :, 0].T.unflatten(0, (groups, -1))
            assert torch.equal(found[:, place, :, :length], expected)
            expected = key[0, start : start + length, :, 0].T
            assert torch.equal(keys.view(groups, -1, block.longest)[:, place, :length], expected)
            seen.append(sequence)
    assert sorted(seen) == list(range(len(lengths)))


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize(("heads", "groups"), HEADS)
def test_there_and_back(lengths: tuple[int, ...], heads: int, groups: int) -> None:
    layout = Packing(lengths).layout(heads, groups)
    for count in (heads, groups):
        states = torch.randn(1, sum(lengths), count, 3)
        assert torch.equal(layout.end_to_end(layout.laid_out(states), count), states)
        among_zeros = layout.laid_out_among_zeros(states)
        assert torch.equal(layout.end_to_end(among_zeros, count), states)
        assert torch.count_nonzero(among_zeros) == states.numel()


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_blocks_are_of_like_length(lengths: tuple[int, ...]) -> None:
    for block in Packing(lengths).layout(4, 2).blocks:
        shortest = min(lengths[sequence] for sequence in block.sequences)
        assert shortest >= 7 / 8 * block.longest
        assert block.longest == max(lengths[sequence] for sequence in block.sequences)


def test_a_block_does_not_grow_with_the_batch() -> None:
    sizes = [
        len(block.sequences) * 8 * block.longest**2
        for n in (10, 100, 1000)
        for block in Packing((64,) * n).layout(8, 8).blocks
    ]
    assert max(sizes) == 1 << 19


def test_blocks_of_one_length_share_their_mask() -> None:
    layout = Packing((64,) * 100).layout(8, 2)
    masks = [layout.mask(block, torch.float64) for block in layout.blocks]
    assert len(masks) > 1
    assert all(mask is masks[0] for mask in masks)
    assert masks[0].dtype == torch.float64
    assert torch.equal(masks[0].exp(), torch.ones(64, 64, dtype=torch.float64).tril().repeat(4, 1))


def test_a_layout_is_made_once() -> None:
    packing = Packing((3, 4))
    assert packing.layout(4, 2) is packing.layout(4, 2) is not packing.layout(4, 4)
