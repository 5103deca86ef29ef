"""Grading speed: programs through the sandbox, a hostile mix, written answers, and what a stuck grader costs.

    python benchmarks/grading.py [--json] [--rounds 5]

Programs are those of the SVAMP P-CoT file where it is present (made distinct in every round by a comment, so that
nothing is remembered), else generated ones of the same shape. Peers:

* ``a process per program``: the same sandbox with every program on its own, as before programs could share a process.
* ``multiprocessing``: a forked process per program, killed after the limit, with no sandbox at all: what people write.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from common import SHARED_DATA, arguments, rates, report, summary

from reftcli.grading.answers import NcotGrader
from reftcli.grading.program import ProgramGrader
from reftcli.problems.record import Problem

LIMIT_S = 1.0
WORKERS = 2
PEER_PROGRAMS = 300
MIX = 1000
ANSWERS = 20_000

Pair = tuple[Problem, str]


def main() -> None:
    options = arguments(__doc__.splitlines()[0]).parse_args()
    programs, source = svamp_programs()
    results: dict[str, Any] = {}
    with_sandbox = ProgramGrader("number", timeout_s=LIMIT_S, workers=WORKERS)
    try:
        speeds = rates(
            {
                "programs/s": grading_all(with_sandbox, lambda n: distinct(programs, n)),
                "programs/s, a process per program": grading_all(
                    with_sandbox, lambda n: distinct(programs[:PEER_PROGRAMS], n, alone=True)
                ),
                "programs/s, multiprocessing": lambda n: run_unprotected(distinct(programs[:PEER_PROGRAMS], n)),
                "programs/s, hostile mix": grading_all(with_sandbox, lambda n: hostile_mix(programs, n, hidden=False)),
                "answers/s, plain, one core": grading_all(NcotGrader("number"), plain_answers),
                "answers/s, dressed, one core": grading_all(NcotGrader("number"), dressed_answers),
            },
            options.rounds,
        )
        speeds |= rates(
            {
                "programs/s, hostile mix, loops that only time ends": grading_all(
                    with_sandbox, lambda n: hostile_mix(programs, n, hidden=True)
                )
            },
            min(2, options.rounds),
        )
        results |= {name: summary(values) for name, values in speeds.items()}
        results["seconds that one endless program adds to a batch of 256"] = summary(
            delays(with_sandbox, programs, options.rounds)
        )
    finally:
        with_sandbox.close()
    middle = {name: median(values) for name, values in speeds.items()}
    ours = middle["programs/s"]
    ratios = {
        "sharing / a process per program": ours / middle["programs/s, a process per program"],
        "sharing / multiprocessing": ours / middle["programs/s, multiprocessing"],
    }
    settings = {"programs": source, "workers": WORKERS, "limit_s": LIMIT_S, "rounds": options.rounds, "mix": MIX}
    report("grading", settings, results, ratios, options.json)


def grading_all(grader: Any, pairs_of: Callable[[int], Sequence[Pair]]) -> Callable[[int], int]:
    """A contestant that grades fresh pairs. Making them is not timed apart, it is part of nobody's bar and cheap."""

    def run(number: int) -> int:
        pairs = pairs_of(number)
        grader.grade([problem for problem, _ in pairs], [completion for _, completion in pairs])
        return len(pairs)

    return run


def svamp_programs() -> tuple[list[Pair], str]:
    """Distinct programs with their problems."""
    file = SHARED_DATA / "svamp/svamp_python_sdp.json"
    if file.exists():
        rows = {row["answer_cot"]: row for row in json.loads(file.read_text(encoding="utf-8"))}
        return [
            (Problem(row["item_id"], row["question"], str(row["answer_value"])), program)
            for program, row in rows.items()
        ], f"SVAMP, {len(rows)} distinct"
    rng = random.Random(0)
    pairs = []
    for number in range(3000):
        a, b = rng.randint(2, 99), rng.randint(2, 99)
        body = f"    first = {a}\n    second = {b}\n    result = first * second + {number}\n    return result"
        pairs.append((Problem(str(number), "", str(a * b + number)), f'def solution():\n    """A question."""\n{body}'))
    return pairs, "generated (the SVAMP file is not here)"


def distinct(pairs: Sequence[Pair], number: int, *, alone: bool = False) -> list[Pair]:
    """The same programs, never seen before in this run. A class definition keeps a program from sharing."""
    mark = f"\n# round {number}" + ("\nclass Alone: pass\n" if alone else "")
    return [(problem, program + mark) for problem, program in pairs]


def hostile_mix(pairs: Sequence[Pair], number: int, *, hidden: bool) -> list[Pair]:
    """1% endless loops, 10% sympy, 10% cut off in the middle, the rest plain; all distinct, in a seeded order."""
    rng = random.Random(number)
    loop = "x = {0}\n    while x:\n        x = x % 7 + 1" if hidden else "x = {0}\n    while x > 0:\n        x += 1"
    mixed: list[Pair] = []
    for place in range(MIX):
        problem, program = pairs[(number * MIX + place) % len(pairs)]
        if place % 100 == 0:
            program = f"def solution():\n    {loop.format(place + 1)}\n    return x"
        elif place % 10 == 1:
            program = (
                "from sympy import symbols, Eq, solve\ndef solution():\n    x = symbols('x')\n"
                f"    return solve(Eq(3 * x + {place}, 5 * x - {number % 97}), x)[0]"
            )
        elif place % 10 == 2:
            program = program[: rng.randint(len(program) // 3, len(program) - 12)]
        mixed.append((problem, f"{program}\n# {number} {place}"))
    rng.shuffle(mixed)
    return mixed


def plain_answers(number: int) -> list[Pair]:
    rng = random.Random(number)
    values = [rng.randint(0, 10**9) for _ in range(ANSWERS)]
    return [(Problem("p", "", str(v)), f"Some steps.\nTherefore, the answer is: {v}") for v in values]


def dressed_answers(number: int) -> list[Pair]:
    dresses = (
        "${:,}.00",
        "{} apples",
        "**{}**",
        "\\boxed{{{}}}",
        "{} dollars per hour.",
        "x = {}",
        "3 + 4 = {}",
        "<{}>.",
    )
    rng = random.Random(number)
    values = [rng.randint(0, 10**9) for _ in range(ANSWERS)]
    return [
        (Problem("p", "", str(v)), f"Some steps.\nTherefore, the answer is: {dresses[i % len(dresses)].format(v)}")
        for i, v in enumerate(values)
    ]


def delays(grader: ProgramGrader, pairs: Sequence[Pair], rounds: int) -> list[float]:
    """How much longer a batch of 256 takes with an endless program in it."""
    found = []
    for number in range(rounds):
        batch = distinct(pairs[:255], 1000 + number)
        loop = (pairs[0][0], f"def solution():\n    x = {number + 1}\n    while x:\n        x = x % 7 + 1")
        seconds = []
        for pairs_now in ([*batch, pairs[255]], [*distinct(batch, number), loop]):
            started = time.perf_counter()
            grader.grade([problem for problem, _ in pairs_now], [program for _, program in pairs_now])
            seconds.append(time.perf_counter() - started)
        found.append(seconds[1] - seconds[0])
    return found


def _unprotected(program: str, sender: Any) -> None:
    namespace: dict[str, Any] = {}
    try:
        exec(program, namespace)
        sender.send(namespace["solution"]())
    except Exception:  # noqa: BLE001 - the peer counts it as no answer
        sender.send(None)


def run_unprotected(pairs: Sequence[Pair]) -> int:
    context = multiprocessing.get_context("fork")
    running: list[tuple[Any, Any]] = []
    for _, program in pairs:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_unprotected, args=(program, sender))
        process.start()
        sender.close()
        running.append((process, receiver))
        if len(running) == WORKERS:
            _collect(*running.pop(0))
    for process, receiver in running:
        _collect(process, receiver)
    return len(pairs)


def _collect(process: Any, receiver: Any) -> None:
    if receiver.poll(LIMIT_S):
        receiver.recv()
    process.kill()
    process.join()


if __name__ == "__main__":
    main()
