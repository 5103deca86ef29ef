"""Splits: carving a slice of the training problems that is the same in every stage, and names that are unique."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from reftcli.problems.record import Problem, Split

CARVED_SHARE = 4
"""At most one problem in this many is carved for a split, so that a small file keeps something to train on."""


def normalised_question(question: str) -> str:
    """The question without differences of case, width and spacing: equal for what a person calls a duplicate."""
    folded = " ".join(unicodedata.normalize("NFKC", question).casefold().split())
    return re.sub(r" ?([.,?!;:'\"\u2019]) ?", r"\1 ", folded).strip()


def carve(
    problems: Sequence[Problem], sizes: Mapping[Split, int], seed: int, elsewhere: Collection[str] = ()
) -> tuple[list[Problem], dict[Split, list[Problem]]]:
    """Takes ``sizes[split]`` problems for each split; returns the rest (in file order) and the carved splits.

    Whole groups of duplicate questions are taken, in the order of a hash of seed and question, so that no two splits
    share a question and the order of the rows does not matter. Questions in ``elsewhere`` (normalised; those of splits
    that have files of their own) stay where they are. A group that does not fit is passed over. Test is carved before
    validation, so its problems do not depend on how many are held out for validation.
    """
    groups: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        groups[normalised_question(problem.question)].append(problem)
    order = sorted((question for question in groups if question not in elsewhere), key=lambda q: _key(q, seed))
    carved: dict[Split, list[Problem]] = {}
    gone: set[str] = set()
    for split in sorted(sizes, key=("test", "validation", "train").index):
        taken: list[Problem] = []
        for question in order:
            if len(taken) >= sizes[split]:
                break
            if question not in gone and len(taken) + len(groups[question]) <= sizes[split]:
                gone.add(question)
                taken += sorted(groups[question], key=lambda problem: problem.item_id)
        carved[split] = taken
    return [problem for problem in problems if normalised_question(problem.question) not in gone], carved


def _key(question: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\n{question}".encode(errors="surrogatepass")).hexdigest()


def with_unique_ids(splits: Mapping[Split, Sequence[Problem]]) -> dict[Split, list[Problem]]:
    """The same problems with item ids that occur once.

    Where ids of validation or test occur in an earlier split too, all of that split's are prefixed with its name
    (``test-gsm8k_0``); an id repeated within a split gets a number (``7#2``).
    """
    seen: set[str] = set()
    result: dict[Split, list[Problem]] = {}
    for split, problems in splits.items():
        prefix = f"{split}-" if seen & {problem.item_id for problem in problems} else ""
        renamed = _numbered([f"{prefix}{problem.item_id}" for problem in problems], seen)
        seen.update(renamed)
        result[split] = [
            problem if problem.item_id == name else dataclasses.replace(problem, item_id=name)
            for problem, name in zip(problems, renamed, strict=True)
        ]
    return result


def _numbered(names: list[str], seen: set[str]) -> list[str]:
    counts: Counter[str] = Counter()
    taken = seen | set(names)
    result = []
    for name in names:
        counts[name] += 1
        unique, number = name, counts[name]
        while number > 1 and unique in taken:
            unique, number = f"{name}#{number}", number + 1
        taken.add(unique)
        result.append(unique)
    return result
