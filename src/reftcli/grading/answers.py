"""The grader of natural-language chains of thought: finds the final answer, reads it, compares it with the gold one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from reftcli.grading.extraction import find_answer
from reftcli.grading.interface import Grade, Verdict
from reftcli.grading.policy import AnswerPolicy
from reftcli.grading.rules import AnswerRule, MathRule, Reading, cut, rule_for
from reftcli.problems.record import AnswerKind, Problem

NO_MARK = 'no final answer: the completion has no "Therefore, the answer is: ...", no \\boxed{...} and no "#### ..."'


class NcotGrader:
    """Grades N-CoT completions. ``timeout_s`` bounds one symbolic comparison and is used by kind ``math`` alone."""

    def __init__(self, answer: AnswerKind, policy: AnswerPolicy | None = None, timeout_s: float = 2.0) -> None:
        self._answer = answer
        self._policy = policy or AnswerPolicy()
        self._timeout_s = timeout_s
        self._rule = rule_for(answer, self._policy, timeout_s)

    @property
    def spec(self) -> Mapping[str, Any]:
        return {
            "type": "answer",
            "form": "ncot",
            "answer": self._answer,
            "policy": self._policy.to_mapping(),
            "timeout_s": self._timeout_s,
        }

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Grade]:
        return [self._grade(*pair) for pair in zip(problems, completions, strict=True)]

    def same_answer(self, problem: Problem, a: str, b: str) -> bool:
        return same_answer(self._rule, problem, a, b)

    def close(self) -> None:
        if isinstance(self._rule, MathRule):
            self._rule.judge.close()

    def _grade(self, problem: Problem, completion: str) -> Grade:
        started = time.perf_counter()
        gold = self._rule.gold(problem)
        if gold is None:
            return ungradable(problem, self._answer)
        found = find_answer(completion, last_number=self._policy.last_number)
        if found is None:
            return Grade.of(Verdict.NO_ANSWER, why=NO_MARK)
        return judge(self._rule, problem, gold, self._rule.read(problem, found.text), time.perf_counter() - started)


def ungradable(problem: Problem, kind: AnswerKind) -> Grade:
    """The grade where the data is at fault: `reft data check` finds these before training."""
    wanted = {"number": "a number", "math": "mathematics that can be read", "text": "a text"}.get(kind, "")
    if kind == "choice":
        wanted = f"the letter of an option ({', '.join(problem.options) or 'A to E'})"
    where = f" ({problem.source})" if problem.source else ""
    return Grade.of(Verdict.UNGRADABLE, why=f"the gold answer {cut(problem.gold_answer)!r} is not {wanted}{where}")


def judge(rule: AnswerRule, problem: Problem, gold: Any, reading: Reading, seconds: float = 0.0) -> Grade:
    """The grade of an answer that was read, whatever it was read from."""
    if reading.value is None:
        return Grade.of(reading.verdict, reading.shown, reading.why, seconds)
    if rule.equal(reading.value, gold):
        return Grade.of(Verdict.CORRECT, reading.shown, "equal to the gold answer", seconds)
    why = f"answered {reading.shown}, the gold answer is {cut(problem.gold_answer)}"
    return Grade.of(Verdict.WRONG, reading.shown, why, seconds)


def same_answer(rule: AnswerRule, problem: Problem, a: str, b: str) -> bool:
    """Whether two predicted answers are one by the rule; those that cannot be read are one if their texts are equal."""
    if a == b:
        return True
    first, second = rule.value(problem, a), rule.value(problem, b)
    return first is not None and second is not None and rule.equal(first, second)
