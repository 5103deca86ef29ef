"""Which update is the best, by hand: 20 problems, so that every p-value is a binomial one can add up."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from reftcli.recipe.schema import RlSettings
from reftcli.training.ppo.best import doubt_about_best, p_of_gain, patience_spent, take_if_best, validations_of
from reftcli.training.ppo.checkpoint import RlState


def first(right: int, n: int = 20) -> list[bool]:
    """The first so many of n are right."""
    return [place < right for place in range(n)]


@pytest.mark.parametrize(
    ("start", "now", "looks", "expected"),
    [
        (first(4), first(4), 1, 1.0),
        (first(4), first(2), 1, 1.0),  # a loss is no gain
        (first(0), first(5), 1, 2 / 32),
        (first(0), first(6), 1, 2 / 64),
        (first(0), first(6), 3, 6 / 64),  # looked three times
        (first(0), first(3), 10, 1.0),
        (first(1), [False, *first(8, 19)], 1, 20 / 512),  # 8 gained, 1 lost: 2 (1 + 9) / 2^9
    ],
)
def test_the_p_value_of_a_gain(start: list[bool], now: list[bool], looks: int, expected: float) -> None:
    assert p_of_gain(start, now, looks) == pytest.approx(expected)


def test_other_problems_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        p_of_gain(first(1), first(1, 19), 1)


@pytest.mark.parametrize(("updates", "every", "looks"), [(60, 20, 3), (61, 20, 4), (5, 20, 1), (20, 20, 1)])
def test_looks_are_the_validations_after_the_start(updates: int, every: int, looks: int) -> None:
    assert validations_of(updates, RlSettings(validate_every=every)) == looks


def taken(rule: str, *rights: int) -> tuple[list[int], RlState]:
    """The updates that were taken as best, of validations after updates 0, 10, 20, ..., and the state at the end."""
    settings = RlSettings(validate_every=10, best=rule)
    state, best = RlState(), []
    for look, right in enumerate(rights):
        state.update = 10 * look
        if take_if_best(state, first(right), settings, updates=10 * (len(rights) - 1)):
            best.append(state.update)
    return best, state


def test_the_highest_is_the_best_and_ties_keep_the_earlier() -> None:
    best, state = taken("highest", 4, 3, 5, 5, 7, 6)
    assert best == [0, 20, 40]
    assert (state.best_update, state.best_accuracy) == (40, 0.35)
    assert state.best_p == pytest.approx(min(1.0, 5 * 2 / 2**3))


def test_what_chance_explains_is_not_kept_where_a_gain_must_be_significant() -> None:
    best, state = taken("significant", 4, 5, 7, 8)
    assert best == [0]
    assert (state.best_update, state.best_accuracy, state.best_p) == (0, 0.2, 1.0)


def test_of_significant_gains_the_highest_is_kept() -> None:
    best, state = taken("significant", 4, 12, 15, 13)  # p: 3 x 2 / 2^8 = 0.023, then less
    assert best == [0, 10, 20]
    assert (state.best_update, state.best_accuracy) == (20, 0.75)


def test_a_start_that_nothing_is_known_of_is_compared_with_nothing() -> None:
    state = RlState(update=10, best_accuracy=0.1, best_update=0)  # resumed from an earlier version's checkpoint
    assert take_if_best(state, first(5), RlSettings(), updates=20)
    assert doubt_about_best(state, 2) is None


def test_a_gain_that_may_be_chance_is_told_and_a_certain_one_is_not() -> None:
    _, uncertain = taken("highest", 4, 7)
    assert doubt_about_best(uncertain, 1) == (
        "best/ is update 10, but its validation accuracy 0.350 is no evidence of a gain over the start's 0.200 "
        "(McNemar p 0.25 over 1 validations of 20 problems): more validation problems would tell"
    )
    _, certain = taken("highest", 4, 15)
    _, start = taken("highest", 4, 3)
    assert doubt_about_best(certain, 1) is None
    assert doubt_about_best(start, 1) is None


@pytest.mark.parametrize(
    ("update", "highest_update", "patience", "expected"),
    [
        (0, 0, 1, False),
        (9, 0, 1, False),
        (10, 0, 1, True),
        (19, 10, 1, False),
        (20, 10, 1, True),
        (29, 10, 2, False),
        (30, 10, 2, True),
        (35, 10, 2, True),
        (1000, 0, None, False),
    ],
)
def test_patience_counts_validations_after_the_highest_one(
    update: int, highest_update: int, patience: int | None, expected: bool
) -> None:
    settings = RlSettings(validate_every=10, patience=patience)
    assert patience_spent(RlState(update=update, highest_update=highest_update), settings) is expected


def test_patience_waits_on_gains_that_are_not_yet_significant() -> None:
    _, state = taken("significant", 4, 5, 6, 7)
    assert (state.best_update, state.highest_update) == (0, 30)
    settings = RlSettings(validate_every=10, patience=1, best="significant")
    assert not patience_spent(state, settings)
    state.update = 40
    assert patience_spent(state, settings)


def test_a_state_that_was_saved_is_the_state_that_comes_back() -> None:
    """Update 20 is lower than update 10, and significant all the same: fewer problems changed their outcome."""
    start = first(30, 100)
    settings, state = RlSettings(validate_every=10, best="significant"), RlState()
    noisy = [place >= 67 or place < 12 for place in range(100)]  # 33 gained, 18 lost
    for state.update, right in zip((0, 10, 20), (start, noisy, first(40, 100)), strict=True):
        take_if_best(state, right, settings, updates=20)
    assert (state.best_update, state.highest_update) == (20, 10)
    assert RlState(**asdict(state)) == state


def test_an_earlier_versions_checkpoint_knows_its_highest_validation() -> None:
    assert RlState(update=50, best_accuracy=0.4, best_update=20).highest_update == 20
