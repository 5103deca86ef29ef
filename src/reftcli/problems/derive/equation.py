"""A program from an equation such as SVAMP's ``( 8.0 - 3.0 )``."""

from __future__ import annotations

import ast
from fractions import Fraction

from reftcli.problems.derive.arithmetic import parse_arithmetic, value_of
from reftcli.problems.numbers import decimal_text, plain_number
from reftcli.problems.programs import program_of
from reftcli.problems.record import Problem


def derive_program(problem: Problem) -> str | None:
    """A program that computes ``Equation``; None where it cannot be read or does not give the gold answer."""
    equation, gold = problem.row.get("Equation"), plain_number(problem.gold_answer)
    tree = parse_arithmetic(equation) if isinstance(equation, str) else None
    value = value_of(tree) if tree is not None else None
    if tree is None or value is None or gold is None or abs(value - gold) > Fraction(1, 100):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):  # "8.0" is written 8
            node.value = ast.literal_eval(decimal_text(Fraction(str(node.value))))
    return program_of(problem.question, [f"result = {ast.unparse(tree)}", "return result"])
