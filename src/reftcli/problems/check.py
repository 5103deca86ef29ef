"""What is wrong or suspicious in loaded problems, as plain data: duplicates, overlap, missing chains, conflicts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from reftcli.problems.load import SPLITS, ProblemSets, chain_source_counts
from reftcli.problems.numbers import plain_number
from reftcli.problems.record import Problem
from reftcli.problems.splits import normalised_question

Severity = Literal["error", "warning", "note"]

MAX_QUESTION_CHARS = 1200
"""About 300 tokens, the paper's prompt limit."""
SHOWN_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of trouble in one place. ``count`` is problems of ``split``; ``examples`` are ``file:line``."""

    kind: str
    severity: Severity
    split: str
    count: int
    message: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Sizes and findings. Errors make the data unusable, warnings make results doubtful, notes are for the record."""

    problems: dict[str, int]
    chain_sources: dict[str, dict[str, int]]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.severity != "error" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON."""
        return {
            "ok": self.ok,
            "problems": self.problems,
            "chain_sources": self.chain_sources,
            "findings": [asdict(finding) | {"examples": list(finding.examples)} for finding in self.findings],
        }

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """The findings as table rows: severity, split, count, message, examples."""
        return [(f.severity, f.split, str(f.count), f.message, ", ".join(f.examples)) for f in self.findings]


def check_problem_sets(sets: ProblemSets, max_question_chars: int = MAX_QUESTION_CHARS) -> CheckReport:
    """Looks for everything that makes the splits unusable or their results doubtful; grades nothing."""
    findings: list[Finding] = []
    for split in SPLITS:
        findings += _within(split, sets, max_question_chars)
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        findings += _overlap(sets, first, second)
    findings += _conflicts([problem for split in SPLITS for problem in sets.split(split)])
    findings += [Finding("loading", "note", "", 1, text) for text in sets.provenance.get("warnings", [])]
    return CheckReport(
        problems={split: len(sets.split(split)) for split in SPLITS},
        chain_sources={split: chain_source_counts(sets.split(split), sets.form) for split in SPLITS},
        findings=tuple(findings),
    )


def _within(split: Any, sets: ProblemSets, max_question_chars: int) -> Iterable[Finding]:
    problems = sets.split(split)
    if not problems:
        yield Finding("empty_split", "warning", split, 0, "the split has no problems")
    empty = [p for p in problems if not p.question.strip() or not p.gold_answer.strip() or not p.item_id.strip()]
    yield from _found("empty_field", "error", split, empty, "question, gold answer or id is empty")
    chosen = [p for p in problems if p.answer_kind == "choice" and p.gold_answer not in p.options]
    yield from _found("gold_not_an_option", "error", split, chosen, "the gold answer is none of the options")
    seen: set[str] = set()
    again = _where(problems, lambda p: _seen_before(normalised_question(p.question), seen))
    yield from _found("duplicate", "warning", split, again, "the question stands earlier in the same split")
    long = [p for p in problems if len(p.question) > max_question_chars]
    yield from _found("long_question", "note", split, long, f"the question is over {max_question_chars} characters")
    if split == "train":  # only training needs chains
        bare = [p for p in problems if not p.chains.get(sets.form)]
        severity: Severity = "error" if len(bare) == len(problems) else "note"
        message = f"no {sets.form} chain: such a problem can be used in RL, not in warm-up"
        yield from _found("missing_chain", severity, split, bare, message)


def _overlap(sets: ProblemSets, first: Any, second: Any) -> Iterable[Finding]:
    there = {normalised_question(problem.question) for problem in sets.split(first)}
    shared = [problem for problem in sets.split(second) if normalised_question(problem.question) in there]
    yield from _found("overlap", "warning", second, shared, f"the question is in {first} too")


def _conflicts(problems: Sequence[Problem]) -> Iterable[Finding]:
    golds: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        golds[normalised_question(problem.question)].append(problem)
    clashing = [
        problem for group in golds.values() if len({_gold_key(problem) for problem in group}) > 1 for problem in group
    ]
    yield from _found("conflicting_golds", "warning", "", clashing, "one question, several gold answers")


def _gold_key(problem: Problem) -> str:
    value = plain_number(problem.gold_answer)
    return problem.gold_answer.strip() if value is None else str(value)


def _seen_before(key: str, seen: set[str]) -> bool:
    before = key in seen
    seen.add(key)
    return before


def _where(problems: Iterable[Problem], test: Callable[[Problem], bool]) -> list[Problem]:
    return [problem for problem in problems if test(problem)]


def _found(kind: str, severity: Severity, split: str, problems: Sequence[Problem], message: str) -> Iterable[Finding]:
    if problems:
        examples = tuple(problem.source or problem.item_id for problem in problems[:SHOWN_EXAMPLES])
        yield Finding(kind, severity, split, len(problems), message, examples)
