"""Which validated update becomes ``best/``, what its gain is worth, and when to wait for a better one no longer."""

from __future__ import annotations

from collections.abc import Sequence

from reftcli.evaluation.samples import SampleRecord
from reftcli.grading.interface import Verdict
from reftcli.metrics.compare import mcnemar_exact
from reftcli.recipe.schema import RlSettings
from reftcli.training.ppo.checkpoint import RlState

ALPHA = 0.05
"""The chance that `rl.best: significant` keeps any update of a run in which there was nothing to gain."""


def right_answers(records: Sequence[SampleRecord]) -> list[bool]:
    """For each validation problem, whether its answer was right."""
    return [record.verdict is Verdict.CORRECT for record in records]


def share_right(right: Sequence[bool]) -> float:
    """Accuracy, 0 to 1."""
    return sum(right) / max(len(right), 1)


def validations_of(updates: int, settings: RlSettings) -> int:
    """How many validations a run of so many updates has after the start; its last update is always validated."""
    return -(-updates // settings.validate_every)


def p_of_gain(start: Sequence[bool], now: Sequence[bool], looks: int) -> float:
    """How often so large a gain over the start is found where there is none, by somebody who looks so many times.

    p = min(1, L p_McNemar):  McNemar's exact two-sided test on the same problems, with Bonferroni's correction for L
    looks. 1 where the start is at least as good: a loss is no gain, however certain.

    Args:
        start: right answers before the first update.
        now: those to the same problems in the same order.
        looks: validations of the whole run after the start, at least 1.

    Raises:
        ValueError: not the same number of problems.
    """
    pairs = list(zip(start, now, strict=True))
    gained = sum(after and not before for before, after in pairs)
    lost = sum(before and not after for before, after in pairs)
    return min(1.0, looks * mcnemar_exact(gained, lost)) if gained > lost else 1.0


def take_if_best(state: RlState, right: list[bool], settings: RlSettings, updates: int) -> bool:
    """Enters the validation of ``state.update`` into the state; returns whether its weights are the best so far.

    The start is the first best. A later update must be higher than the best before it and, with `rl.best: significant`,
    beat the start beyond chance.
    """
    accuracy = share_right(right)
    if state.update == 0:
        state.start_right = right
    if accuracy > state.highest_accuracy:
        state.highest_accuracy, state.highest_update = accuracy, state.update
    start = state.start_right if state.start_right is not None else right
    p = p_of_gain(start, right, validations_of(updates, settings))
    if accuracy <= state.best_accuracy:
        return False
    if settings.best == "significant" and state.update and p >= ALPHA:
        return False
    state.best_accuracy, state.best_update, state.best_p = accuracy, state.update, p
    return True


def doubt_about_best(state: RlState, looks: int) -> str | None:
    """What to say of a best update whose gain over the start may well be chance."""
    if state.best_update <= 0 or state.best_p < ALPHA or state.start_right is None:
        return None
    return (
        f"best/ is update {state.best_update}, but its validation accuracy {state.best_accuracy:.3f} is no evidence of "
        f"a gain over the start's {share_right(state.start_right):.3f} (McNemar p {state.best_p:.2g} over {looks} "
        f"validations of {len(state.start_right)} problems): more validation problems would tell"
    )


def patience_spent(state: RlState, settings: RlSettings) -> bool:
    """Whether `rl.patience` validations in a row were no higher than the highest one before them.

    Counted from where the highest one stands in the schedule, so a resumed run knows it, too. A gain too small to be
    taken as the best is worth waiting for what comes of it.
    """
    if settings.patience is None:
        return False
    validations = state.update // settings.validate_every - state.highest_update // settings.validate_every
    return validations >= settings.patience
