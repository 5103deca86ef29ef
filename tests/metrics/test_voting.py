from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from reftcli.metrics.voting import NO_VOTE, choose_subsets, cluster_answers, maj_at_k, majority_vote


def identical(a: str, b: str) -> bool:
    return a == b


def close(a: str, b: str) -> bool:
    def number(text: str) -> float:
        top, _, bottom = text.replace(",", "").partition("/")
        return float(top) / float(bottom or 1)

    return abs(number(a) - number(b)) <= 1e-2


@pytest.mark.parametrize(
    ("answers", "winner", "members"),
    [
        (["3", "5", "5"], "5", (1, 2)),
        (["5", "3", "3", "5"], "5", (0, 3)),  # tie: first seen
        ([None, "3", None, None], "3", (1,)),  # no answer does not vote
        (["4", "3.333", "3.3333", "4", "3.33"], "3.333", (1, 2, 4)),
        (["0.5", "1/2", "2", "2"], "0.5", (0, 1)),  # tie between two and two
        (["7", "1,000", "1000"], "1,000", (1, 2)),
    ],
)
def test_majority_vote(answers: list[str | None], winner: str, members: tuple[int, ...]) -> None:
    result = majority_vote(answers, close)
    assert result.winner is not None
    assert (result.winner.answer, result.winner.members) == (winner, members)
    assert result.winner.weight == len(members)


@pytest.mark.parametrize("answers", [[], [None], [None, None]])
def test_nobody_answers(answers: list[str | None]) -> None:
    result = majority_vote(answers, close)
    assert result.winner is None
    assert result.candidates == ()


def test_candidates_are_in_the_order_first_seen() -> None:
    result = majority_vote(["b", None, "a", "a", "c"], identical)
    assert [(c.answer, c.members) for c in result.candidates] == [("b", (0,)), ("a", (2, 3)), ("c", (4,))]


def test_weights_decide_and_float_noise_is_a_tie() -> None:
    heavier = majority_vote(["3", "5", "5"], close, weights=[0.9, 0.2, 0.3]).winner
    assert heavier is not None
    assert (heavier.answer, heavier.weight) == ("3", 0.9)
    tied = majority_vote(["3", "5", "5"], close, weights=[0.3, 0.1, 0.2]).winner  # 0.1 + 0.2 > 0.3 in floats
    assert tied is not None
    assert tied.answer == "3"


def test_weights_of_zero_still_vote() -> None:
    winner = majority_vote([None, "3"], close, weights=[0.0, 0.0]).winner
    assert winner is not None
    assert winner.answer == "3"


@pytest.mark.parametrize("weights", [[1.0], [1.0, -0.1], [1.0, float("nan")]])
def test_bad_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="2 finite numbers"):
        majority_vote(["1", "2"], close, weights)


def test_equality_that_is_not_transitive_joins_the_first_candidate_it_equals() -> None:
    # 1.009 equals 1.00, and 1.018 equals 1.009 but not the representative 1.00.
    assert cluster_answers(["1.00", "1.009", "1.018"], close).tolist() == [0, 0, 1]


def test_identical_texts_are_merged_before_same_is_called() -> None:
    calls: list[tuple[str, str]] = []

    def counting(a: str, b: str) -> bool:
        calls.append((a, b))
        return a == b

    labels = cluster_answers(["1", "2", None] * 40, counting)
    assert calls == [("1", "2")]
    assert labels.tolist() == [0, 1, NO_VOTE] * 40


def test_subsets_are_all_of_them_where_there_are_few() -> None:
    assert choose_subsets(4, 2, seed=0).tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert choose_subsets(100, 100, seed=0).tolist() == [list(range(100))]
    assert choose_subsets(100, 1, seed=0).tolist() == [[i] for i in range(100)]


def test_drawn_subsets_are_seeded_ascending_without_repeats_and_uniform() -> None:
    drawn = choose_subsets(20, 5, seed=3, limit=4000)
    assert drawn.shape == (4000, 5)
    assert (np.diff(drawn, axis=1) > 0).all()
    assert (drawn == choose_subsets(20, 5, seed=3, limit=4000)).all()
    assert (drawn != choose_subsets(20, 5, seed=4, limit=4000)).any()
    assert np.bincount(drawn.ravel()) == pytest.approx(np.full(20, 1000), abs=150)  # expected 1000 +- 27


@pytest.mark.parametrize("k", [0, 5])
def test_subsets_refuse_an_impossible_k(k: int) -> None:
    with pytest.raises(ValueError, match="1 <= k <= total"):
        choose_subsets(4, k, seed=0)


def test_maj_at_k_hand_worked() -> None:
    # Answers x y y -, gold y. Pairs: xy x (tie, first seen), xy x, x- x, yy y, y- y, y- y: 3 of 6.
    labels = cluster_answers(["x", "y", "y", None], identical)
    correct = np.array([False, True, True, False])
    assert maj_at_k(labels, correct, choose_subsets(4, 2, seed=0)) == 0.5
    assert maj_at_k(labels, correct, choose_subsets(4, 4, seed=0)) == 1.0
    assert maj_at_k(labels, correct, choose_subsets(4, 1, seed=0)) == 0.5


def test_maj_at_k_where_nobody_answers_is_wrong() -> None:
    labels = cluster_answers([None, None], identical)
    assert maj_at_k(labels, np.array([True, True]), choose_subsets(2, 1, seed=0)) == 0.0


def test_maj_at_k_agrees_with_majority_vote_on_every_subset() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        answers = [[None, "1", "2", "3"][i] for i in rng.integers(0, 4, 7)]
        correct = np.array([a == "2" for a in answers])
        weights = (rng.integers(0, 4, 7) / 10).tolist()
        labels = cluster_answers(answers, identical)
        for k in range(1, 8):
            right = []
            for at in combinations(range(7), k):
                winner = majority_vote([answers[i] for i in at], identical, [weights[i] for i in at]).winner
                right.append(winner is not None and winner.answer == "2")
            assert maj_at_k(labels, correct, choose_subsets(7, k, seed=0), weights) == pytest.approx(np.mean(right))
