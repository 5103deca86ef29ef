"""Which programs surely never return: an untrained policy writes many, and each would use up its whole CPU limit.

Sound, and far from complete: what is not proven here is run. Only for programs that ``audit.may_share`` has accepted:
those catch no exception, rebind no name of another scope and hold no ``yield``, so a loop that nothing leaves, or an
error on the way to it, both mean that ``solution()`` gives no value.
"""

from __future__ import annotations

import ast
import collections
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence

Number = int | float
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Number, Number], bool]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip
_OPERATIONS: Mapping[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip
_DIVISIONS = (ast.Div, ast.FloorDiv, ast.Mod)
_LARGEST = 2**53
"""Beyond it an integer may change when it meets a float."""


def never_returns(tree: ast.Module, nodes: Sequence[ast.AST]) -> bool:
    """Whether the module, or its ``solution()``, surely ends in a loop that nothing leaves.

    The first statement on the way that could return decides. ``nodes`` are all those of the tree.
    """
    if not any(type(node) is ast.While for node in nodes):
        return False
    if _is_dead_end(tree.body):
        return True
    named = [node for node in nodes if _binds_solution(node)]
    return len(named) == 1 and isinstance(named[0], ast.FunctionDef) and _is_dead_end(named[0].body)


def _binds_solution(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id == "solution" and not isinstance(node.ctx, ast.Load)
    if isinstance(node, ast.Import | ast.ImportFrom):
        return any((alias.asname or alias.name) == "solution" for alias in node.names)
    return isinstance(node, ast.FunctionDef) and node.name == "solution"


def _is_dead_end(body: Sequence[ast.stmt]) -> bool:
    known: dict[str, Number] = {}
    for statement in body:
        if any(isinstance(node, ast.Return) for node in _own_nodes(statement)):
            return False
        if isinstance(statement, ast.While) and _is_never_left(statement, known):
            return True
        _learn(statement, known)
    return False


def _is_never_left(loop: ast.While, known: Mapping[str, Number]) -> bool:
    return not _breaks(loop.body) and not _bound_in([loop.test]) and _stays_true(loop.test, loop.body, known)


def _learn(statement: ast.stmt, known: dict[str, Number]) -> None:
    """What the names are surely worth after a statement: arithmetic on constants is followed, and nothing else."""
    name, value = "", None
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        name, value = statement.targets[0].id, _value(statement.value, known)
    elif isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
        sum_ = ast.BinOp(ast.Name(statement.target.id, ast.Load()), statement.op, statement.value)
        name, value = statement.target.id, _value(sum_, known)
    for lost in _bound_in([statement]):
        known.pop(lost, None)
    if value is not None:
        known[name] = value


def _stays_true(test: ast.expr, body: Sequence[ast.stmt], known: Mapping[str, Number]) -> bool:
    """Whether ``test`` holds before the loop and every pass can only make it truer."""
    if isinstance(test, ast.BoolOp):
        every = all if isinstance(test.op, ast.And) else any
        return every(_stays_true(part, body, known) for part in test.values)
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        return _comparison_stays_true(test, body, known)
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _value(test.operand, known) == 0 and _drift(test.operand, body, known) == 0
    value = _value(test, known)
    return bool(value) and _drift(test, body, known) in (0, 1 if value and value > 0 else -1)


def _comparison_stays_true(test: ast.Compare, body: Sequence[ast.stmt], known: Mapping[str, Number]) -> bool:
    sides = (test.left, test.comparators[0])
    left, right = (_value(side, known) for side in sides)
    drifts = [_drift(side, body, known) for side in sides]
    holds = _COMPARISONS.get(type(test.ops[0]))
    if holds is None or left is None or right is None or None in drifts or not holds(left, right):
        return False
    rising_left = isinstance(test.ops[0], ast.Gt | ast.GtE) or (isinstance(test.ops[0], ast.NotEq) and left > right)
    apart = (0, 0) if isinstance(test.ops[0], ast.Eq) else (1, -1) if rising_left else (-1, 1)
    return all(drift in (0, away) for drift, away in zip(drifts, apart, strict=True))


def _value(node: ast.expr, known: Mapping[str, Number]) -> Number | None:
    """The finite number that an expression is surely worth; None where that is not plain."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, int | float) and abs(node.value) < _LARGEST else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value(node.operand, known)
        return None if value is None else -value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left, right = _value(node.left, known), _value(node.right, known)
        if left is None or right is None or (right == 0 and type(node.op) in _DIVISIONS):
            return None
        result = _OPERATIONS[type(node.op)](left, right)
        return result if abs(result) < _LARGEST else None
    return None


def _drift(node: ast.expr, body: Sequence[ast.stmt], known: Mapping[str, Number]) -> int | None:
    """0 for what the body leaves alone, 1 for what it can only raise, -1 for what it can only lower; None: unknown."""
    bound = _bound_in(body)
    if not isinstance(node, ast.Name):
        return None if any(isinstance(part, ast.Name) and part.id in bound for part in ast.walk(node)) else 0
    steady = {name: value for name, value in known.items() if name not in bound}
    steps = {_step(statement, node.id, known.get(node.id, 0), steady) for statement in _binders(body, node.id)}
    return 0 if not steps else steps.pop() if len(steps) == 1 else None


def _binders(body: Sequence[ast.stmt], name: str) -> list[ast.stmt]:
    """The innermost statements that give ``name`` a value."""
    found: list[ast.stmt] = []
    for statement in body:
        blocks = [getattr(statement, block, []) for block in ("body", "orelse")]
        inner = [binder for block in blocks for binder in _binders(block, name)]
        if isinstance(statement, ast.If | ast.While) and name not in _bound_in([statement.test]):
            found += inner
        elif name in _bound_in([statement]):
            found.append(statement)
    return found


def _step(statement: ast.stmt, name: str, start: Number, steady: Mapping[str, Number]) -> int | None:
    """The direction in which ``name += 1``, ``name = name + 1`` and their like move a name; None for all else."""
    if isinstance(statement, ast.AugAssign) and _is_name(statement.target, name):
        function, amount = statement.op, _value(statement.value, steady)
    elif (
        isinstance(statement, ast.Assign)
        and len(statement.targets) == 1
        and _is_name(statement.targets[0], name)  # in a[(x := 0)] = x + 1 the name is bound in the target
        and isinstance(statement.value, ast.BinOp)
    ):
        sum_ = statement.value
        if not _is_name(sum_.left, name):
            return None
        function, amount = sum_.op, _value(sum_.right, steady)
    else:
        return None
    if amount is None:
        return None
    if isinstance(function, ast.Add | ast.Sub):
        return 1 if (amount >= 0) == isinstance(function, ast.Add) else -1
    if isinstance(function, ast.Mult) and amount >= 1 and start != 0:
        return 1 if start > 0 else -1
    return None


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _bound_in(nodes: Sequence[ast.AST]) -> set[str]:
    """Names that get a value, or lose it, anywhere below."""
    bound: set[str] = set()
    for node in (below for top in nodes for below in ast.walk(top)):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, ast.FunctionDef):
            bound.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound.update(alias.asname or alias.name for alias in node.names)
    return bound


def _own_nodes(statement: ast.AST) -> Iterator[ast.AST]:
    """The statement and all below it, without the bodies of functions defined there."""
    todo = collections.deque([statement])
    while todo:
        node = todo.popleft()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.Lambda):
            todo.extend(ast.iter_child_nodes(node))


def _breaks(body: Sequence[ast.stmt]) -> bool:
    """Whether a ``break`` among these statements leaves the loop whose body they are."""
    for statement in body:
        if isinstance(statement, ast.Break):
            return True
        inner: Sequence[ast.stmt] = ()
        if isinstance(statement, ast.For | ast.While):
            inner = statement.orelse  # a break in the inner loop's body leaves the inner loop only
        elif isinstance(statement, ast.If):
            inner = [*statement.body, *statement.orelse]
        if _breaks(inner):
            return True
    return False
