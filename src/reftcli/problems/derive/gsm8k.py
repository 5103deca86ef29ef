"""A program from GSM8K's calculator annotations: each ``<<48/2=24>>`` is a step, later steps use earlier results."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from fractions import Fraction

from reftcli.problems.derive.arithmetic import names_in, parse_arithmetic, value_of, with_names
from reftcli.problems.numbers import numbers_in, plain_number
from reftcli.problems.programs import program_of
from reftcli.problems.record import Problem

TOLERANCE = Fraction(1, 100)
"""How far a program's value may be from the gold answer; the grader's own tolerance."""

# An annotation, or the same written as plain text ("192*100=$1920"): people left some steps out of the calculator.
_AMOUNT = r"\$?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?<=\d)"
_STEP = re.compile(
    rf"<<(?P<annotation>.*?)>>|(?<![\w.$<])(?P<left>{_AMOUNT}(?:\s*[-+*/x\u00d7\u2212\u2013]\s*{_AMOUNT})+)\s*=\s*(?P<right>{_AMOUNT})(?![\w/*])"
)


_PLAIN_SIGNS = str.maketrans({"x": "*", "\u00d7": "*", "\u2212": "-", "\u2013": "-"})


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    tree: ast.expr
    value: Fraction
    stated: Fraction


def derive_program(problem: Problem) -> str | None:
    """A program for a GSM8K problem whose value is the gold answer; None where its annotations do not lead there."""
    answer, gold = problem.row.get("answer"), plain_number(problem.gold_answer)
    if not isinstance(answer, str) or gold is None:
        return None
    written = _written_steps(answer)
    in_question = {plain_number(number) for number in numbers_in(problem.question)}
    # Where a rounded result is used further on, its exact value can miss the gold: then that literal stays as written.
    for chain_rounded in (True, False):
        steps = _chained(written, in_question, chain_rounded)
        reached = [step for step in steps if abs(step.value - gold) <= TOLERANCE]
        if reached:
            return program_of(problem.question, _statements(_needed(steps, reached[-1]), reached[-1]))
    return None


def _written_steps(answer: str) -> list[tuple[ast.expr, Fraction]]:
    """Each step that reads as ``expression=number``, in order: annotations, and plain text where the sum is right."""
    pairs = []
    for match in _STEP.finditer(answer):
        if match["annotation"] is not None:
            left, _, right = match["annotation"].rpartition("=")
        else:
            left, right = match["left"].translate(_PLAIN_SIGNS), match["right"].replace("$", "")
        tree, stated = parse_arithmetic(left), plain_number(right)
        if tree is None or stated is None:
            continue
        if match["annotation"] is not None or value_of(tree) == stated:
            pairs.append((tree, stated))
    return pairs


def _chained(
    written: list[tuple[ast.expr, Fraction]], in_question: set[Fraction | None], chain_rounded: bool
) -> list[_Step]:
    steps: list[_Step] = []
    used: set[str] = set()

    def earlier(value: Fraction) -> str | None:
        """The latest earlier step with this result; of a number that the question states too, only an unused one."""
        for step in reversed(steps):
            if step.stated != value or not (chain_rounded or step.value == step.stated):
                continue
            if step.name not in used or value not in in_question:
                return step.name
        return None

    for tree, stated in written:
        if isinstance(tree, ast.Constant) and len(written) > 1:
            continue  # "<<5=5>>" repeats a number
        named = with_names(tree, earlier)
        value = value_of(named, {step.name: step.value for step in steps})
        if value is None:
            continue
        used |= names_in(named)
        steps.append(_Step(f"step_{len(steps) + 1}", named, value, stated))
    return steps


def _needed(steps: list[_Step], last: _Step) -> list[_Step]:
    """The steps that the last one rests on, itself included, in order."""
    wanted = {last.name}
    for step in reversed(steps):
        if step.name in wanted:
            wanted |= names_in(step.tree)
    return [step for step in steps if step.name in wanted]


def _statements(steps: list[_Step], last: _Step) -> list[str]:
    renamed = {step.name: f"step_{number}" for number, step in enumerate(steps, 1)}
    lines = []
    for step in steps:
        for node in ast.walk(step.tree):
            if isinstance(node, ast.Name):
                node.id = renamed[node.id]
        lines.append(f"{renamed[step.name]} = {ast.unparse(step.tree)}")
    return [*lines, f"result = {renamed[last.name]}", "return result"]
