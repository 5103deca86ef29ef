"""Which programs may share a process: those whose syntax alone shows that they can change nothing but themselves.

Everything is refused that is not listed here, so a construct that nobody thought of gets a process of its own. The
audit saves forks; it is no boundary. Programs that share a process are locked down like all others, and all that one of
them could gain by fooling the audit is to spoil the answers of at most 127 others of the same policy.
"""

from __future__ import annotations

import ast
import builtins
import collections
import datetime
import fractions
import functools
import heapq
import itertools
import math
import statistics
import types
from collections.abc import Mapping, Sequence

_HARMLESS = frozenset(
    {
        ast.Module, ast.arguments, ast.arg, ast.keyword, ast.alias, ast.comprehension, ast.Load, ast.Store, ast.Del,
        ast.Expr, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Delete, ast.Return, ast.Pass, ast.Break, ast.Continue,
        ast.If, ast.For, ast.While, ast.Assert, ast.Raise, ast.Constant, ast.JoinedStr, ast.FormattedValue,
        ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd, ast.Invert, ast.IfExp, ast.NamedExpr,
        ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.LShift, ast.RShift,
        ast.BitOr, ast.BitXor, ast.BitAnd, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Is,
        ast.IsNot, ast.In, ast.NotIn, ast.Call, ast.Lambda, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.Subscript,
        ast.Slice, ast.Starred, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp,
    }
)  # fmt: skip
_BUILTINS = frozenset(  # none of them hands out a namespace, a type's insides or anything outside the program
    "abs all any bin bool chr complex dict divmod enumerate filter float frozenset hex int isinstance iter len list "  # noqa: SIM905
    "map max min next oct ord pow print range reversed round set slice sorted str sum tuple zip Exception ValueError "
    "TypeError ZeroDivisionError ArithmeticError AssertionError KeyError IndexError RuntimeError".split()
)
_OTHER_BUILTINS = frozenset(dir(builtins)) - _BUILTINS
"""Refused even where the program gives such a name a value: elsewhere in it the name may still mean the builtin."""
_METHODS = frozenset(  # of numbers, texts, containers, fractions and dates: none takes a name and looks it up
    "append extend insert pop remove sort reverse index count copy clear get items keys values update setdefault "  # noqa: SIM905
    "popitem add discard union intersection difference symmetric_difference issubset issuperset isdisjoint upper lower "
    "title capitalize strip lstrip rstrip split rsplit splitlines join replace startswith endswith find rfind isdigit "
    "isalpha isnumeric zfill ljust rjust center numerator denominator limit_denominator real imag conjugate is_integer "
    "bit_length as_integer_ratio most_common elements total appendleft popleft rotate days seconds year month day hour "
    "minute second weekday isoweekday total_seconds date time".split()
)


def _public(*names: str, of: types.ModuleType) -> frozenset[str]:
    """Functions and constants of a module that keep no state; where none is named, all that it offers."""
    found = names or tuple(name for name in dir(of) if not name.startswith("_"))
    return frozenset(name for name in found if not isinstance(getattr(of, name), types.ModuleType))


_MODULES: Mapping[str, frozenset[str]] = {
    "math": _public(of=math),
    "itertools": _public(of=itertools),
    "collections": _public("Counter", "defaultdict", "deque", "OrderedDict", of=collections),
    "fractions": _public("Fraction", of=fractions),
    "heapq": _public("heappush", "heappop", "heapify", "nlargest", "nsmallest", "heapreplace", of=heapq),
    "functools": _public("reduce", of=functools),  # others set attributes of what they are given
    "datetime": _public("date", "datetime", "time", "timedelta", of=datetime),
    "statistics": _public("mean", "median", "mode", "fmean", "stdev", "pstdev", "variance", of=statistics),
}
_GIVEN = {"math": "math"}
"""Names that a program finds without importing them, see ``program.namespace``."""


def may_share(nodes: Sequence[ast.AST]) -> bool:
    """Whether the program reads and writes nothing but what it made itself, and the listed parts of listed modules.

    ``nodes`` are all those of its syntax tree.
    """
    bound = _bound_names(nodes)
    imported = _imported_modules(nodes)
    if imported is None or not bound.isdisjoint(imported):
        return False
    if any(name.startswith("__") for name in (*bound, *imported)):  # `import x as __builtins__`
        return False
    modules = {**{name: module for name, module in _GIVEN.items() if name not in bound}, **imported}
    return all(_is_harmless(node, modules) for node in nodes)


def _bound_names(nodes: Sequence[ast.AST]) -> set[str]:
    """Every name that the program gives a value, other than by ``import module``."""
    bound: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                bound.add(node.id)
        elif isinstance(node, ast.FunctionDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.ImportFrom):
            bound.update(alias.asname or alias.name for alias in node.names)
    return bound


def _imported_modules(nodes: Sequence[ast.AST]) -> dict[str, str] | None:
    """Name to module, or None where a name stands for two modules or for one that is not listed."""
    imported: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name
                if alias.name not in _MODULES or imported.setdefault(name, alias.name) != alias.name:
                    return None
    return imported


def _is_harmless(node: ast.AST, modules: Mapping[str, str]) -> bool:
    kind = type(node)
    if kind is ast.Name:
        name = node.id  # type: ignore[attr-defined]
        return not name.startswith("__") and name not in _OTHER_BUILTINS
    if kind in _HARMLESS or kind is ast.Import:  # `_imported_modules` has looked at every import
        return True
    if isinstance(node, ast.FunctionDef):
        return not node.decorator_list
    if isinstance(node, ast.Attribute):
        owner = modules.get(node.value.id) if isinstance(node.value, ast.Name) else None
        return isinstance(node.ctx, ast.Load) and node.attr in (_METHODS if owner is None else _MODULES[owner])
    if isinstance(node, ast.ImportFrom):
        allowed = _MODULES.get(node.module or "", frozenset())
        return not node.level and all(alias.name in allowed for alias in node.names)
    return False
