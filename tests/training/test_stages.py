from __future__ import annotations

from collections import Counter

import pytest

from reftcli.problems.toy import toy_problem_sets
from reftcli.recipe.layers import check_recipe
from reftcli.training.stages import planned_updates, shuffled_golds

PROBLEMS = toy_problem_sets(level=3, form="ncot", answer=None, train_size=300, validation_size=0, test_size=0, seed=0)[
    0
]


def test_golds_move_between_problems_and_nothing_else_changes() -> None:
    shuffled = shuffled_golds(PROBLEMS, seed=1)
    assert [p.question for p in shuffled] == [p.question for p in PROBLEMS]
    assert [p.item_id for p in shuffled] == [p.item_id for p in PROBLEMS]
    assert Counter(p.gold_answer for p in shuffled) == Counter(p.gold_answer for p in PROBLEMS)
    kept = sum(a.gold_answer == b.gold_answer for a, b in zip(shuffled, PROBLEMS, strict=True))
    by_chance = sum((n / 300) ** 2 for n in Counter(p.gold_answer for p in PROBLEMS).values())
    assert kept / 300 == pytest.approx(by_chance, abs=0.05), "no more than chance leaves in place"


def test_the_shuffle_is_a_function_of_the_seed() -> None:
    assert shuffled_golds(PROBLEMS, 1) == shuffled_golds(PROBLEMS, 1)
    assert shuffled_golds(PROBLEMS, 1) != shuffled_golds(PROBLEMS, 2)


@pytest.mark.parametrize(
    ("rl", "problems", "expected"),
    [
        ({"updates": 7, "epochs": 300, "batch_size": 32}, 1000, 7),
        ({"epochs": 3, "batch_size": 32}, 64, 6),
        ({"epochs": 3, "batch_size": 32}, 65, 7),
        ({"epochs": 0.01, "batch_size": 32}, 40, 1),
    ],
)
def test_number_of_updates(rl: dict[str, float], problems: int, expected: int) -> None:
    assert planned_updates(check_recipe({"rl": rl}, "tests"), problems) == expected
