"""Majority vote among sampled answers.

An answer is a text or None. None does not vote. Answers that are equal by the grader's rule are one candidate, and ties
go to the candidate seen first, or to one of them at random with a seed. That rule of equality may be a tolerance and so
need not be transitive: an answer joins the first candidate whose representative (its first answer) it equals.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

NO_VOTE = -1
"""The label of an answer that does not vote."""

SUBSETS = 128
"""Subsets that maj@k averages over where there are more of them than that."""

_TIE = 1e-9
"""Weights are sums of floats: closer than this, relatively, is a tie."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Answers that are equal by the grader's rule. ``members`` are their positions; the first is the representative."""

    answer: str
    members: tuple[int, ...]
    weight: float
    """Number of votes, or the sum of the voters' weights."""


@dataclass(frozen=True, slots=True)
class VoteResult:
    """``candidates`` in the order first seen; no ``winner`` where nobody answered."""

    winner: Candidate | None
    candidates: tuple[Candidate, ...]


def majority_vote(
    answers: Sequence[str | None], same: Callable[[str, str], bool], weights: Sequence[float] | None = None
) -> VoteResult:
    """winner = argmax_c sum_{i in c} w_i, ties to the first seen;  w_i = 1 without ``weights``.

    ``answers``, ``weights``: [K]. Weights are finite and >= 0 (probabilities, not log-probabilities): else ValueError.
    """
    labels = cluster_answers(answers, same)
    w = _checked_weights(weights, len(answers))
    members: dict[int, list[int]] = {}
    for position, label in enumerate(labels.tolist()):
        if label != NO_VOTE:
            members.setdefault(label, []).append(position)
    candidates = tuple(
        Candidate(str(answers[at[0]]), tuple(at), math.fsum(float(w[i]) for i in at)) for at in members.values()
    )
    best = max((c.weight for c in candidates), default=0.0)
    winner = next((c for c in candidates if c.weight >= best * (1 - _TIE)), None)
    return VoteResult(winner, candidates)


def cluster_answers(answers: Sequence[str | None], same: Callable[[str, str], bool]) -> IntArray:
    """Labels [K]: 0, 1, ... by first appearance of the candidate, NO_VOTE for None.

    Identical texts are merged before ``same`` is called, so it runs once per distinct text and candidate at most.
    """
    label_of: dict[str, int] = {}
    representatives: list[str] = []
    for answer in answers:
        if answer is None or answer in label_of:
            continue
        found = next((i for i, seen in enumerate(representatives) if same(seen, answer)), None)
        if found is None:
            found = len(representatives)
            representatives.append(answer)
        label_of[answer] = found
    return np.array([NO_VOTE if a is None else label_of[a] for a in answers], dtype=np.int64)


def choose_subsets(total: int, k: int, seed: int, limit: int = SUBSETS) -> IntArray:
    """Positions [S, k] of subsets of ``total`` samples, each row ascending so that "first seen" keeps its meaning.

    All C(total, k) of them where these are at most ``limit`` (so k = total gives the one vote in order, and k = 1 the
    mean accuracy of the samples, exactly); else ``limit`` drawn with the seed. Raises ValueError unless
    1 <= k <= total.
    """
    if not 1 <= k <= total:
        raise ValueError(f"needs 1 <= k <= total (got k={k}, total={total})")
    if math.comb(total, k) <= limit:
        return np.array(list(itertools.combinations(range(total), k)), dtype=np.int64)
    order = np.random.default_rng([seed, k]).random((limit, total)).argsort(axis=1)
    return np.sort(order[:, :k], axis=1).astype(np.int64)


def maj_at_k(
    labels: IntArray,
    correct: BoolArray,
    subsets: IntArray,
    weights: Sequence[float] | None = None,
    ties: np.random.Generator | None = None,
) -> float:
    """maj@k of one problem: the share of subsets whose vote is correct.

    ``labels``: [K] from ``cluster_answers``; ``correct``: [K]; ``subsets``: [S, k] from ``choose_subsets``; ``ties``:
    draws among the best candidates, None takes the first seen. A vote is correct when the representative of the winner
    (its first answer within the subset) is; nobody answered is wrong.
    """
    w = _checked_weights(weights, labels.size)
    winners = _winning_positions(labels[subsets], w[subsets], ties)
    rows = np.arange(subsets.shape[0])
    voted = winners != NO_VOTE
    return float(np.mean(voted & correct[subsets[rows, winners]]))


def _winning_positions(labels: IntArray, weights: FloatArray, ties: np.random.Generator | None) -> IntArray:
    """For each row of labels [S, k], the column of the winner's first vote; NO_VOTE where nobody voted."""
    rows, columns = np.nonzero(labels != NO_VOTE)
    shape = (labels.shape[0], int(labels.max(initial=0)) + 1)
    cells = rows * shape[1] + labels[rows, columns]
    totals = np.bincount(cells, weights[rows, columns], shape[0] * shape[1]).reshape(shape)
    first_seen = np.full(shape, labels.shape[1])
    first_seen.reshape(-1)[cells[::-1]] = columns[::-1]  # of several columns the last one written stays: the first
    leading = (totals >= totals.max(axis=1, keepdims=True) * (1 - _TIE)) & (first_seen < labels.shape[1])
    preference = first_seen if ties is None else ties.random(shape)
    best = np.where(leading, preference, np.inf).argmin(axis=1)
    position = first_seen[np.arange(shape[0]), best]
    return np.where(position == labels.shape[1], NO_VOTE, position)


def _checked_weights(weights: Sequence[float] | None, total: int) -> FloatArray:
    if weights is None:
        return np.ones(total)
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (total,) or not np.all(np.isfinite(array) & (array >= 0)):
        raise ValueError(f"weights must be {total} finite numbers >= 0")
    return array
