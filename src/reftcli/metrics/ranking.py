"""Picking one of K samples by a score, and how well the score tells correct from wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def auc(correct: Sequence[bool], scores: Sequence[float]) -> float | None:
    """Area under the ROC curve: the chance that a correct sample scores above a wrong one, ties counting half.

    AUC = (sum of the ranks of the correct - P(P+1)/2) / (P N),  ranks 1..P+N, equal scores share their mean rank

    Source: Hanley & McNeil 1982 (the Mann-Whitney statistic). ``correct``, ``scores``: [m]. None unless both
    kinds occur. Raises ValueError where the lengths differ or a score is not finite.
    """
    positive = np.asarray(correct, dtype=np.bool_)
    values = np.asarray(scores, dtype=np.float64)
    if positive.shape != values.shape or not np.all(np.isfinite(values)):
        raise ValueError("needs one finite score for each sample")
    p = int(positive.sum())
    n = positive.size - p
    if p == 0 or n == 0:
        return None
    _, group, size = np.unique(values, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(size) - (size - 1) / 2
    return float((mean_rank[group][positive].sum() - p * (p + 1) / 2) / (p * n))


def best_answered(answers: Sequence[str | None], scores: Sequence[float | None]) -> int | None:
    """Position of the highest score among the candidates with an answer; None where nobody answered.

    ``answers``, ``scores``: [K]; ties go to the first. Raises ValueError as ``ranked_answered`` does.
    """
    ranked = ranked_answered([a is not None for a in answers], scores)
    return ranked[0] if ranked else None


def ranked_answered(answered: Sequence[bool], scores: Sequence[float | None]) -> list[int]:
    """Positions of the answered candidates, best score first, equal scores in the order seen. [K] in, [m <= K] out.

    Raises ValueError where the lengths differ or an answered candidate has no finite score.
    """
    if len(answered) != len(scores):
        raise ValueError(f"needs one score for each candidate (got {len(answered)} and {len(scores)})")
    scored: list[tuple[float, int]] = []
    for position, (is_answered, score) in enumerate(zip(answered, scores, strict=True)):
        if not is_answered:
            continue
        if score is None or not math.isfinite(score):
            raise ValueError(f"candidate {position} has an answer and no finite score (got {score})")
        scored.append((-score, position))
    return [position for _, position in sorted(scored)]


def rerank_at_k(correct_by_rank: Sequence[bool], total: int, k: int) -> float:
    """Chance that the best answered one of k out of ``total`` samples is correct, over all subsets of size k.

    rerank@k = sum_{i=1}^{m} correct_i C(total - i, k - 1) / C(total, k)

    The i-th best is picked when it is drawn and none better is; candidates without an answer are never picked.
    ``correct_by_rank``: [m], m <= total, best score first. Raises ValueError unless 1 <= k <= total and m <= total.
    """
    if not 1 <= k <= total or len(correct_by_rank) > total:
        raise ValueError(f"needs 1 <= k <= total >= m (got k={k}, total={total}, m={len(correct_by_rank)})")
    picked = sum(math.comb(total - i, k - 1) for i, is_correct in enumerate(correct_by_rank, start=1) if is_correct)
    return picked / math.comb(total, k)
