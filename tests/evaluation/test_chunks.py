from __future__ import annotations

from collections import Counter

import pytest

from reftcli.evaluation.chunks import Chunk, Pass, plan_chunks
from reftcli.sampling.interface import Decode

GREEDY, SAMPLED = Decode("greedy", 8), Decode("sampled", 8, seed=1)


def rows(chunk: Chunk) -> list[tuple[str, int, int]]:
    indices = chunk.decode.sample_indices(chunk.n)
    return [(chunk.decode.decoding, problem, i) for problem in range(chunk.start, chunk.end) for i in indices]


@pytest.mark.parametrize("problems", [1, 2, 7, 100])
@pytest.mark.parametrize("k", [1, 3, 8, 9, 20])
@pytest.mark.parametrize("size", [1, 2, 8, 1000])
def test_every_row_is_in_one_chunk_and_chunks_are_in_the_order_of_the_rows(problems: int, k: int, size: int) -> None:
    chunks = plan_chunks(problems, [Pass(GREEDY, 1), Pass(SAMPLED, k)], size)
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert all(1 <= chunk.completions == len(rows(chunk)) <= size for chunk in chunks)
    found = [row for chunk in chunks for row in rows(chunk)]
    expected = [("greedy", p, 0) for p in range(problems)] + [
        ("sampled", p, i) for p in range(problems) for i in range(k)
    ]
    assert Counter(found) == Counter(expected)
    assert found == expected


def test_whole_problems_where_they_fit_and_parts_of_one_where_they_do_not() -> None:
    assert [(c.start, c.end, c.n) for c in plan_chunks(5, [Pass(SAMPLED, 3)], 7)] == [(0, 2, 3), (2, 4, 3), (4, 5, 3)]
    split = plan_chunks(2, [Pass(SAMPLED, 5)], 2)
    assert [(c.start, c.n, c.decode.first_sample) for c in split] == [
        (0, 2, 0), (0, 2, 2), (0, 1, 4), (1, 2, 0), (1, 2, 2), (1, 1, 4),
    ]  # fmt: skip
