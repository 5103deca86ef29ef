from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from reftcli.metrics.ranking import auc, best_answered, ranked_answered, rerank_at_k


@pytest.mark.parametrize(
    ("correct", "scores", "value"),
    [
        ([True, False], [0.9, 0.1], 1.0),
        ([True, False], [0.1, 0.9], 0.0),
        ([True, False], [0.5, 0.5], 0.5),  # a tie is a half
        ([True, True, False, False], [0.9, 0.4, 0.5, 0.1], 0.75),
        ([True, False, False, True], [0.5, 0.5, 0.2, 0.2], (0.5 + 1 + 0 + 0.5) / 4),
    ],
)
def test_auc_hand_worked(correct: list[bool], scores: list[float], value: float) -> None:
    assert auc(correct, scores) == pytest.approx(value)


def test_auc_is_the_share_of_ordered_pairs() -> None:
    rng = np.random.default_rng(0)
    correct, scores = rng.random(60) < 0.3, rng.integers(0, 8, 60) / 8
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[correct] for n in scores[~correct]]
    assert auc(correct.tolist(), scores.tolist()) == pytest.approx(np.mean(pairs))


def test_auc_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    correct, scores = rng.random(200) < 0.6, rng.integers(0, 20, 200) / 20
    theirs = stats.mannwhitneyu(scores[correct], scores[~correct]).statistic / (correct.sum() * (~correct).sum())
    assert auc(correct.tolist(), scores.tolist()) == pytest.approx(theirs)


@pytest.mark.parametrize("correct", [[], [True, True], [False]])
def test_auc_needs_both_kinds(correct: list[bool]) -> None:
    assert auc(correct, [0.5] * len(correct)) is None


def test_auc_refuses_nan() -> None:
    with pytest.raises(ValueError, match="finite"):
        auc([True, False], [0.5, float("nan")])


@pytest.mark.parametrize(
    ("answers", "scores", "best"),
    [
        (["3", "4", "5"], [0.2, 0.9, 0.5], 1),
        (["3", None, "5"], [0.2, 0.9, 0.5], 2),  # a candidate without an answer is never picked
        (["3", None, "5"], [0.2, None, 0.5], 2),  # and needs no score
        (["3", "4"], [0.7, 0.7], 0),
        ([None, None], [0.7, 0.7], None),
        ([], [], None),
    ],
)
def test_best_answered(answers: list[str | None], scores: list[float | None], best: int | None) -> None:
    assert best_answered(answers, scores) == best


@pytest.mark.parametrize("score", [None, float("nan")])
def test_an_answered_candidate_needs_a_score(score: float | None) -> None:
    with pytest.raises(ValueError, match="candidate 1"):
        best_answered(["3", "4"], [0.5, score])


def test_rerank_hand_worked() -> None:
    # Best is wrong, second right, third right, one without an answer. Pairs of 4: 12 x, 13 x, 1- x, 23, 2-, 3-.
    assert rerank_at_k([False, True, True], total=4, k=2) == 0.5
    assert rerank_at_k([False, True, True], total=4, k=4) == 0.0
    assert rerank_at_k([False, True, True], total=4, k=1) == 0.5
    assert rerank_at_k([], total=4, k=2) == 0.0


def test_rerank_is_the_mean_over_all_subsets() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        answered, correct = rng.random(7) < 0.7, rng.random(7) < 0.5
        scores = (rng.integers(0, 5, 7) / 5).tolist()
        order = ranked_answered(answered.tolist(), scores)
        for k in range(1, 8):
            picks = []
            for at in combinations(range(7), k):
                best = best_answered(["x" if answered[i] else None for i in at], [scores[i] for i in at])
                picks.append(best is not None and bool(correct[at[best]]))
            assert rerank_at_k([bool(correct[i]) for i in order], 7, k) == pytest.approx(np.mean(picks))


@pytest.mark.parametrize(("total", "k"), [(2, 0), (2, 3), (1, 1)])
def test_rerank_refuses_impossible_counts(total: int, k: int) -> None:
    with pytest.raises(ValueError, match="1 <= k <= total"):
        rerank_at_k([True, False], total, k)
