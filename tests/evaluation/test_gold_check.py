from __future__ import annotations

from collections.abc import Sequence

import pytest

from reftcli.evaluation.gold_check import check_golds
from reftcli.problems.load import ProblemSets
from reftcli.problems.record import CotForm, Problem
from reftcli.problems.toy import toy_problem_sets
from reftcli.recipe.schema import GradingSettings
from reftcli.runs.progress import SilentProgress


def program(result: str) -> str:
    return f'def solution():\n    """?"""\n    return {result}'


def problem(item_id: str, gold: str, **chains: str) -> Problem:
    return Problem(item_id, "?", gold, chains=chains, source=f"f:{item_id}")  # type: ignore[arg-type]


def sets(train: Sequence[Problem], test: Sequence[Problem] = (), form: CotForm = "pcot") -> ProblemSets:
    return ProblemSets(list(train), [], list(test), form)


@pytest.mark.parametrize("form", ["ncot", "pcot"])
@pytest.mark.parametrize("answer", ["number", "choice"])
def test_toy_golds_are_all_right(form: CotForm, answer: str) -> None:
    train, validation, test = toy_problem_sets(
        level=None,
        form=form,
        answer=answer,
        train_size=20,
        validation_size=5,
        test_size=5,
        seed=0,  # type: ignore[arg-type]
    )
    found = check_golds(ProblemSets(train, validation, test, form), form, GradingSettings(), SilentProgress())
    assert (found.answers, found.chains, found.ungradable, found.failing) == (30, 30, (), ())
    assert found.rows() == []


def test_wrong_chains_and_unreadable_golds_are_named() -> None:
    found = check_golds(
        sets(
            [
                problem("1", "5", pcot=program("2 + 3")),
                problem("2", "5", pcot=program("2 + 2")),
                problem("3", "no number", pcot=program("1")),
                problem("4", "7", ncot="only words"),
            ],
            [problem("5", "9", pcot=program("1 / 0"))],
        ),
        "pcot",
        GradingSettings(),
        SilentProgress(),
    )
    assert (found.answers, found.chains) == (5, 4)
    assert [(g.split, g.problem.item_id) for g in found.ungradable] == [("train", "3")]
    assert [(g.split, g.problem.item_id) for g in found.failing] == [("train", "2"), ("train", "3"), ("test", "5")]
    assert all(gold.why for gold in (*found.ungradable, *found.failing))
    rows = [(severity, split, count) for severity, split, count, _, _ in found.rows()]
    assert rows == [("error", "train", "1"), ("warning", "train", "2"), ("warning", "test", "1")]
    assert "f:2" in found.rows()[1][4]
    assert found.shares == {"given": 0.2}
    plain = found.to_json()
    assert [row["item_id"] for row in plain["chains_not_correct"]] == ["2", "3", "5"]
    assert plain["ungradable"][0]["source"] == "f:3"


def test_the_answer_of_an_ncot_chain_is_the_gold_itself() -> None:
    found = check_golds(
        sets([problem("1", "5.0", ncot="2 + 3.")], form="ncot"), "ncot", GradingSettings(), SilentProgress()
    )
    assert (found.chains, found.failing) == (1, ())


def test_the_recipe_says_how_golds_are_read() -> None:
    problems = sets([problem("1", "twenty", ncot="so.")], form="ncot")
    assert len(check_golds(problems, "ncot", GradingSettings(), SilentProgress()).ungradable) == 1
    lenient = GradingSettings(number_words=True)
    assert check_golds(problems, "ncot", lenient, SilentProgress()).ungradable == ()
