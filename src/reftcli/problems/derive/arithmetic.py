"""Arithmetic over literals, read exactly: ``+ - * /`` and small powers as syntax trees over fractions."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

_ALLOWED = re.compile(r"[\d.+\-*/() ]+")
_MAX_CHARS = 400
_LONG_NUMBER = re.compile(r"\d{31}")
_MAX_EXPONENT = 64


def parse_arithmetic(text: str) -> ast.expr | None:
    """The syntax tree of an expression over numbers; None for anything else. ``$`` and thousands commas are ignored."""
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", text.replace("$", "")).strip()
    plain = re.sub(r"(?<![\d.])0+(?=\d)", "", plain)  # "05" is a number to people, not to Python
    if len(plain) > _MAX_CHARS or _ALLOWED.fullmatch(plain) is None or _LONG_NUMBER.search(plain):
        return None
    try:
        return ast.parse(plain, mode="eval").body
    except (SyntaxError, RecursionError, MemoryError):
        return None


def value_of(tree: ast.expr, names: Mapping[str, Fraction] | None = None) -> Fraction | None:
    """The exact value, or None where there is none (division by zero, a large or fractional power, another node)."""
    match tree:
        case ast.Constant(value=int() | float() as value):
            return Fraction(str(value))  # through its text: 0.1 is one tenth
        case ast.Name(id=name):
            return (names or {}).get(name)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            inner = value_of(operand, names)
            return None if inner is None else (-inner if isinstance(sign, ast.USub) else inner)
        case ast.BinOp(left=left, op=operator, right=right):
            a, b = value_of(left, names), value_of(right, names)
            return None if a is None or b is None else _apply(operator, a, b)
    return None


def _apply(operator: ast.operator, a: Fraction, b: Fraction) -> Fraction | None:
    match operator:
        case ast.Add():
            return a + b
        case ast.Sub():
            return a - b
        case ast.Mult():
            return a * b
        case ast.Div():
            return a / b if b else None
        case ast.FloorDiv():
            return Fraction(a // b) if b else None
        case ast.Pow() if b.denominator == 1 and 0 <= b <= _MAX_EXPONENT and abs(a) < 10**6:
            return Fraction(a**b.numerator)
    return None


def with_names(tree: ast.expr, name_for: Callable[[Fraction], str | None]) -> ast.expr:
    """A copy of the tree in which each literal that ``name_for`` has a variable for is that variable."""

    class Replace(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.expr:
            name = name_for(Fraction(str(node.value)))
            return ast.Constant(node.value) if name is None else ast.Name(name, ast.Load())

    copied: ast.expr = Replace().visit(ast.parse(ast.unparse(tree), mode="eval").body)
    return copied


def names_in(tree: ast.expr) -> set[str]:
    """The variables of a tree."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
