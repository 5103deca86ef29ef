from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from reftcli.grading.build import build_grader
from reftcli.grading.interface import Verdict
from reftcli.problems.prompts import ANSWER_TRIGGER
from reftcli.problems.record import Problem
from reftcli.problems.splits import normalised_question
from reftcli.problems.toy import LETTERS, LEVELS, toy_problem_sets

SIZES = {"train_size": 60, "validation_size": 20, "test_size": 30}


def toy(**changes: Any) -> tuple[list[Problem], list[Problem], list[Problem]]:
    return toy_problem_sets(**{"level": None, "form": "ncot", "answer": None, "seed": 0, **SIZES, **changes})


def test_the_same_seed_gives_the_same_problems() -> None:
    assert toy() == toy()
    assert [p.question for p in toy(seed=1)[0]] != [p.question for p in toy()[0]]


@pytest.mark.parametrize("answer", ["number", "choice"])
def test_splits_have_their_sizes_and_share_no_question(answer: str) -> None:
    splits = toy(answer=answer, level=1, train_size=600)
    assert [len(split) for split in splits] == [600, 20, 30]
    everything = [problem for split in splits for problem in split]
    assert len({problem.item_id for problem in everything}) == 650
    stories = {normalised_question(problem.question.split("\nA)")[0]) for problem in everything}
    assert len(stories) == 650


def test_the_test_split_does_not_change_with_the_size_of_the_others() -> None:
    train, validation, test = toy()
    larger = toy(train_size=100)
    assert larger[2] == test
    assert larger[1] == validation
    assert larger[0][:60] == train
    assert toy(validation_size=7)[2] == test


@pytest.mark.parametrize("level", [1, 2, 3, None])
def test_the_level_is_the_number_of_steps(level: int | None) -> None:
    steps = [problem.chains["pcot"].count("    count = count ") for problem in toy(level=level)[0]]
    if level:
        assert set(steps) == {level}
    else:
        assert Counter(steps) == {1: 20, 2: 20, 3: 20}


@pytest.mark.parametrize("answer", ["number", "choice"])
@pytest.mark.parametrize("level", LEVELS)
def test_executing_the_program_gives_the_gold_answer(answer: str, level: int) -> None:
    for problem in toy(answer=answer, level=level)[0]:
        namespace: dict[str, Any] = {}
        exec(problem.chains["pcot"], namespace)
        assert str(namespace["solution"]()) == problem.gold_answer
        assert namespace["solution"].__doc__ == problem.question


@pytest.mark.parametrize("answer", ["number", "choice"])
def test_gold_chains_grade_correct_and_another_answer_does_not(answer: str) -> None:
    problems = [problem for split in toy(answer=answer) for problem in split]
    grader = build_grader("ncot", answer)  # type: ignore[arg-type]
    golds = [f"{p.chains['ncot']}\n{ANSWER_TRIGGER} {p.gold_answer}" for p in problems]
    assert {grade.verdict for grade in grader.grade(problems, golds)} == {Verdict.CORRECT}
    others = [
        LETTERS[(LETTERS.index(p.gold_answer) + 1) % 4] if answer == "choice" else str(int(p.gold_answer) + 1)
        for p in problems
    ]
    wrong = [f"{p.chains['ncot']}\n{ANSWER_TRIGGER} {other}" for p, other in zip(problems, others, strict=True)]
    assert {grade.verdict for grade in grader.grade(problems, wrong)} == {Verdict.WRONG}


def test_reasoning_states_the_gold_answer_and_one_in_three_shows_its_steps() -> None:
    problems = toy(train_size=600, level=3)[0]
    stepwise = 0
    for problem in problems:
        chain = problem.chains["ncot"]
        assert chain.endswith(f" {problem.gold_answer}.")
        for step in chain.split(". ") if "=" in chain else []:
            left, right = step.rstrip(".").split(" = ")
            assert eval(left) == int(right)
        stepwise += chain.count("=") == 3
    assert 0.25 < stepwise / 600 < 0.42
    assert all(problem.chains["ncot"].count("=") in (0, 3) for problem in problems)


def test_options_are_four_different_numbers_and_the_letter_names_the_right_one() -> None:
    letters: Counter[str] = Counter()
    for problem in toy(answer="choice", train_size=400)[0]:
        assert list(problem.options) == list(LETTERS)
        assert len(set(problem.options.values())) == 4
        assert all(f"\n{letter}) {text}" in problem.question for letter, text in problem.options.items())
        assert problem.answer_kind == "choice"
        namespace: dict[str, Any] = {}
        program = problem.chains["pcot"]
        exec(program[: program.rindex("    return")] + "    return count", namespace)
        assert problem.options[problem.gold_answer] == str(namespace["solution"]())
        letters[problem.gold_answer] += 1
    assert min(letters[letter] for letter in LETTERS) > 60, "no letter may pay by itself"


def test_counts_stay_small() -> None:
    for problem in toy(train_size=500, level=3)[0]:
        assert int(problem.gold_answer) < 60


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": 4}, "levels 1, 2 and 3 .got 4."),
        ({"level": 0}, "levels 1, 2 and 3 .got 0."),
        ({"answer": "math"}, "number or choice .got math."),
    ],
)
def test_what_the_generator_does_not_have(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy(**changes)


def test_more_problems_than_there_are_is_an_error_and_no_endless_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reftcli.problems.toy._NAMES", ("Ann",))
    monkeypatch.setattr("reftcli.problems.toy._THINGS", ("pens",))
    with pytest.raises(ValueError, match="no 400 distinct problems of level 1 for train"):
        toy(level=1, train_size=400)


def test_no_problems_may_be_asked_for() -> None:
    assert toy(validation_size=0)[1] == []
