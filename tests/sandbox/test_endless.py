"""Loops that nothing leaves are recognised, and no program that returns is ever taken for one."""

from __future__ import annotations

import ast
import itertools
import random

import pytest

from reftcli.sandbox.worker import audit, endless


def never_returns(source: str) -> bool:
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    assert audit.may_share(nodes), source
    return endless.never_returns(tree, nodes)


ENDLESS = [
    "while True: pass",
    "while 1:\n  x = 1",
    "while True:\n  for i in range(3):\n   break",
    "while True:\n  while True: break",
    "x = 1\n while x > 0: x += 1",
    "x = 1\n while x > 0: x = x + 2",
    "x = 1\n while x: x += 1",
    "x = -1\n while x < 0: x -= 1",
    "x = -1\n while x < 0: x += -1",
    "x = 5\n while x >= 5: x += 1",
    "x = 5\n while x != 0: x += 1",
    "x = 5\n while x != 9: x -= 1",
    "x = 5\n while 3 < x: pass",
    "x = 1\n while x > 0: x *= 2",
    "x = -1.5\n while x < 0: x *= 2",
    "x = 0\n y = 1\n while y > x:\n  y += 1\n  x -= 1",
    "x = 10\n total = 0\n while x > 0: total += x",
    "done = False\n count = 0\n while not done: count += 1",
    "x = 1\n y = 2\n while x > 0 and y == 2: x += 1",
    "x = 1\n while x > 0 or unknown: x += 1",
    "x = 3\n while x > 0:\n  if x > 7: x += 1\n  else: x += 2",
    "x = 3\n if unknown: y = 2\n while x > 0: pass",
    "x = 0.5\n while x > 0: x += 0.25",
    "price = 3 * 4\n total = price + 5\n n = 0\n while total > price: n += 1",
    "n = 7\n step = n - 5\n while n > 2 + 1: n += step",
    "n = 7\n n -= 2\n while n == 5: n2 = n",
    "a = 2\n while a * 3 > 5: b = a",
]
LEAVES = [
    "x = 3\n while x > 0: x -= 1",
    "x = 5\n while x >= 5: x -= 1",
    "x = 3\n while x: x -= 1",
    "x = 0\n while x > 0: x += 1",
    "x = 3\n while x != 0: x -= 1",
    "x = 1\n while x < 99: x *= 2",
    "x = -1\n while x < 0: x *= -1",
    "x = 1\n while x > 0:\n  x += 1\n  x -= 2",
    "x = 1\n x = 0\n while x: pass",
    "x = 1\n for x in (0,): pass\n while x: pass",
    "x = 1\n if 1: x = 0\n while x: pass",
    "x = 3\n while x > 0:\n  for i in range(9): x -= 1",
    "x = 3\n while x > 0:\n  for x in range(1): pass",
    "x = 3\n while x > 0: x, y = 0, 1",
    "x = 3\n while x > 0: x = y = 0",
    "x = 3\n while x > 0: [x := 0 for _ in range(1)]",
    "y = 5\n while (y := 0) or y: pass",
    "x = 3\n while (x := x - 1): pass",
    "x = 3\n while x > 0 and x < 9: x += 1",
    "x = 1\n y = 3\n while x < y: x += 1",
    "x = 1\n y = 3\n while x != y: x += 1",
    "done = False\n while not done: done = True",
    "x = 9007199254740993\n while x >= 9007199254740993: x += 0.0",
    "x = 3\n while x > 0: x = -x + 1",
    "x = 3\n while x > 0: x = 1 - x",
    "x = [1]\n while x: x.pop()",
    "x = 3\n while x == 3: x += 1",
    "x = 3\n while True:\n  if x: break",
    "x = 3\n while True:\n  for i in range(3): pass\n  else: break",
    "x = 3\n while True:\n  if 0: pass\n  elif 1: break",
    "x = 3\n while 2 > x > 1: pass",
    "x = 3\n del x\n x = 0\n while x: pass",
    "a = [0] * 9\n x = 5\n while x > 0: a[(x := -1)] += 1",
    "a = [0] * 9\n x = 5\n while x > 0: a[(x := 0)] = x + 1",
    "x = 3\n step = -1\n while x > 0: x += step",
    "x = 3\n step = 1\n while x > 0:\n  step = -2\n  x += step",
    "x = 3\n while x * 2 > 0: x -= 1",
    "x = 7 // 2\n while x > 3: pass",
    "x = 5\n x -= 5\n while x: pass",
    "while 0: pass",
    "while False: pass",
    "if 0:\n  while True: pass",
]
WHOLE = [  # program, whether it never returns
    ("while True: pass\ndef solution():\n return 1", True),
    ("def solution():\n def f():\n  return 1\n while True: f()", True),
    ("def solution():\n while True: return 1", False),
    ("def solution():\n return 1\n while True: pass", False),
    ("def solution():\n if 1: return 1\n while True: pass", False),
    ("def solution():\n for i in range(2): return 1\n while True: pass", False),
    ("def solution():\n while True: pass\ndef solution():\n return 1", False),
    ("def solution():\n while True: pass\nsolution = lambda: 1", False),
    ("def other():\n while True: pass\ndef solution():\n return 1", False),
    ("def solution():\n def f():\n  while True: pass\n return 1", False),
    ("def solution():\n def f():\n  return 1\n while True: break\n return f()", False),
]


@pytest.mark.parametrize("body", ENDLESS)
def test_a_loop_that_nothing_leaves_is_seen(body: str) -> None:
    assert never_returns(f"def solution():\n {body}\n return 1")


@pytest.mark.parametrize("body", LEAVES)
def test_a_loop_that_is_left_is_not_taken_for_one(body: str) -> None:
    source = f"def solution():\n {body}\n return 1"
    namespace: dict[str, object] = {}
    exec(source, namespace)
    assert namespace["solution"]() == 1  # type: ignore[operator]
    assert not never_returns(source)


@pytest.mark.parametrize(("source", "expected"), WHOLE)
def test_what_stands_around_the_loop_counts(source: str, expected: bool) -> None:
    assert never_returns(source) is expected


class _Fuel(Exception):
    """A generated loop ran long enough to be called endless."""


def test_no_generated_program_that_returns_is_called_endless() -> None:
    """Small loops at random; each is run with a bound on its passes, and one that returns must not be condemned."""
    rng = random.Random(0)
    starts, steps = (
        ["0", "1", "3", "-2", "2.5", "True", "2 * 3", "7 // 2", "1 / 4"],
        ["0", "1", "2", "-1", "0.5", "-3", "y", "z"],
    )
    condemned = returned = 0
    for _ in range(5000):
        test = " and ".join(
            f"{rng.choice('xy')} {rng.choice(['<', '<=', '>', '>=', '==', '!='])} {rng.choice(['x', 'y', '0', '4', '-3', 'y * 2', 'x - 1'])}"
            for _ in range(rng.choice([1, 1, 1, 2]))
        )
        test = rng.choice([test, test, test, "x", "not x", f"{test} or not y"])
        updates = [
            rng.choice([f"{n} += {s}", f"{n} -= {s}", f"{n} = {n} + {s}", f"{n} *= {s}", f"{n} = {s}", "pass"])
            for n, s in zip(rng.choices("xyz", k=2), rng.choices(steps, k=2), strict=True)
        ]
        head = f"def solution():\n x = {rng.choice(starts)}\n y = {rng.choice(starts)}\n z = 0\n"
        guard = rng.choice(["", "  if z < 3:\n   x += 1\n"])
        loop = f" while {test}:\n{guard}  {updates[0]}\n  {updates[1]}\n"
        source = f"{head}{loop} return 1"
        if not never_returns(source):
            continue
        condemned += 1
        passes = itertools.count()

        def tick(*values: float, passes: itertools.count[int] = passes) -> None:
            if next(passes) > 3000 or max(map(abs, values)) > 1e100:
                raise _Fuel

        fuelled = f"{head}{loop}  tick(x, y, z)\n return 1"
        namespace: dict[str, object] = {"tick": tick}
        exec(fuelled, namespace)
        try:
            namespace["solution"]()  # type: ignore[operator]
            returned += 1
        except (_Fuel, ArithmeticError, ValueError):
            continue
    assert returned == 0
    assert condemned > 400
