"""A program from MathQA's ``linear_formula``: ``divide(n0,const_100)|multiply(#0,n1)|``.

``n0, n1, ...`` are the numbers of the problem text in order, ``const_*`` constants, ``#0, #1, ...`` earlier results.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from reftcli.problems.derive.operations import OPERATIONS, apply, arity
from reftcli.problems.numbers import decimal_text, measured_number, numbers_in, plain_number
from reftcli.problems.programs import program_of
from reftcli.problems.record import Problem

_CALL = re.compile(r"(\w+)\((.*)\)")
_RATIO = re.compile(r"([\d.]+)\s*:\s*([\d.]+)")
_TIMES_PI = re.compile(r"([\d./ ]*?)\s*(?:\u03c0|pi)\b(.*)")

NUMBER_TOLERANCE = 0.01
"""How far a numeric program's value may be from the gold answer; the grader's own tolerance."""
CHOICE_TOLERANCE = 0.02
"""How far, as a share of the option's size, a value may be from the option it picks (options are often rounded)."""


def derive_program(problem: Problem) -> str | None:
    """A program whose value is the gold answer: the letter for a choice problem, the number otherwise.

    None where the formula cannot be read or computed, or leads elsewhere.
    """
    stem, formula = problem.row.get("Problem"), problem.row.get("linear_formula")
    if not isinstance(stem, str) or not isinstance(formula, str):
        return None
    work = _work_out(formula, numbers_in(stem))
    if work is None:
        return None
    if problem.answer_kind == "choice":
        return _choice_program(problem, work)
    gold = plain_number(problem.gold_answer)
    if gold is None or abs(work.value - float(gold)) > NUMBER_TOLERANCE:
        return None
    return program_of(problem.question, [*work.lines(), f"result = {work.name}", "return result"])


@dataclass
class _Work:
    """The statements of a formula, worked out as far as they have been read."""

    inputs: dict[str, str] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"t{len(self.values) - 1}"

    @property
    def value(self) -> float:
        return self.values[-1]

    def lines(self) -> list[str]:
        ordered = sorted(self.inputs, key=lambda name: int(name[1:]))
        assigned = [f"{name} = {self.inputs[name]}" for name in ordered]
        imports = ["import math"] if any("math." in step for step in self.steps) else []
        return [*imports, *assigned, *self.steps]


def _work_out(formula: str, numbers: list[str]) -> _Work | None:
    work = _Work()
    for call in filter(None, map(str.strip, formula.split("|"))):
        match = _CALL.fullmatch(call)
        if match is None or match[1] not in OPERATIONS:
            return None
        terms = [_term(text.strip(), work, numbers) for text in match[2].split(",")]
        if None in terms or len(terms) != arity(match[1]):
            return None
        known = [term for term in terms if term is not None]
        value = apply(match[1], [value for _, value in known])
        if value is None:
            return None
        work.steps.append(f"t{len(work.values)} = " + OPERATIONS[match[1]].format(*(text for text, _ in known)))
        work.values.append(value)
    return work if work.values else None


def _term(text: str, work: _Work, numbers: list[str]) -> tuple[str, float] | None:
    """An argument as it is written in the program, and its value."""
    if text == "const_pi":
        return "math.pi", math.pi
    if text.startswith("const_"):
        value = plain_number(text.removeprefix("const_").replace("_", "."))
        return None if value is None else (decimal_text(value), _as_python(value.numerator, value.denominator))
    if re.fullmatch(r"#\d+", text) and int(text[1:]) < len(work.values):
        return f"t{text[1:]}", work.values[int(text[1:])]
    if re.fullmatch(r"n\d+", text) and int(text[1:]) < len(numbers):
        number = plain_number(numbers[int(text[1:])])
        if number is not None:
            work.inputs[text] = decimal_text(number)
            return text, _as_python(number.numerator, number.denominator)
    return None


def _as_python(numerator: int, denominator: int) -> float:
    return numerator if denominator == 1 else numerator / denominator


def _choice_program(problem: Problem, work: _Work) -> str | None:
    """The value, then the option nearest to it: how a person would choose."""
    values = {letter: value for letter, text in problem.options.items() if (value := _option_value(text)) is not None}
    if problem.gold_answer not in values or len(values) < 2:
        return None
    nearest = min(values, key=lambda letter: abs(values[letter] - work.value))
    gap = abs(values[nearest] - work.value)
    if nearest != problem.gold_answer or gap > max(NUMBER_TOLERANCE, CHOICE_TOLERANCE * abs(values[nearest])):
        return None
    shown = ", ".join(f'"{letter}": {_number_text(value)}' for letter, value in values.items())
    pick = f"result = min(options, key=lambda letter: abs(options[letter] - {work.name}))"
    return program_of(problem.question, [*work.lines(), f"options = {{{shown}}}", pick, "return result"])


def _number_text(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _option_value(text: str) -> float | None:
    """The number that an option stands for: a number with or without unit, a ratio, a multiple of pi."""
    if (measured := measured_number(text)) is not None:
        return float(measured)
    if (ratio := _RATIO.fullmatch(text.strip())) and (second := plain_number(ratio[2])):
        first = plain_number(ratio[1])
        return None if first is None else float(first / second)
    if times_pi := _TIMES_PI.fullmatch(text.strip()):
        factor = plain_number(times_pi[1] or "1")
        if factor is not None and measured_number("1" + times_pi[2]) == 1:
            return float(factor) * math.pi
    return None
