"""What an RL run's own numbers say is going wrong, and what to do about it: pure functions over metric rows.

Nothing is remembered besides the rows, so a resumed run warns of what an uninterrupted one would have warned of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Cause = Literal["no_signal", "kl", "truncation", "entropy", "clipping"]
Row = Mapping[str, float]
"""A row of an update in ``metrics.jsonl``."""
Check = Callable[[Sequence[Row]], str | None]
"""Rows of all updates so far, oldest first -> what is wrong now."""

WINDOW = 3
"""Updates whose mean is judged: with few rollouts a single update says little."""
QUIET = 10
"""Updates for which a cause must have been gone before it is said again."""
EQUAL_REWARDS = 1e-9
KL_LIMIT = 10.0
"""Nats per completion: by then the policy writes what the reference would write once in 20,000 times."""
KL_RISES, KL_RISING_ABOVE, KL_GROWTH = 5, 2.0, 1.5
"""So many rises in a row, that end above so many nats and at so many times where they began."""
TRUNCATED_LIMIT = 0.2
ENTROPY_SHARE = 0.1
"""Of the entropy of the first update."""
CLIPPED_LIMIT = 0.5


@dataclass(frozen=True, slots=True)
class Alarm:
    """One thing that goes wrong, and what to do."""

    cause: Cause
    text: str


class Watch:
    """Says each cause once, and again only after it has been away for `QUIET` updates.

    Args:
        rows: of the updates before (a resumed run); rows of other kinds are left out.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows = [row for row in rows if "reward_mean" in row]

    def after(self, row: Row) -> list[Alarm]:
        """What is to be said after one more update."""
        self._rows.append(row)
        return new_alarms(self._rows)


def new_alarms(rows: Sequence[Row]) -> list[Alarm]:
    """Alarms in force after the last row that were not in force after any of the `QUIET` rows before it."""
    found = []
    for cause, check in CHECKS.items():
        text = check(rows)
        if text is not None and not any(check(rows[:end]) for end in range(max(len(rows) - QUIET, 0), len(rows))):
            found.append(Alarm(cause, text))
    return found


def _no_signal(rows: Sequence[Row]) -> str | None:
    last = rows[-WINDOW:]
    if len(last) < WINDOW or any(row.get("reward_std", 1.0) > EQUAL_REWARDS for row in last):
        return None
    same = f"all rewards of an update were equal, {WINDOW} updates in a row: there is nothing to learn from"
    if all(row["accuracy"] == 1 for row in last):
        return f"{same}; every answer is right, so stop here or take harder problems"
    return f"{same}; warm up longer (warmup.stop_epoch), take more or easier problems, or raise rl.temperature"


def _kl(rows: Sequence[Row]) -> str | None:
    what_to_do = "raise rl.kl_coef or lower rl.learning_rate"
    mean = _mean(rows, "kl")
    if mean is not None and mean > KL_LIMIT:
        return f"KL to the reference model is {mean:.3g} nats per completion (above {KL_LIMIT:g}); {what_to_do}"
    values = [row["kl"] for row in rows[-KL_RISES - 1 :]]
    rises = len(values) == KL_RISES + 1 and all(a < b for a, b in pairwise(values))
    if rises and values[-1] > max(KL_RISING_ABOVE, KL_GROWTH * values[0]):
        grown = f"from {values[0]:.3g} to {values[-1]:.3g} nats per completion"
        return f"KL to the reference model rose in {KL_RISES} updates in a row, {grown}; {what_to_do}"
    return None


def _truncation(rows: Sequence[Row]) -> str | None:
    mean = _mean(rows, "truncated_rate")
    if mean is None or mean <= TRUNCATED_LIMIT:
        return None
    if mean == 1:
        return (
            "no completion ended by itself: does the model write its EOS? look at samples/rollouts.jsonl and at the "
            "warm-up, then at rl.max_total_tokens"
        )
    return (
        f"{mean:.0%} of the completions were cut off by the length limit (above {TRUNCATED_LIMIT:.0%}); raise "
        "rl.max_total_tokens, or see in samples/rollouts.jsonl why they do not end with EOS"
    )


def _entropy(rows: Sequence[Row]) -> str | None:
    mean = _mean(rows, "entropy")
    if mean is None or mean >= ENTROPY_SHARE * rows[0]["entropy"]:
        return None
    return (
        f"entropy fell to {mean:.2g} nats per token, below {ENTROPY_SHARE:.0%} of the first update's "
        f"{rows[0]['entropy']:.2g}: rollouts hardly differ any more; lower rl.learning_rate or raise rl.kl_coef"
    )


def _clipping(rows: Sequence[Row]) -> str | None:
    mean = _mean(rows, "clip_fraction")
    if mean is None or mean <= CLIPPED_LIMIT:
        return None
    return (
        f"{mean:.0%} of the tokens were clipped (above {CLIPPED_LIMIT:.0%}): the policy moves too far in an update; "
        "lower rl.learning_rate or rl.ppo_epochs"
    )


def _mean(rows: Sequence[Row], key: str) -> float | None:
    """Over the last `WINDOW` updates; None before there are so many."""
    last = [row[key] for row in rows[-WINDOW:]]
    return sum(last) / WINDOW if len(last) == WINDOW else None


CHECKS: Mapping[Cause, Check] = {
    "no_signal": _no_signal,
    "kl": _kl,
    "truncation": _truncation,
    "entropy": _entropy,
    "clipping": _clipping,
}
