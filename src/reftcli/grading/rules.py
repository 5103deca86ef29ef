"""One rule for each kind of answer: how gold and predicted answers are read, and when two of them are equal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Protocol

from reftcli.grading.choice import gold_letter, option_nearest, read_choice
from reftcli.grading.interface import Verdict
from reftcli.grading.number import parse_number, same_number, show_number, states_a_number
from reftcli.grading.policy import AnswerPolicy
from reftcli.grading.symbolic import SymbolicJudge, same_formula, same_shape
from reftcli.grading.text import hedges, normalised_text
from reftcli.problems.record import AnswerKind, Problem
from reftcli.sandbox.interface import OtherValue, Value


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer as it was read. ``value`` is None where nothing can be compared; ``verdict`` and ``why`` then count."""

    value: Any
    shown: str | None
    verdict: Verdict = Verdict.CORRECT
    why: str = ""


class AnswerRule(Protocol):
    """How answers of one kind are read and compared. Values are opaque to everybody else."""

    def gold(self, problem: Problem) -> Any | None:
        """The gold answer's value; None where the gold answer cannot be read."""
        ...

    def read(self, problem: Problem, text: str) -> Reading:
        """An answer that was written as text."""
        ...

    def value(self, problem: Problem, text: str) -> Any | None:
        """The value of `read` alone: votes ask for it very often."""
        ...

    def read_value(self, problem: Problem, value: Value) -> Reading:
        """An answer that a program returned. ``value`` is not None."""
        ...

    def equal(self, a: Any, b: Any) -> bool: ...


def cut(text: str, limit: int = 120) -> str:
    """``text`` on one line, short enough to stand in a sentence."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


class _ReadsValues:
    """The value of an answer, for rules whose reading costs nothing else."""

    def value(self: AnswerRule, problem: Problem, text: str) -> Any | None:
        return self.read(problem, text).value


class NumberRule:
    """Numbers as exact fractions, equal within the policy's tolerance."""

    def __init__(self, policy: AnswerPolicy) -> None:
        self._policy = policy

    def gold(self, problem: Problem) -> Fraction | None:
        return parse_number(problem.gold_answer, self._policy)

    def read(self, problem: Problem, text: str) -> Reading:
        number = parse_number(text, self._policy)
        if number is not None:
            return Reading(number, show_number(number))
        if states_a_number(text):
            return Reading(
                None, cut(text), Verdict.WRONG, f"the answer {cut(text)!r} does not state exactly one number"
            )
        return Reading(None, None, Verdict.NO_ANSWER, f"the answer {cut(text)!r} holds no number")

    def value(self, problem: Problem, text: str) -> Fraction | None:
        return parse_number(text, self._policy)

    def read_value(self, problem: Problem, value: Value) -> Reading:
        if isinstance(value, str):
            return self.read(problem, value)
        number = exact(value)
        if number is not None:
            return Reading(number, show_number(number) if not isinstance(value, float) else shown_float(value))
        shown = value.name if isinstance(value, OtherValue) else repr(value)
        return Reading(None, shown, Verdict.WRONG, f"the program returned {shown}, which is not a number")

    def equal(self, a: Fraction, b: Fraction) -> bool:
        return same_number(a, b, self._policy)


class ChoiceRule(_ReadsValues):
    """Option letters. A program may also return the text or the number of one option."""

    def __init__(self, policy: AnswerPolicy) -> None:
        self._policy = policy

    def gold(self, problem: Problem) -> str | None:
        return gold_letter(problem.gold_answer, problem.options)

    def read(self, problem: Problem, text: str) -> Reading:
        reading = read_choice(text, problem.options, self._policy)
        if reading.letter is not None:
            return Reading(reading.letter, reading.letter)
        if reading.several:
            return Reading(None, cut(text), Verdict.WRONG, reading.why)
        return Reading(None, None, Verdict.NO_ANSWER, f"{reading.why} (read {cut(text)!r})")

    def read_value(self, problem: Problem, value: Value) -> Reading:
        if isinstance(value, str):
            reading = self.read(problem, value)
            number = parse_number(value, self._policy) if reading.verdict is Verdict.NO_ANSWER else None
        else:
            reading, number = None, exact(value)
        letter = option_nearest(number, problem.options, self._policy) if number is not None else None
        if letter is not None:
            return Reading(letter, letter)
        if reading is not None:
            return reading
        shown = value.name if isinstance(value, OtherValue) else repr(value)
        return Reading(None, None, Verdict.NO_ANSWER, f"the program returned {shown}, which is none of the options")

    def equal(self, a: str, b: str) -> bool:
        return a.upper() == b.upper()


class TextRule(_ReadsValues):
    """Texts, equal when they differ only in case, blanks, outer punctuation or markup."""

    def gold(self, problem: Problem) -> str | None:
        return normalised_text(problem.gold_answer) or None

    def read(self, problem: Problem, text: str) -> Reading:
        plain = normalised_text(text)
        if not plain:
            return Reading(None, None, Verdict.NO_ANSWER, "the answer is empty")
        return Reading(plain, cut(text))

    def read_value(self, problem: Problem, value: Value) -> Reading:
        if isinstance(value, OtherValue):
            return Reading(None, value.name, Verdict.WRONG, f"the program returned {value.name}, which is not a text")
        return self.read(problem, str(value))

    def equal(self, a: str, b: str) -> bool:
        return a == b


class MathRule(_ReadsValues):
    """Symbolic mathematics: the same text; the same number where gold is one; else equal by math-verify."""

    def __init__(self, policy: AnswerPolicy, timeout_s: float) -> None:
        self._policy = policy
        self.judge = SymbolicJudge(timeout_s)

    def gold(self, problem: Problem) -> str | None:
        gold = problem.gold_answer.strip()
        return gold if gold and (self._number(gold) is not None or self.judge.readable(gold)) else None

    def read(self, problem: Problem, text: str) -> Reading:
        return Reading(text.strip(), cut(text))

    def read_value(self, problem: Problem, value: Value) -> Reading:
        if isinstance(value, OtherValue) and value.formula:
            return self.read(problem, value.formula)
        if isinstance(value, OtherValue | bool):
            shown = value.name if isinstance(value, OtherValue) else repr(value)
            return Reading(None, shown, Verdict.WRONG, f"the program returned {shown}, which is not mathematics")
        return self.read(problem, str(value))

    def equal(self, a: str, b: str) -> bool:
        if same_formula(a, b):
            return True
        if not same_shape(a, b):
            return False
        number, other = self._number(b), self._number(a)
        if number is not None:  # math-verify would evaluate 9*2 and find 18 anywhere in a sentence
            return other is not None and same_number(other, number, self._policy)
        if hedges(a) and not hedges(b):
            return False
        return self.judge.equal(a, b)

    def _number(self, text: str) -> Fraction | None:
        return parse_number(text, self._policy)


def exact(value: Value) -> Fraction | None:
    """A number that a program returned, exactly; None for bool, nan, infinities, and what is not one real number."""
    if isinstance(value, complex) and value.imag == 0:
        value = value.real
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
        return None
    if isinstance(value, float):
        # By its shortest decimal, so that 0.1 + tolerance means what it says.
        return Fraction(Decimal(repr(value))) if math.isfinite(value) else None
    return Fraction(value)


def shown_float(value: float) -> str:
    """Its shortest decimal; whole numbers without a point."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e16 else repr(value)


def rule_for(kind: AnswerKind, policy: AnswerPolicy, timeout_s: float) -> AnswerRule:
    """The rule of a kind of answer."""
    if kind == "number":
        return NumberRule(policy)
    if kind == "choice":
        return ChoiceRule(policy)
    if kind == "math":
        return MathRule(policy, timeout_s)
    return TextRule()
