"""Every number derived from saved samples: no model, no grader, only the rows.

``n`` is every problem that has a row. A problem without a greedy row, or with fewer samples than the others, counts the
missing ones as no answer; nothing is dropped. Numbers do not depend on the order of the rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np

from reftcli.errors import DataError, UsageError
from reftcli.evaluation.samples import SampleRecord
from reftcli.grading.interface import Verdict
from reftcli.metrics.intervals import Interval, interval_of_mean
from reftcli.metrics.pass_at_k import pass_at_k
from reftcli.metrics.ranking import ranked_answered, rerank_at_k
from reftcli.metrics.voting import NO_VOTE, IntArray, choose_subsets, cluster_answers, maj_at_k
from reftcli.sampling.interface import Decoding

SameAnswer = Callable[[str, str, str], bool]
"""(item_id, a, b) -> whether the two answers to that problem are one candidate."""

PerProblem = dict[str, dict[str, float]]
"""Measure -> item_id -> value in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Measured:
    """An accuracy in [0, 1] with its 95% interval over problems."""

    accuracy: float
    ci95: Interval

    def to_json(self) -> dict[str, Any]:
        """``{"accuracy", "ci95": [low, high]}``."""
        return {"accuracy": self.accuracy, "ci95": list(self.ci95)}


@dataclass(frozen=True, slots=True)
class Results:
    """What ``eval`` and ``vote`` report.

    ``measures`` and ``per_problem`` share their keys: ``greedy``, ``sample_mean``, ``oracle`` (any sample correct),
    ``maj@k``, ``pass@k`` and, with reward-model scores, ``rerank@k``; what has no rows has no key.
    """

    n: int
    samples_per_problem: int
    missing: Mapping[Decoding, int]
    """Rows that other problems have and these do not, by decoding; they count as no answer."""
    measures: Mapping[str, Measured]
    per_problem: PerProblem
    verdicts: Mapping[Decoding, Mapping[str, int]]
    ungradable: tuple[str, ...]
    """Problems with at least one row that could not be graded."""

    def by_k(self, kind: Literal["maj", "pass", "rerank"]) -> dict[int, Measured]:
        """The curve of one strategy: k -> measure, k ascending."""
        prefix = f"{kind}@"
        found = {int(k.removeprefix(prefix)): m for k, m in self.measures.items() if k.startswith(prefix)}
        return dict(sorted(found.items()))

    def to_json(self, run: str, dataset: str, split: str, samples_file: str) -> dict[str, Any]:
        """The object that ``reft eval --json`` and ``reft vote --json`` print (contract.md, "A run's folder")."""
        greedy = self.measures.get("greedy")
        row: dict[str, Any] = {
            "run": run,
            "dataset": dataset,
            "split": split,
            "n": self.n,
            "accuracy": greedy.accuracy if greedy else None,
            "accuracy_ci95": list(greedy.ci95) if greedy else None,
            "maj": self._curve("maj"),
            "pass": self._curve("pass"),
        }
        if rerank := self._curve("rerank"):
            row["rerank"] = rerank
        for key, name in (("mean_sample_accuracy", "sample_mean"), ("oracle", "oracle")):
            if name in self.measures:
                row[key] = self.measures[name].to_json()
        return row | {
            "samples_per_problem": self.samples_per_problem,
            "missing": dict(self.missing),
            "verdicts": {decoding: dict(counts) for decoding, counts in self.verdicts.items()},
            "ungradable": list(self.ungradable),
            "samples_file": samples_file,
        }

    def _curve(self, kind: Literal["maj", "pass", "rerank"]) -> dict[str, dict[str, Any]]:
        return {str(k): measured.to_json() for k, measured in self.by_k(kind).items()}


@dataclass(slots=True)
class _ProblemSamples:
    item_id: str
    greedy: SampleRecord | None
    sampled: list[SampleRecord]
    """Ascending sample_index."""


def derive_results(
    records: Sequence[SampleRecord], same_answer: SameAnswer, ks: Sequence[int] | None, seed: int
) -> Results:
    """Every number from one set of rows.

    Args:
        records: greedy and sampled rows of one evaluation, in any order.
        ks: sizes for maj@k, pass@k and rerank@k; None takes 1, 2, 5, 10, ... and K, the samples of a problem.
        seed: for the subsets of maj@k with k < K, and the bootstrap.

    Raises DataError for no rows, a row that occurs twice, or answered samples of which only some have an ``rm_score``;
    UsageError for a k that is not within 1 to K.
    """
    problems = _by_problem(records)
    total = max(len(problem.sampled) for problem in problems)
    sizes = _checked_ks(ks, total)
    per_problem = _greedy_values(problems)
    if total:
        per_problem |= _sampled_values(problems, total)
        per_problem |= _vote_values(problems, total, sizes, same_answer, seed)
        per_problem |= _pass_values(problems, total, sizes)
        if any(record.rm_score is not None for problem in problems for record in problem.sampled):
            per_problem |= _rerank_values(problems, total, sizes)
    return Results(
        n=len(problems),
        samples_per_problem=total,
        missing={
            "greedy": sum(p.greedy is None for p in problems) if "greedy" in per_problem else 0,
            "sampled": sum(total - len(p.sampled) for p in problems),
        },
        measures={name: _measure(list(values.values()), seed) for name, values in per_problem.items()},
        per_problem=per_problem,
        verdicts=_verdict_counts(records),
        ungradable=tuple(sorted({r.item_id for r in records if r.verdict is Verdict.UNGRADABLE})),
    )


def default_ks(total: int) -> tuple[int, ...]:
    """1, 2, 5, 10, 20, 50, ... below ``total``, then ``total`` itself; empty for 0."""
    series = (step * 10**power for power in range(len(str(total))) for step in (1, 2, 5))
    return (*(k for k in series if k < total), *([total] if total else []))


def _checked_ks(ks: Sequence[int] | None, total: int) -> tuple[int, ...]:
    if ks is None:
        return default_ks(total)
    bad = sorted(k for k in set(ks) if not 1 <= k <= total)
    if bad:
        raise UsageError(f"k = {bad[0]} is not possible: there are {total} samples a problem (k must be 1 to {total})")
    return tuple(sorted(set(ks)))


def _by_problem(records: Sequence[SampleRecord]) -> list[_ProblemSamples]:
    if not records:
        raise DataError("no samples to evaluate; run 'reft eval' first")
    problems: dict[str, _ProblemSamples] = {}
    seen: set[tuple[str, str, int]] = set()
    for record in records:
        index = 0 if record.decoding == "greedy" else record.sample_index
        key = (record.item_id, record.decoding, index)
        if key in seen:
            which = "greedy completion" if record.decoding == "greedy" else f"sample {index}"
            raise DataError(f"problem {record.item_id} has {which} twice; give the rows of one evaluation only")
        seen.add(key)
        problem = problems.setdefault(record.item_id, _ProblemSamples(record.item_id, None, []))
        if record.decoding == "greedy":
            problem.greedy = record
        else:
            problem.sampled.append(record)
    for problem in problems.values():
        problem.sampled.sort(key=lambda record: record.sample_index)
    return [problems[item_id] for item_id in sorted(problems)]


def _greedy_values(problems: Sequence[_ProblemSamples]) -> PerProblem:
    if all(problem.greedy is None for problem in problems):
        return {}
    return {"greedy": {p.item_id: float(p.greedy is not None and _is_correct(p.greedy)) for p in problems}}


def _sampled_values(problems: Sequence[_ProblemSamples], total: int) -> PerProblem:
    correct = {p.item_id: sum(map(_is_correct, p.sampled)) for p in problems}
    return {
        "sample_mean": {item_id: c / total for item_id, c in correct.items()},
        "oracle": {item_id: float(c > 0) for item_id, c in correct.items()},
    }


def _vote_values(
    problems: Sequence[_ProblemSamples], total: int, ks: Sequence[int], same_answer: SameAnswer, seed: int
) -> PerProblem:
    # Samples are exchangeable, so all problems share the subsets: nothing then depends on which problems are present.
    subsets = {k: choose_subsets(total, k, seed) for k in ks}
    values: PerProblem = {f"maj@{k}": {} for k in ks}
    for problem in problems:
        labels = _vote_labels(problem, total, same_answer)
        correct = np.zeros(total, dtype=np.bool_)
        correct[: len(problem.sampled)] = [_is_correct(record) for record in problem.sampled]
        for k in ks:
            values[f"maj@{k}"][problem.item_id] = maj_at_k(labels, correct, subsets[k])
    return values


def _vote_labels(problem: _ProblemSamples, total: int, same_answer: SameAnswer) -> IntArray:
    """Labels [total]; missing samples do not vote."""
    answers = [record.predicted_answer if record.answered else None for record in problem.sampled]
    labels = cluster_answers(answers, lambda a, b: same_answer(problem.item_id, a, b))
    return np.pad(labels, (0, total - labels.size), constant_values=NO_VOTE)


def _pass_values(problems: Sequence[_ProblemSamples], total: int, ks: Sequence[int]) -> PerProblem:
    correct = {p.item_id: sum(map(_is_correct, p.sampled)) for p in problems}
    return {f"pass@{k}": {item_id: pass_at_k(total, c, k) for item_id, c in correct.items()} for k in ks}


def _rerank_values(problems: Sequence[_ProblemSamples], total: int, ks: Sequence[int]) -> PerProblem:
    unscored = sum(r.answered and r.rm_score is None for p in problems for r in p.sampled)
    if unscored:
        raise DataError(f"{unscored} answered samples have no rm_score while others have one; score all of them")
    values: PerProblem = {f"rerank@{k}": {} for k in ks}
    for problem in problems:
        order = ranked_answered([r.answered for r in problem.sampled], [r.rm_score for r in problem.sampled])
        correct = [_is_correct(problem.sampled[position]) for position in order]
        for k in ks:
            values[f"rerank@{k}"][problem.item_id] = rerank_at_k(correct, total, k)
    return values


def _measure(values: list[float], seed: int) -> Measured:
    return Measured(math.fsum(values) / len(values), interval_of_mean(values, seed))


def _verdict_counts(records: Sequence[SampleRecord]) -> dict[Decoding, dict[str, int]]:
    counts = Counter((record.decoding, record.verdict) for record in records)
    decodings = cast(tuple[Decoding, ...], get_args(Decoding))
    return {
        decoding: {str(verdict): counts[decoding, verdict] for verdict in Verdict}
        for decoding in decodings
        if any(counts[decoding, verdict] for verdict in Verdict)
    }


def _is_correct(record: SampleRecord) -> bool:
    return record.verdict is Verdict.CORRECT
