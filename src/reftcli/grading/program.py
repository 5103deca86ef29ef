"""The grader of programs: runs a completion in the sandbox and compares what ``solution()`` returned."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from reftcli.grading.answers import judge, same_answer, ungradable
from reftcli.grading.interface import Grade, Verdict
from reftcli.grading.policy import AnswerPolicy
from reftcli.grading.rules import MathRule, rule_for
from reftcli.problems.record import AnswerKind, Problem
from reftcli.sandbox.interface import Outcome, RunLimits, Status
from reftcli.sandbox.pool import Pool

# The prompt's docstring holds the question; here it must not, because a quote at a question's end breaks the program.
_PROMPT = 'def solution():\n    """question"""'
_DEFINES_SOLUTION = re.compile(r"^def[ \t]+solution[ \t]*\(", re.MULTILINE)
_FENCE = re.compile(r"^[ \t]*```[\w+-]*[ \t]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)

_WHY = {
    "NeverReturns": "the program can never return: nothing leaves a loop in it",
    "SIGSYS": "stopped: the program waited, or called the system for something that no program needs",
    "Waited": "stopped: the program waited for something without returning",
    "NoSolution": "the program does not define solution()",
    "EndedItself": "the program ended its own process before it returned a value",
    "ResultTooLarge": "the program wrote more than a result may hold",
    "ProgramTooLong": "the program is longer than any the sandbox accepts",
    "UnreadableResult": "the program sent back something that is not a value",
    "WorkerLost": "the sandbox process that ran it was lost twice",
}


class ProgramGrader:
    """Grades P-CoT completions. ``timeout_s`` is CPU time per program; workers default to the cores available."""

    def __init__(
        self,
        answer: AnswerKind,
        policy: AnswerPolicy | None = None,
        timeout_s: float = 2.0,
        workers: int | None = None,
    ) -> None:
        self._answer = answer
        self._policy = policy or AnswerPolicy()
        self._timeout_s = timeout_s
        self._rule = rule_for(answer, self._policy, timeout_s)
        self._pool = Pool(workers, RunLimits(timeout_s=timeout_s))

    @property
    def spec(self) -> Mapping[str, Any]:
        return {
            "type": "answer",
            "form": "pcot",
            "answer": self._answer,
            "policy": self._policy.to_mapping(),
            "timeout_s": self._timeout_s,
        }

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Grade]:
        golds = [self._rule.gold(problem) for problem in problems]
        programs = [assemble(completion) for completion in completions]
        wanted = [program for program, gold in zip(programs, golds, strict=True) if gold is not None]
        outcomes = iter(self._pool.run(wanted))
        return [
            ungradable(problem, self._answer) if gold is None else self._grade(problem, gold, next(outcomes))
            for problem, gold in zip(problems, golds, strict=True)
        ]

    def same_answer(self, problem: Problem, a: str, b: str) -> bool:
        return same_answer(self._rule, problem, a, b)

    def close(self) -> None:
        self._pool.close()
        if isinstance(self._rule, MathRule):
            self._rule.judge.close()

    def _grade(self, problem: Problem, gold: Any, outcome: Outcome) -> Grade:
        if outcome.status is not Status.OK:
            return Grade.of(Verdict.NO_ANSWER, None, self._explain(outcome), outcome.cpu_s)
        if outcome.value is None:
            return Grade.of(Verdict.NO_ANSWER, None, "the program returned None", outcome.cpu_s)
        return judge(self._rule, problem, gold, self._rule.read_value(problem, outcome.value), outcome.cpu_s)

    def _explain(self, outcome: Outcome) -> str:
        if outcome.error in _WHY:
            return _WHY[outcome.error]
        if outcome.status is Status.TIMEOUT:
            return f"stopped: the program used up {self._timeout_s:g} s of CPU time without returning"
        if outcome.status is Status.MEMORY:
            return "stopped: the program needs more memory than it may have"
        if outcome.status is Status.KILLED:
            return f"the program crashed its process ({outcome.error})"
        return f"the program raised {outcome.error}" + (f": {outcome.message}" if outcome.message else "")


def assemble(completion: str) -> str:
    """The program that a completion stands for.

    Whole, where it starts at the left edge and defines ``solution()`` there (in a markdown fence or not); otherwise
    the continuation of the prompt, whose cut may stand before or after the newline that ends the docstring's line.
    """
    text = completion.replace("\r\n", "\n")
    if "```" in text:
        fenced = [block for block in _FENCE.findall(text) if _DEFINES_SOLUTION.search(block)]
        if fenced:
            return str(fenced[0])
    if _DEFINES_SOLUTION.search(text) and not _starts_indented(text):
        return text
    return _PROMPT + ("" if text.startswith("\n") else "\n") + text


def _starts_indented(text: str) -> bool:
    """A continuation starts with its body, and may go on to define ``solution`` again after it."""
    for line in text.split("\n"):
        if line.strip():
            return line[0] in " \t"
    return False
