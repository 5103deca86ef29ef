"""The demo's promises over seeds: what RL gains, that it is a gain, and that nothing is gained from shuffled golds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SEEDS = (1, 2, 3)
Reft = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module", params=SEEDS)
def demo(request: pytest.FixtureRequest, folder: Path, reft_json: Reft) -> dict[str, Any]:
    return reft_json("demo", "--seed", str(request.param), "--name", f"seed-{request.param}", cwd=folder)


def row(demo: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in demo["rows"] if row["name"] == name)


def test_the_warm_up_answers_almost_always(demo: dict[str, Any]) -> None:
    assert demo["warmup_no_answer"] <= 0.05


def test_reft_gains_and_the_interval_excludes_zero(demo: dict[str, Any]) -> None:
    gain = demo["differences"]["ReFT - warm-up"]
    assert gain["mean"] >= 0.10
    assert gain["ci95"][0] > 0


def test_every_row_has_an_interval_on_at_least_500_problems(demo: dict[str, Any]) -> None:
    assert [row["name"].partition("@")[0] for row in demo["rows"]] == [
        "warm-up, greedy", "SFT continued, greedy", "ReFT, greedy", "ReFT, maj", "ReFT, maj", "ReFT, rerank",
        "ReFT, weighted",
    ]  # fmt: skip
    for found in demo["rows"]:
        assert found["n"] >= 500
        assert found["ci95"][0] <= found["accuracy"] <= found["ci95"][1]


@pytest.mark.parametrize("strategy", ["maj", "rerank"])
def test_inference_time_strategies_cost_nothing(demo: dict[str, Any], strategy: str) -> None:
    (found,) = [
        difference
        for name, difference in demo["differences"].items()
        if name.startswith(f"{strategy}@") and "likelihood" not in name
    ]
    assert found["ci95"][0] > -0.01


def test_the_reward_model_tells_right_from_wrong_on_held_out_samples(demo: dict[str, Any]) -> None:
    assert demo["held_out_auc"] > 0.6


def test_shuffled_golds_teach_nothing(demo: dict[str, Any], folder: Path, reft_json: Reft) -> None:
    seed = demo["seed"]
    start = f"seed-{seed}-warmup"
    settings = ("--recipe", "tiny/toy-ncot", "--seed", str(seed), "--set", "rl.shuffle_gold=true")
    reft_json("rl", start, *settings, "--name", f"control-{seed}", cwd=folder)
    control = reft_json("eval", f"control-{seed}", cwd=folder)
    assert control["accuracy"] <= row(demo, "warm-up, greedy")["accuracy"] + 0.02
