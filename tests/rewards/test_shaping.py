from __future__ import annotations

import pytest

from reftcli.grading.interface import Grade, Verdict
from reftcli.recipe.schema import RlSettings
from reftcli.rewards.shaping import Reward, RewardTable, shape_reward, ungradable_share

PAPER = RewardTable()
SAFE = RewardTable(correct=0.8, wrong=0.0, no_answer=0.05)


@pytest.mark.parametrize(
    ("verdict", "paper", "other"),
    [
        (Verdict.CORRECT, 1.0, 0.8),
        (Verdict.WRONG, 0.1, 0.0),
        (Verdict.NO_ANSWER, 0.0, 0.05),
        (Verdict.UNGRADABLE, None, None),
    ],
)
def test_what_each_verdict_earns(verdict: Verdict, paper: float | None, other: float | None) -> None:
    assert PAPER.of(Grade.of(verdict)) == paper
    assert SAFE.of(Grade.of(verdict)) == other


@pytest.mark.parametrize(("score", "expected"), [(0.0, 0.1), (0.5, 0.55), (1.0, 1.0)])
def test_a_partial_score_lies_between_wrong_and_correct(score: float, expected: float) -> None:
    assert PAPER.of(Grade(Verdict.WRONG, score)) == pytest.approx(expected)


def test_a_grade_without_a_score_has_no_reward() -> None:
    assert PAPER.of(Grade(Verdict.WRONG, None)) is None


@pytest.mark.parametrize("zero_truncated", [True, False])
@pytest.mark.parametrize("truncated", [True, False])
def test_ungradable_has_weight_0_whatever_else(truncated: bool, zero_truncated: bool) -> None:
    found = shape_reward(Grade.of(Verdict.UNGRADABLE), SAFE, truncated=truncated, zero_truncated=zero_truncated)
    assert found == Reward(terminal=0.0, per_token=None, weight=0.0)


@pytest.mark.parametrize(
    ("truncated", "zero_truncated", "expected"),
    [(False, False, 1.0), (False, True, 1.0), (True, False, 1.0), (True, True, 0.0)],
)
def test_a_truncated_completion_earns_its_grade_or_nothing(
    truncated: bool, zero_truncated: bool, expected: float
) -> None:
    found = shape_reward(Grade.of(Verdict.CORRECT), PAPER, truncated=truncated, zero_truncated=zero_truncated)
    assert found == Reward(terminal=expected, weight=1.0)


def test_share_of_ungradable_grades() -> None:
    grades = [Grade.of(v) for v in (Verdict.UNGRADABLE, Verdict.WRONG, Verdict.CORRECT, Verdict.NO_ANSWER)]
    assert ungradable_share(grades) == 0.25
    assert ungradable_share([]) == 0.0


def test_under_shuffled_golds_a_wrong_answer_earns_nothing() -> None:
    assert RlSettings(shuffle_gold=True).reward_table == RewardTable(correct=1.0, wrong=0.0, no_answer=0.0)
    assert RlSettings().reward_table == PAPER
