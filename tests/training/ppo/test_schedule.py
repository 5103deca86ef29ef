from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest

from reftcli.training.ppo.schedule import ProblemOrder


@pytest.mark.parametrize(("n", "batch_size"), [(3, 2), (7, 5), (10, 5), (5, 5), (9, 4), (11, 10)])
def test_every_problem_comes_once_a_pass_and_never_twice_in_a_batch(n: int, batch_size: int) -> None:
    for seed in range(5):
        order = ProblemOrder(n, batch_size, seed)
        batches = [order.batch(update) for update in range(6 * n)]
        assert all(len(batch) == len(set(batch)) == batch_size for batch in batches)
        drawn = list(chain.from_iterable(batches))
        for start in range(0, len(drawn) - n + 1, n):
            assert sorted(drawn[start : start + n]) == list(range(n))
        assert set(Counter(drawn).values()) == {6 * batch_size}


def test_a_batch_depends_on_seed_and_update_alone() -> None:
    straight, jumping = ProblemOrder(10, 4, seed=3), ProblemOrder(10, 4, seed=3)
    expected = [straight.batch(update) for update in range(30)]
    assert [jumping.batch(update) for update in reversed(range(30))] == expected[::-1]
    assert [ProblemOrder(10, 4, seed=4).batch(update) for update in range(30)] != expected


def test_passes_differ() -> None:
    order = ProblemOrder(20, 20, seed=0)
    assert order.batch(0) != order.batch(1)


def test_too_few_problems_are_refused() -> None:
    with pytest.raises(ValueError, match="3 problems do not fill a batch of 4"):
        ProblemOrder(3, 4, seed=0)
