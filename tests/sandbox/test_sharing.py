"""Programs that share a process: the same outcomes as alone, and nothing that one could do to another."""

from __future__ import annotations

import ast
import json
import random
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from reftcli.sandbox.interface import RunLimits, Status
from reftcli.sandbox.pool import Pool
from reftcli.sandbox.worker import audit, endless, program

SVAMP = Path(__file__).resolve().parents[3] / "shared/data/svamp/svamp_python_sdp.json"


def shares(source: str) -> bool:
    return audit.may_share(list(ast.walk(ast.parse(source))))


def never_returns(source: str) -> bool:
    tree = ast.parse(source)
    return shares(source) and endless.never_returns(tree, list(ast.walk(tree)))


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2, RunLimits(timeout_s=0.4)) as pool:
        yield pool


SHARED = [
    "def solution():\n return 1",
    "import math\ndef solution():\n return math.floor(2.5)",
    "def solution():\n return math.sqrt(2)",
    "from math import sqrt as root\ndef solution():\n return root(2)",
    "from fractions import Fraction\ndef solution():\n return Fraction(1, 3).numerator",
    "import collections as c\ndef solution():\n return c.Counter('aab').most_common(1)[0][0]",
    "def half(x):\n return x / 2\ndef solution():\n return half(3)",
    "def solution():\n a = [x * 2 for x in range(3)]\n a.append(1)\n return sum(a)",
    "def solution():\n n = 0\n while True:\n  n += 1\n  if n > 9: break\n return n",
    "def solution():\n return f'{1 / 3:.2f}'",
    "def solution():\n print('so')\n return max([1, 2], key=lambda x: -x)",
    "from datetime import date\ndef solution():\n return (date(2024, 3, 1) - date(2024, 2, 1)).days",
]
ALONE = {
    "attribute of an object": "def solution():\n return ().__class__",
    "dunder name": "def solution():\n return __builtins__",
    "builtins replaced by an import": "import math as __builtins__\ndef solution():\n return floor(2.5)",
    "builtins replaced by a part": "from collections import Counter as __builtins__\ndef solution():\n return 1",
    "dunder argument": "def f(__class__): pass\ndef solution():\n return 1",
    "dunder function": "def __builtins__(): pass\ndef solution():\n return 1",
    "dunder in full width": "def solution():\n return __ｂｕｉｌｔｉｎｓ__",
    "builtin in full width": "def solution():\n return ｏｐｅｎ('x')",
    "import in full width": "import ｏｓ\ndef solution():\n return 1",
    "attribute on the next line": "def solution():\n return math\\\n.__dict__",
    "attribute as a loop's target": "def solution():\n for math.floor in [1]: pass\n return 1",
    "attribute as a comprehension's target": "def solution():\n return [0 for math.floor in [1]]",
    "attribute with an annotation": "math.pi: int = 3\ndef solution():\n return 1",
    "changed constant": "def solution():\n math.pi += 1\n return 1",
    "call in an annotation": "x: vars() = 1\ndef solution():\n return 1",
    "call in an argument's annotation": "def f(x: eval('1')): pass\ndef solution():\n return 1",
    "builtin as a default": "def solution(f=breakpoint):\n return f()",
    "builtin as a default by keyword": "def f(*, exec=1): return exec\ndef solution():\n return f()",
    "builtin as a key": "def solution():\n return max([1], key=vars)",
    "builtin as a factory": "from collections import defaultdict\ndef solution():\n return defaultdict(globals)[1]",
    "builtin to reduce with": "from functools import reduce\ndef solution():\n return reduce(getattr, [1, 'real'])",
    "builtin to map with": "def solution():\n return list(map(type, [1]))",
    "builtin by a walrus": "def solution():\n return [(open := 1) for _ in 'a']",
    "format handed on": "def solution():\n return list(map('{0.__class__}'.format, [1]))",
    "frame of a generator": "def solution():\n return (x for x in [1]).gi_frame",
    "traceback of an error": "def solution():\n return ValueError().with_traceback",
    "global": "def solution():\n global x\n x = 1\n return x",
    "nonlocal": "def solution():\n x = 1\n def f():\n  nonlocal x\n  x = 2\n return x",
    "unlisted builtin": "def solution():\n return open('x')",
    "unlisted builtin that another scope binds": "def f(open): pass\ndef solution():\n return open('x')",
    "exec bound by a comprehension": "x = [exec for exec in ()]\ndef solution():\n return exec('1')",
    "import of the world": "import os\ndef solution():\n return 1",
    "import within": "def solution():\n import sys\n return 1",
    "submodule": "import collections.abc\ndef solution():\n return 1",
    "module behind a module": "import statistics\ndef solution():\n return statistics.sys",
    "module behind a module, by name": "from statistics import sys\ndef solution():\n return sys",
    "star": "from math import *\ndef solution():\n return floor(1)",
    "patched module": "import math\nmath.floor = 1\ndef solution():\n return 1",
    "deleted from a module": "import math\ndel math.floor\ndef solution():\n return 1",
    "one name, two modules": "import math as m\nimport itertools as m\ndef solution():\n return m.count",
    "one name, module and value": "import functools as math\ndef solution():\n return math.update_wrapper",
    "module rebound": "import math\nmath = 1\ndef solution():\n return math",
    "setattr in disguise": "import functools\ndef solution():\n return functools.update_wrapper(1, 2)",
    "attribute by name": "import operator\ndef solution():\n return operator.attrgetter('x')",
    "format": "def solution():\n return '{0.__class__}'.format(1)",
    "catches": "def solution():\n try:\n  return 1\n except BaseException:\n  return 2",
    "class": "class A: pass\ndef solution():\n return 1",
    "decorator": "import functools\n@functools.reduce\ndef solution():\n return 1",
    "generator": "def solution():\n yield 1",
    "with": "def solution():\n with x: pass",
    "coroutine": "async def solution():\n return 1",
    "random": "import random\ndef solution():\n return random.random()",
    "decimal, which keeps a context": "import decimal\ndef solution():\n return decimal.Decimal(1)",
    "relative import": "from . import x\ndef solution():\n return 1",
    "the clock": "import datetime\ndef solution():\n return datetime.datetime.now()",
    "match": "def solution():\n match 1:\n  case int(real=x): return x",
    "sympy reads text as code": "import sympy\ndef solution():\n return sympy.sympify('1')",
}


TRIES = [  # accepted, because all that they reach for is out of reach
    "def solution():\n m = math\n m.update({'floor': 1})",
    "def solution():\n for m in [math]: m.pop('floor')",
    "def solution():\n m = math\n m += 1",
    "def solution():\n m = math\n m['floor'] = len",
    "from collections import Counter\ndef solution():\n Counter.update(Counter, {'get': len})",
    "from collections import Counter\ndef solution():\n dict.update(Counter, get=len)",
    "from fractions import Fraction\ndef solution():\n Fraction.limit_denominator.update({})",
    "def solution():\n print('x', file=math)",
    "def solution():\n print(1, end='x' * 999, flush=True, sep=None)\n return 1 // 0",
    "def solution():\n return f\"{math:{'x'}}\"",
    "def solution():\n return '%(a)d' % {'a': math}",
    "def solution():\n return str(b'abc', 'zlib_codec')",
    "def solution():\n return str(b'abc', '../../x')",
    "def solution():\n a = [3, 1]\n a.sort(key=lambda x: a.append(x))",
    "def solution():\n d = {1: 1}\n for k in d: d[k + 1] = 1",
    "import itertools\ndef solution():\n a = []\n t = itertools.tee(map(lambda x: next(a[0]), [1]))\n"
    " a.append(t[0])\n return next(t[1])",
    "# -*- coding: utf-7 -*-\ndef solution():\n return +AG8AcABlAG4-('x')",
    "import datetime\ndef solution():\n d = datetime.date(b'\\xff\\xff\\x01\\xff')\n return f'{d:%A}'",
    "del math\ndef solution():\n return math",
]


def test_what_programs_reach_for_in_vain_changes_nothing_for_the_next(pool: Pool) -> None:
    witness = (
        "import math, itertools, datetime\nfrom collections import Counter\nfrom fractions import Fraction\n"
        "def solution():\n c = Counter('aab')\n c.update('b')\n print(c)\n"
        " return f'{math.floor(2.5)} {c.get(\"b\")} {Fraction(1, 3)} {datetime.date(2024, 1, 1):%A} {len([1])} NUMBER'"
    )
    assert all(shares(source) for source in TRIES)
    assert shares(witness)
    sources = [s for n, tried in enumerate(TRIES) for s in (tried, witness.replace("NUMBER", str(n)))]
    outcomes = pool.run(sources)
    assert [(s, outcome.value) for s, outcome in zip(TRIES, outcomes[::2], strict=True) if outcome.status == "ok"] == []
    assert [outcome.value for outcome in outcomes[1::2]] == [f"2 2 1/3 Monday 1 {n}" for n in range(len(TRIES))]


@pytest.mark.parametrize("source", SHARED)
def test_plain_programs_share(source: str) -> None:
    assert shares(source)


@pytest.mark.parametrize("name", ALONE)
def test_others_run_alone(name: str) -> None:
    assert not shares(ALONE[name])


ENDLESS = [
    "def solution():\n while True: pass",
    "def solution():\n x = 1\n while 1:\n  x += 1\n return x",
    "def solution():\n while True:\n  for i in range(3):\n   break\n return 1",
    "def solution():\n while True:\n  while True: break",
    "while True: pass\ndef solution():\n return 1",
    "def solution():\n if 1:\n  x = 2\n while True:\n  f = lambda: 1",
    "def solution():\n def f():\n  return 1\n while True: f()",
]
ENDING = [
    "def solution():\n while True: return 1",
    "def solution():\n while True: break\n return 1",
    "def solution():\n while True:\n  if 1: break\n return 1",
    "def solution():\n while True:\n  for i in range(3): pass\n  else: break\n return 1",
    "def solution():\n while True:\n  if 0: pass\n  elif 1: break\n return 1",
    "def solution():\n return 1\n while True: pass",
    "def solution():\n if 1: return 1\n while True: pass",
    "def solution():\n for i in range(2): return 1\n while True: pass",
    "def solution():\n while False: pass\n return 1",
    "def solution():\n while 0: pass\n return 1",
    "def solution():\n while True: pass\ndef solution():\n return 1",
    "def solution():\n while True: pass\nsolution = lambda: 1",
    "def other():\n while True: pass\ndef solution():\n return 1",
    "def solution():\n def f():\n  while True: pass\n return 1",
    "def solution():\n if 0:\n  while True: pass\n return 1",
]


@pytest.mark.parametrize("source", ENDLESS)
def test_a_loop_that_nothing_leaves_is_seen(source: str, pool: Pool) -> None:
    assert never_returns(source)
    (outcome,) = pool.run([source])
    assert (outcome.status, outcome.error) == (Status.TIMEOUT, "NeverReturns")


@pytest.mark.parametrize("source", ENDING)
def test_a_loop_that_can_be_left_is_run(source: str, pool: Pool) -> None:
    assert not never_returns(source)
    assert pool.run([source])[0].value == 1


def outcomes_alone(pool: Pool, sources: list[str]) -> list[object]:
    """Through a process each: an empty class makes every program ineligible to share."""
    apart = [f"{source}\nclass Alone: pass\n" for source in sources]
    assert not any(shares(source) for source in apart[:100])
    return [(outcome.status, outcome.value, outcome.error, outcome.message) for outcome in pool.run(apart)]


def generated(seed: int) -> str:
    """A small arithmetic program, often one that fails: unbound names, division by zero, huge powers, wrong types."""
    rng = random.Random(seed)
    names = ["a", "b", "c", "d"]

    def expression(depth: int, powers: bool = True) -> str:
        kind = rng.random()
        if depth == 0 or kind < 0.3:
            return rng.choice(
                [*names, str(rng.randint(-9, 99)), f"{rng.random() * 50:.2f}", "0", "True", "'x'", "1e308"]
            )
        if kind < 0.75:
            if powers and rng.random() < 0.1:
                return f"({expression(depth - 1, powers)} ** {rng.choice([-1, 0, 2, 3, 0.5])})"
            operator = rng.choice(["+", "-", "*", "/", "//", "%"])
            return f"({expression(depth - 1, powers)} {operator} {expression(depth - 1, powers)})"
        if kind < 0.85:
            call = rng.choice(["int", "float", "round", "abs", "math.floor", "math.ceil", "math.sqrt", "str", "sum"])
            return f"{call}({expression(depth - 1, powers)})"
        if kind < 0.93:
            return f"({expression(depth - 1, powers)} if {expression(depth - 1, powers)} < {expression(depth - 1, powers)} else 3)"
        return f"max({expression(depth - 1, powers)}, {expression(depth - 1, powers)})"

    lines = [f"{rng.choice(names)} {rng.choice(['=', '=', '=', '+=', '*='])} {expression(2)}" for _ in range(4)]
    if rng.random() < 0.3:
        lines.append(f"for a in range({rng.randint(0, 5)}):\n    b = {expression(1, powers=False)}")
    lines = [f"{name} = {rng.randint(1, 60)}" for name in names if rng.random() < 0.9] + lines
    return "def solution():\n" + textwrap.indent("\n".join([*lines, f"return {expression(2)}"]), "    ")


def plain_cpython(source: str) -> tuple[str, object, str]:
    namespace: dict[str, object] = {"math": __import__("math")}
    try:
        exec(source, namespace)
        value = namespace["solution"]()  # type: ignore[operator]
    except Exception as error:  # noqa: BLE001 - whatever the program raises is its outcome
        return "error", None, type(error).__name__
    return "ok", value, ""


def same(a: object, b: object) -> bool:
    return type(a) is type(b) and (a == b or (a != a and b != b))


def test_20000_generated_programs_come_to_what_cpython_says(pool: Pool) -> None:
    sources = list(dict.fromkeys(generated(seed) for seed in range(21_000)))[:20_000]
    assert len(sources) == 20_000
    assert all(shares(source) for source in sources)
    seen = {"ok": 0, "error": 0}
    for source, outcome in zip(sources, pool.run(sources), strict=True):
        status, value, error = plain_cpython(source)
        assert (outcome.status, outcome.error) == (status, error), source
        if isinstance(value, complex | str | float) or (
            isinstance(value, int) and value.bit_length() <= program.MAX_INT_BITS
        ):
            assert same(outcome.value, value), source
        seen[status] += 1
    assert min(seen.values()) > 2_000, seen


def test_sharing_changes_no_outcome(pool: Pool) -> None:
    sources = [generated(seed) for seed in range(300)] + SHARED + ["def solution(:", "x = 1", "def solution(a): pass"]
    together = [(outcome.status, outcome.value, outcome.error) for outcome in pool.run(sources)]
    for source, ours, alone in zip(sources, together, outcomes_alone(pool, sources), strict=True):
        assert repr(ours) == repr(alone[:3]), source  # type: ignore[index]


@pytest.mark.parametrize(
    "bomb",
    [
        "def solution():\n n = 1\n while n: n = n % 7 + 1",
        "def solution():\n return 10 ** 10 ** 10",
        "def solution():\n x = 'a' * (1 << 40)\n return 1",
        "def solution():\n return solution()",
        "def solution():\n a = []\n for _ in range(99999): a = [a]\n return 1",
        "def solution():\n return " + "-" * 100_000 + "1",
        "def solution():\n return " + "(" * 5000 + "1" + ")" * 5000,
        "def solution():\n a = [0]\n while a: a.extend(a)",
        "def solution():\n return '%99999999999d' % 1",
    ],
)
def test_a_bomb_among_others_hurts_itself_only(bomb: str, pool: Pool) -> None:
    plain = [f"def solution():\n return {n}" for n in range(100)]
    outcomes = pool.run([*plain[:50], bomb, *plain[50:]])
    values = [outcome.value for outcome in outcomes]
    assert values[:50] + values[51:] == list(range(100))
    assert repr(outcomes[50])[:60] == repr(pool.run([bomb])[0])[:60]


def test_memory_and_names_of_a_program_are_gone_when_the_next_one_runs(pool: Pool) -> None:
    first = "kept = [0] * 4_000_000\nsum = 1\ndef solution():\n return len(kept)"  # 32 MB; the limit is 256
    sources = [f"{first} + {n}" for n in range(40)] + ["def solution():\n return sum([kept])"]
    *kept, after = pool.run(sources)
    assert [outcome.value for outcome in kept] == [4_000_000 + n for n in range(40)]
    assert (after.status, after.error) == (Status.ERROR, "NameError")


def test_svamp_comes_to_the_same_alone_and_together(pool: Pool) -> None:
    if not SVAMP.exists():
        pytest.skip("the shared data is not here")
    rows = json.loads(SVAMP.read_text())
    sources = list(dict.fromkeys(row["answer_cot"] for row in rows))
    assert all(shares(source) for source in sources)
    together = [outcome.value for outcome in pool.run(sources)]
    assert None not in together
    assert [alone[1] for alone in outcomes_alone(pool, sources[:400])] == together[:400]  # type: ignore[index]
