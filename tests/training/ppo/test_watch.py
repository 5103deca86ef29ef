from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from reftcli.training.ppo.watch import CHECKS, QUIET, Cause, Watch, new_alarms

HEALTHY = {
    "step": 1,
    "reward_mean": 0.4,
    "reward_std": 0.3,
    "accuracy": 0.35,
    "kl": 0.5,
    "truncated_rate": 0.05,
    "entropy": 1.0,
    "clip_fraction": 0.1,
}


def rows(*columns: tuple[str, Sequence[float]], **fixed: float) -> list[Mapping[str, float]]:
    """Healthy rows, but for the columns given, all equally long."""
    count = len(columns[0][1])
    return [{**HEALTHY, **fixed, **{name: values[i] for name, values in columns}} for i in range(count)]


WRONG: list[tuple[Cause, list[Mapping[str, float]], str]] = [
    ("no_signal", rows(("reward_std", [0.0] * 3)), "warm up longer (warmup.stop_epoch)"),
    ("no_signal", rows(("reward_std", [0.4, 0.0, 1e-17, 0.0])), "3 updates in a row"),
    ("no_signal", rows(("reward_std", [0.0] * 3), accuracy=1.0), "every answer is right"),
    ("kl", rows(("kl", [0.5, 0.5, 30.0])), "KL to the reference model is 10.3 nats per completion (above 10)"),
    ("kl", rows(("kl", [12.0, 11.0, 10.0])), "raise rl.kl_coef or lower rl.learning_rate"),
    ("kl", rows(("kl", [1.0, 1.5, 2.0, 2.5, 3.0, 3.5])), "rose in 5 updates in a row, from 1 to 3.5 nats"),
    ("truncation", rows(("truncated_rate", [0.1, 0.2, 0.33])), "21% of the completions were cut off"),
    ("truncation", rows(("truncated_rate", [1.0, 1.0, 1.0])), "no completion ended by itself"),
    ("entropy", rows(("entropy", [1.0, 0.5, 0.09, 0.09, 0.09])), "below 10% of the first update's 1"),
    ("clipping", rows(("clip_fraction", [0.4, 0.6, 0.6])), "53% of the tokens were clipped"),
]
RIGHT: list[tuple[Cause, list[Mapping[str, float]]]] = [
    ("no_signal", rows(("reward_std", [0.0, 0.0]))),
    ("no_signal", rows(("reward_std", [0.0, 0.0, 0.01]))),
    ("no_signal", [{key: value for key, value in HEALTHY.items() if key != "reward_std"}] * 3),
    ("kl", rows(("kl", [50.0, 50.0]))),
    ("kl", rows(("kl", [10.0, 10.0, 10.0]))),
    ("kl", rows(("kl", [0.1, 0.2, 0.4, 0.8, 1.6, 1.9]))),
    ("kl", rows(("kl", [4.0, 4.1, 4.2, 4.3, 4.4, 4.5]))),
    ("kl", rows(("kl", [1.0, 1.5, 2.0, 1.9, 3.0, 3.5]))),
    ("kl", rows(("kl", [float("nan")] * 6))),
    ("truncation", rows(("truncated_rate", [0.25, 0.25, 0.1]))),
    ("truncation", rows(("truncated_rate", [0.9]))),
    ("entropy", rows(("entropy", [1.0, 0.11, 0.11, 0.11]))),
    ("entropy", rows(("entropy", [0.0, 0.0, 0.0]))),
    ("clipping", rows(("clip_fraction", [0.5, 0.5, 0.5]))),
]


@pytest.mark.parametrize(("cause", "given", "said"), WRONG)
def test_what_goes_wrong_is_said_with_what_to_do(cause: Cause, given: list[Mapping[str, float]], said: str) -> None:
    (alarm,) = new_alarms(given)
    assert alarm.cause == cause
    assert said in alarm.text
    assert "\n" not in alarm.text


@pytest.mark.parametrize(("cause", "given"), RIGHT)
def test_what_goes_right_is_not_said(cause: Cause, given: list[Mapping[str, float]]) -> None:
    assert CHECKS[cause](given) is None
    assert new_alarms(given) == []


def test_the_tables_have_every_cause() -> None:
    assert {cause for cause, *_ in WRONG} == {cause for cause, _ in RIGHT} == set(CHECKS)


def said_at(truncated: Sequence[float]) -> list[int]:
    """Numbers of the updates after which something is said."""
    watch = Watch()
    return [n for n, row in enumerate(rows(("truncated_rate", truncated)), start=1) if watch.after(row)]


def test_a_cause_is_said_once_while_it_lasts_and_again_after_it_has_gone_away() -> None:
    assert said_at([0.5] * 30) == [3]
    assert said_at([0.0] * 3 + [0.9, 0.0, 0.0] * 10) == [4], "coming and going is one cause"
    # Means of three: the last one above the limit is that of update 6, so 17 is the first to be new again.
    assert said_at([0.5] * 5 + [0.0] * (QUIET - 1) + [0.5] * 5) == [3]
    assert said_at([0.5] * 5 + [0.0] * QUIET + [0.5] * 5) == [3, 17]


def test_a_resumed_run_says_what_an_uninterrupted_one_would_have_said() -> None:
    every = rows(("truncated_rate", [0.0, 0.5, 0.5, 0.5, 0.5, 0.5]), ("kl", [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]))
    straight = Watch()
    expected = [straight.after(row) for row in every]
    assert [len(alarms) for alarms in expected] == [0, 0, 1, 0, 0, 1]
    for cut in range(len(every)):
        others = [{"step": 1, "val_accuracy": 0.5}]
        resumed = Watch([*every[:cut], *others])
        assert [resumed.after(row) for row in every[cut:]] == expected[cut:]


def test_two_causes_at_once_are_two_warnings() -> None:
    found = new_alarms(rows(("truncated_rate", [0.5] * 3), ("kl", [20.0] * 3)))
    assert [alarm.cause for alarm in found] == ["kl", "truncation"]
