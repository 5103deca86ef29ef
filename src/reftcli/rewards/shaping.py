"""Reward shaping: grade -> reward record. The only place where a verdict becomes a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reftcli.grading.interface import Grade, Verdict


@dataclass(frozen=True, slots=True)
class RewardTable:
    """What each verdict earns (the paper: 1, 0.1, 0). An ungradable completion earns nothing: it has no reward."""

    correct: float = 1.0
    wrong: float = 0.1
    no_answer: float = 0.0

    def of(self, grade: Grade) -> float | None:
        """The terminal reward of a grade; None where the completion could not be graded.

        A partial score (a grader of our own or a user's) lies between wrong and correct:
        r = wrong + score * (correct - wrong).
        """
        if grade.verdict is Verdict.UNGRADABLE or grade.score is None:
            return None
        if grade.verdict is Verdict.NO_ANSWER:
            return self.no_answer
        if grade.verdict is Verdict.CORRECT:
            return self.correct
        return self.wrong + grade.score * (self.correct - self.wrong)


@dataclass(frozen=True, slots=True)
class Reward:
    """What PPO takes for one completion.

    ``terminal`` is added on the last token of the completion, ``per_token`` (one value a token, process rewards) on
    each. ``weight`` is 0 for a completion that could not be graded: it counts in no mean, whitening or loss.
    """

    terminal: float
    per_token: tuple[float, ...] | None = None
    weight: float = 1.0


def shape_reward(grade: Grade, table: RewardTable, *, truncated: bool, zero_truncated: bool) -> Reward:
    """The reward of one completion.

    Args:
        truncated: the completion was cut off by the length limit.
        zero_truncated: such a completion earns 0 (``rl.truncated: zero``) instead of what its grade says.
    """
    terminal = table.of(grade)
    if terminal is None:
        return Reward(terminal=0.0, weight=0.0)
    if truncated and zero_truncated:
        return Reward(terminal=0.0)
    return Reward(terminal=terminal)


def ungradable_share(grades: Sequence[Grade]) -> float:
    """Share of grades, 0 to 1, that say nothing about the model."""
    return sum(grade.verdict is Verdict.UNGRADABLE for grade in grades) / max(len(grades), 1)
