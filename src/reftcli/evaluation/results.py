"""Every number derived from saved samples: no model, no grader, only the rows.

``n`` is every problem that has a row. A problem without a greedy row, or with fewer samples than the others, counts the
missing ones as no answer; nothing is dropped. Numbers do not depend on the order of the rows.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from reftcli.errors import DataError, UsageError
from reftcli.evaluation.samples import SampleRecord
from reftcli.evaluation.tally import FloatArray, Tally, TallyBook
from reftcli.metrics.intervals import Interval, interval_of_mean
from reftcli.metrics.pass_at_k import pass_at_k
from reftcli.metrics.ranking import ranked_answered, rerank_at_k
from reftcli.metrics.voting import NO_VOTE, SUBSETS, IntArray, choose_subsets, cluster_answers, maj_at_k
from reftcli.sampling.interface import Decoding

SameAnswer = Callable[[str, str, str], bool]
"""(item_id, a, b) -> whether the two answers to that problem are one candidate."""

Curve = Literal["maj", "pass", "rerank", "weighted"]

PerProblem = dict[str, dict[str, float]]
"""Measure -> item_id -> value in [0, 1]."""


VoteWeights = Literal["none", "logprob", "reward"]
Ties = Literal["first", "random"]


@dataclass(frozen=True, slots=True)
class VoteRule:
    """How votes are counted.

    ``weights``: one vote each; each sample's probability under the model that drew it; the reward model's p(correct).
    ``ties``: the candidate seen first, or one of the best at random, seeded for each problem and subset.
    """

    weights: VoteWeights = "none"
    ties: Ties = "first"


PLAIN_VOTE = VoteRule()


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
    ``maj@k``, ``pass@k`` and, with reward-model scores, ``rerank@k`` (its pick) and ``weighted@k`` (a vote with its
    scores as weights); what has no rows has no key.
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
    voting: Mapping[str, Any]
    """The rule of the votes: weights, ties, and the subsets that maj@k with k < K is the mean over."""

    def by_k(self, kind: Curve) -> dict[int, Measured]:
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
        for kind in ("rerank", "weighted"):
            if curve := self._curve(kind):
                row[kind] = curve
        for key, name in (("mean_sample_accuracy", "sample_mean"), ("oracle", "oracle")):
            if name in self.measures:
                row[key] = self.measures[name].to_json()
        return row | {
            "samples_per_problem": self.samples_per_problem,
            "voting": dict(self.voting),
            "missing": dict(self.missing),
            "verdicts": {decoding: dict(counts) for decoding, counts in self.verdicts.items()},
            "ungradable": list(self.ungradable),
            "samples_file": samples_file,
        }

    def _curve(self, kind: Curve) -> dict[str, dict[str, Any]]:
        return {str(k): measured.to_json() for k, measured in self.by_k(kind).items()}


def derive_results(
    records: Iterable[SampleRecord],
    same_answer: SameAnswer,
    ks: Sequence[int] | None,
    seed: int,
    rule: VoteRule = PLAIN_VOTE,
) -> Results:
    """Every number from one set of rows.

    Args:
        records: greedy and sampled rows of one evaluation, in any order; they are counted, and not kept.
        ks: sizes for maj@k, pass@k and rerank@k; None takes 1, 2, 5, 10, ... and K, the samples of a problem.
        seed: for the subsets of maj@k with k < K, random ties, and the bootstrap.

    Raises DataError for no rows, a row that occurs twice, or answered samples without the score that the rule needs or
    that others have; UsageError for a k that is not within 1 to K.
    """
    return results_of(TallyBook.of(records), same_answer, ks, seed, rule)


def results_of(
    book: TallyBook, same_answer: SameAnswer, ks: Sequence[int] | None, seed: int, rule: VoteRule = PLAIN_VOTE
) -> Results:
    """`derive_results` of rows that were counted before."""
    problems = book.sorted()
    if not problems:
        raise DataError("no samples to evaluate; run 'reft eval' first")
    total = max(tally.samples for tally in problems)
    sizes = _checked_ks(ks, total)
    per_problem = _greedy_values(problems)
    if total:
        per_problem |= _sampled_values(problems, total)
        per_problem |= _vote_values(problems, total, sizes, same_answer, seed, rule)
        per_problem |= _pass_values(problems, total, sizes)
        if any(tally.has_scores for tally in problems):
            per_problem |= _rerank_values(problems, total, sizes)
    return Results(
        n=len(problems),
        samples_per_problem=total,
        missing={
            "greedy": sum(t.greedy is None for t in problems) if "greedy" in per_problem else 0,
            "sampled": sum(total - t.samples for t in problems),
        },
        measures={name: _measure(list(values.values()), seed) for name, values in per_problem.items()},
        per_problem=per_problem,
        verdicts=book.verdict_counts(),
        ungradable=tuple(sorted(book.ungradable)),
        voting={**asdict(rule), "subsets": SUBSETS, "seed": seed} if total else {},
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


def _greedy_values(problems: Sequence[Tally]) -> PerProblem:
    if all(tally.greedy is None for tally in problems):
        return {}
    return {"greedy": {tally.item_id: float(bool(tally.greedy)) for tally in problems}}


def _sampled_values(problems: Sequence[Tally], total: int) -> PerProblem:
    return {
        "sample_mean": {tally.item_id: tally.right / total for tally in problems},
        "oracle": {tally.item_id: float(tally.right > 0) for tally in problems},
    }


def _vote_values(
    problems: Sequence[Tally], total: int, ks: Sequence[int], same_answer: SameAnswer, seed: int, rule: VoteRule
) -> PerProblem:
    # Samples are exchangeable, so all problems share the subsets: nothing then depends on which problems are present.
    subsets = {k: choose_subsets(total, k, seed) for k in ks}
    curves = {"maj": rule}
    if any(tally.has_scores for tally in problems):
        curves["weighted"] = VoteRule("reward", rule.ties)
    values: PerProblem = {f"{name}@{k}": {} for name in curves for k in ks}
    for tally in problems:
        labels = _vote_labels(tally, total, same_answer)
        correct = np.zeros(total, dtype=np.bool_)
        correct[: tally.samples] = tally.correct
        for name, its_rule in curves.items():
            weights = vote_weights(tally, its_rule.weights)
            padded = None if weights is None else np.pad(weights, (0, total - tally.samples)).tolist()
            for k in ks:
                ties = _ties(its_rule.ties, seed, k, tally.item_id)
                values[f"{name}@{k}"][tally.item_id] = maj_at_k(labels, correct, subsets[k], padded, ties)
    return values


def _vote_labels(tally: Tally, total: int, same_answer: SameAnswer) -> IntArray:
    """Labels [total]; missing samples do not vote."""
    labels = cluster_answers(tally.answers, lambda a, b: same_answer(tally.item_id, a, b))
    return np.pad(labels, (0, total - labels.size), constant_values=NO_VOTE)


def vote_weights(tally: Tally, weights: VoteWeights) -> FloatArray | None:
    """Of each sample, >= 0, and 0 for those that do not vote; None: all the same.

    logprob:  w_i = pi(completion_i | prompt) / max_j pi(completion_j | prompt), which a vote does not tell from pi_i.
    """
    if weights == "none":
        return None
    given = tally.logprobs if weights == "logprob" else tally.rm_scores
    missing = int(np.isnan(given[tally.answered]).sum())
    if missing:
        name = "logprob" if weights == "logprob" else "rm_score"
        raise DataError(f"problem {tally.item_id}: {missing} answered samples have no {name} to weight their votes")
    if weights == "logprob" and tally.answered.any():
        given = np.exp(given - given[tally.answered].max())
    return np.where(tally.answered, given, 0.0)


def _ties(ties: Ties, seed: int, k: int, item_id: str) -> np.random.Generator | None:
    if ties == "first":
        return None
    return np.random.default_rng([seed, k, zlib.crc32(item_id.encode())])


def _pass_values(problems: Sequence[Tally], total: int, ks: Sequence[int]) -> PerProblem:
    return {f"pass@{k}": {t.item_id: pass_at_k(total, t.right, k) for t in problems} for k in ks}


def _rerank_values(problems: Sequence[Tally], total: int, ks: Sequence[int]) -> PerProblem:
    unscored = sum(int(np.isnan(tally.rm_scores[tally.answered]).sum()) for tally in problems)
    if unscored:
        raise DataError(f"{unscored} answered samples have no rm_score while others have one; score all of them")
    values: PerProblem = {f"rerank@{k}": {} for k in ks}
    for tally in problems:
        order = ranked_answered(tally.answered.tolist(), tally.rm_scores.tolist())
        correct = tally.correct[order].tolist()
        for k in ks:
            values[f"rerank@{k}"][tally.item_id] = rerank_at_k(correct, total, k)
    return values


def _measure(values: list[float], seed: int) -> Measured:
    return Measured(math.fsum(values) / len(values), interval_of_mean(values, seed))
