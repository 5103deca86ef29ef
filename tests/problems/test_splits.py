from __future__ import annotations

import random

from reftcli.problems.record import Problem, Split
from reftcli.problems.splits import carve, normalised_question, with_unique_ids

SIZES: dict[Split, int] = {"validation": 20, "test": 30}


def problem(number: int, question: str | None = None) -> Problem:
    return Problem(f"p_{number}", question or f"What is {number} + 1?", str(number + 1))


# every tenth question stands twice, in another dress
PROBLEMS = [problem(n) for n in range(200)] + [problem(1000 + n, f"what is {n}  + 1 ?") for n in range(0, 200, 10)]


def questions(problems: list[Problem]) -> set[str]:
    return {normalised_question(p.question) for p in problems}


def test_splits_have_the_sizes_asked_for_and_share_no_question() -> None:
    train, carved = carve(PROBLEMS, SIZES, seed=42)
    validation, test = carved["validation"], carved["test"]
    assert (len(train), len(validation), len(test)) == (len(PROBLEMS) - 50, 20, 30)
    assert not questions(train) & questions(validation)
    assert not questions(train) & questions(test)
    assert not questions(validation) & questions(test)
    assert {p.item_id for p in [*train, *validation, *test]} == {p.item_id for p in PROBLEMS}


def test_the_order_of_the_rows_does_not_matter() -> None:
    shuffled = PROBLEMS.copy()
    random.Random(1).shuffle(shuffled)
    assert carve(PROBLEMS, SIZES, seed=42)[1] == carve(shuffled, SIZES, seed=42)[1]


def test_another_seed_carves_other_problems() -> None:
    assert carve(PROBLEMS, SIZES, seed=42)[1]["test"] != carve(PROBLEMS, SIZES, seed=43)[1]["test"]


def test_test_problems_do_not_depend_on_the_size_of_validation() -> None:
    more: dict[Split, int] = {"validation": 60, "test": 30}
    assert carve(PROBLEMS, SIZES, seed=42)[1]["test"] == carve(PROBLEMS, more, seed=42)[1]["test"]


def test_questions_of_splits_with_files_of_their_own_are_not_carved() -> None:
    elsewhere = questions(PROBLEMS[:100])
    train, carved = carve(PROBLEMS, SIZES, 42, elsewhere)
    assert not questions(carved["validation"] + carved["test"]) & elsewhere
    assert elsewhere <= questions(train)


def test_the_rest_keeps_its_order() -> None:
    train, _ = carve(PROBLEMS, SIZES, seed=42)
    assert train == [p for p in PROBLEMS if p in train]


def test_a_group_larger_than_the_split_is_passed_over() -> None:
    same = [problem(n, "Always the same?") for n in range(5)]
    train, carved = carve([*same, *PROBLEMS], {"test": 3}, seed=42)
    assert len(carved["test"]) == 3
    assert {p.item_id for p in same} <= {p.item_id for p in train}


def test_normalised_question_joins_what_people_call_duplicates() -> None:
    assert normalised_question("Bob 's car gets 10.0 km . How far ?") == normalised_question(
        "bob's car gets 10.0 km. How far?"
    )
    assert normalised_question("What is 3 - 2?") != normalised_question("What is 3 + 2?")


def test_ids_are_unique_across_and_within_splits() -> None:
    splits: dict[Split, list[Problem]] = {
        "train": [problem(0), problem(1), problem(1)],
        "validation": [problem(7)],
        "test": [problem(0), problem(5)],
    }
    named = with_unique_ids(splits)
    assert [p.item_id for p in named["train"]] == ["p_0", "p_1", "p_1#2"]
    assert [p.item_id for p in named["validation"]] == ["p_7"]
    assert [p.item_id for p in named["test"]] == ["test-p_0", "test-p_5"]
