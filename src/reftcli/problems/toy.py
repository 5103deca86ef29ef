"""The embedded data set: word problems made by a seeded generator, with every gold chain of thought.

A problem tells of someone who has some things and of one to three changes (the level). The answer is the number left.
The same problem can be asked for a number or as a choice among four options, and has an N-CoT and a P-CoT chain.
Train, validation and test share no question.

N-CoT chains are of two kinds, as those that people write: two in five work step by step, the others only state the
result. SFT imitates the mixture; a policy that is rewarded for right answers can find out which kind serves it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from reftcli.problems.programs import program_header
from reftcli.problems.record import AnswerKind, CotForm, Problem

LEVELS = (1, 2, 3)
LETTERS = "ABCD"
_HIGHEST_START = 9
_HIGHEST_OPERAND = 6
_DOUBLED_UP_TO = 10
_REPEATS_PER_PROBLEM = 20
"""So many draws may repeat a question before the generator is called exhausted."""
_TERSE_SHARE = 0.6
_NAMES = (
    "Ann",
    "Ben",
    "Cat",
    "Dan",
    "Eve",
    "Fay",
    "Gus",
    "Hal",
    "Ida",
    "Jon",
    "Kim",
    "Leo",
    "Mia",
    "Ned",
    "Oda",
    "Pat",
)
_THINGS = ("apples", "books", "coins", "pens", "cards", "eggs", "stamps", "shells", "marbles", "cups")

_Operator = Literal["+", "-", "*"]
_PHRASES: Mapping[_Operator, tuple[str, ...]] = {
    "+": ("buys {n} more", "finds {n} more", "gets {n} from a friend"),
    "-": ("gives away {n}", "loses {n}", "sells {n}"),
    "*": ("then has {n} times as many",),
}


@dataclass(frozen=True, slots=True)
class _Story:
    name: str
    thing: str
    start: int
    changes: tuple[tuple[_Operator, int], ...]
    phrases: tuple[str, ...]

    def totals(self) -> list[int]:
        """The count after each change."""
        totals = []
        count = self.start
        for operator, n in self.changes:
            count = _after(count, operator, n)
            totals.append(count)
        return totals


def _after(count: int, operator: _Operator, n: int) -> int:
    return {"+": count + n, "-": count - n, "*": count * n}[operator]


def _draw_story(rng: random.Random, level: int) -> _Story:
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    start = count = rng.randint(3, _HIGHEST_START)
    changes: list[tuple[_Operator, int]] = []
    phrases = []
    for _ in range(level):
        operator = rng.choice(_possible_changes(count))
        if operator == "+":
            n = rng.randint(2, _HIGHEST_OPERAND)
        elif operator == "-":
            n = rng.randint(1, min(_HIGHEST_OPERAND, count - 1))
        else:
            n = 2
        changes.append((operator, n))
        phrases.append(rng.choice(_PHRASES[operator]).format(n=n))
        count = _after(count, operator, n)
    return _Story(name, thing, start, tuple(changes), tuple(phrases))


def _possible_changes(count: int) -> tuple[_Operator, ...]:
    if count < 2:
        return ("+",)  # nobody gives away the last thing
    return ("+", "-", "*") if count <= _DOUBLED_UP_TO else ("+", "-")


def _question(story: _Story) -> str:
    changes = ", ".join(story.phrases)
    return f"{story.name} has {story.start} {story.thing}. {story.name} {changes}. How many {story.thing}?"


def _reasoning(story: _Story, terse: bool) -> str:
    if terse:
        return f"That makes {story.totals()[-1]}."
    counts = [story.start, *story.totals()]
    steps = [
        f"{before} {operator} {n} = {after}."
        for (operator, n), before, after in zip(story.changes, counts, counts[1:], strict=False)
    ]
    return " ".join(steps)


def _program(story: _Story, question: str, final_lines: tuple[str, ...]) -> str:
    lines = [program_header(question), f"    count = {story.start}"]
    lines += [f"    count = count {operator} {n}" for operator, n in story.changes]
    return "\n".join([*lines, *final_lines])


def _options(rng: random.Random, answer: int) -> dict[str, str]:
    near = [answer + d for d in (-10, -3, -2, -1, 1, 2, 3, 10) if answer + d >= 0]
    values = [answer, *rng.sample(near, len(LETTERS) - 1)]
    rng.shuffle(values)
    return {letter: str(value) for letter, value in zip(LETTERS, values, strict=True)}


def _problem(story: _Story, item_id: str, kind: AnswerKind, rng: random.Random) -> Problem:
    question, answer = _question(story), story.totals()[-1]
    terse = rng.random() < _TERSE_SHARE
    options: dict[str, str] = {}
    gold, final_lines = str(answer), ("    return count",)
    if kind == "choice":
        options = _options(rng, answer)
        question += "".join(f"\n{letter}) {text}" for letter, text in options.items())
        gold = next(letter for letter, text in options.items() if text == str(answer))
        table = ", ".join(f"{text}: '{letter}'" for letter, text in options.items())
        final_lines = (f"    return {{{table}}}[count]",)
    return Problem(
        item_id=item_id,
        question=question,
        gold_answer=gold,
        answer_kind=kind,
        options=options,
        chains={"ncot": _reasoning(story, terse), "pcot": _program(story, question, final_lines)},
        chain_sources={"ncot": "generated", "pcot": "generated"},
        source="toy",
        row={
            "item_id": item_id,
            "question": question,
            "answer_value": gold,
            **({"options": options} if options else {}),
        },
    )


def toy_problem_sets(
    *,
    level: int | None,
    form: CotForm,
    answer: AnswerKind | None,
    train_size: int,
    validation_size: int,
    test_size: int,
    seed: int,
) -> tuple[list[Problem], list[Problem], list[Problem]]:
    """Train, validation and test problems; no two of them ask the same.

    Args:
        level: number of steps, 1 to 3; None mixes the three evenly.
        form: accepted for symmetry with other data sets; a toy problem has the chains of both forms.
        answer: "number" (default) or "choice".
        seed: the same seed gives the same problems; the test split comes first, so that it does not change with
            the size of the others.

    Raises:
        ValueError: a level or an answer kind that the generator does not have, or more problems than there are.
    """
    if level is not None and level not in LEVELS:
        raise ValueError(f"the toy data set has levels 1, 2 and 3 (got {level})")
    kind = answer or "number"
    if kind not in ("number", "choice"):
        raise ValueError(f"the toy data set has answers of kind number or choice (got {kind})")
    rng = random.Random(f"reft toy {seed}")
    seen: set[str] = set()

    def draw(split: str, size: int) -> list[Problem]:
        problems: list[Problem] = []
        repeats = 0
        while len(problems) < size:
            story = _draw_story(rng, level or LEVELS[len(problems) % len(LEVELS)])
            if _question(story) in seen:
                repeats += 1
                if repeats > _REPEATS_PER_PROBLEM * size:
                    raise ValueError(f"the toy data set has no {size} distinct problems of level {level} for {split}")
                continue
            seen.add(_question(story))
            problems.append(_problem(story, f"toy-{split}-{len(problems)}", kind, rng))
        return problems

    test, validation, train = draw("test", test_size), draw("validation", validation_size), draw("train", train_size)
    return train, validation, test
