"""Runs `reft` commands on many processes of this machine, and compares what they leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

RECIPE = """
seed: 3
model: {name: tiny}
data: {dataset: toy, cot: ncot, level: 1, train_size: 330, validation_size: 7, test_size: 11}
warmup: {schedule_epochs: 1.5, stop_epoch: null, learning_rate: 3.0e-3, lr_warmup: 0.05, batch_size: 16}
rl: {updates: 4, batch_size: 16, mini_batch_size: 8, learning_rate: 1.0e-4, max_prompt_tokens: 80,
     max_total_tokens: 110, validate_every: 2, checkpoint_every: 1}
sampling: {k: 4, max_new_tokens: 28, batch_size: 8}
rerank: {problems: 24, samples_per_problem: 4, epochs: 1, learning_rate: 3.0e-4, batch_size: 16}
grading: {tolerance: 3}
"""
"""330 examples are no whole number of batches, and neither 7 nor 11 problems can be shared evenly."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def json(self) -> Any:
        """The one JSON object on standard output."""
        assert len(self.out.splitlines()) == 1, self.out + self.err
        return json.loads(self.out)


class Started:
    """A command that runs."""

    def __init__(self, folder: Path, *arguments: object, launcher: tuple[str, ...] = ("-m", "reftcli")) -> None:
        self.folder, self._started = folder, time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, *launcher, *map(str, arguments)],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_rows(self, run: str, step: int) -> None:
        """Until the metrics of a run have come to a step."""
        until = time.monotonic() + 180
        while max([row["step"] for row in rows(self.folder / "runs" / run)], default=0) < step:
            assert self.process.poll() is None, self.ended()
            assert time.monotonic() < until, "no progress"
            time.sleep(0.02)

    def workers(self) -> list[int]:
        """Process ids of the workers, in the order they were started."""
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return sorted(int(pid) for pid in listed.stdout.split())

    def ended(self) -> Done:
        since = time.monotonic()
        out, err = self.process.communicate(timeout=150)
        return Done(self.process.returncode, out, err, time.monotonic() - since)


def reft(folder: Path, *arguments: object) -> Done:
    """A command that must end well."""
    done = Started(folder, *arguments).ended()
    assert done.code == 0, done.err
    return done


def trained_by_one_process(folder: Path) -> Path:
    """A folder with ``recipe.yaml``, ``runs/warmup`` and ``runs/rl``, to which others are compared."""
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    reft(folder, "warmup", "--recipe", "recipe.yaml", "--name", "warmup")
    reft(folder, "rl", "warmup", "--name", "rl")
    return folder


def rows(run: Path) -> list[dict[str, Any]]:
    """The complete rows of ``metrics.jsonl``."""
    file = run / "metrics.jsonl"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def weights(folder: Path) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in load_file(folder / "model.safetensors").items()}


def change(folder: Path, start: Path) -> dict[str, Tensor]:
    """What training did to the weights."""
    before, after = weights(start), weights(folder)
    assert before.keys() == after.keys()
    return {name: after[name] - before[name] for name in before}


def norm(tensors: dict[str, Tensor]) -> float:
    return float(torch.stack([tensor.norm() for tensor in tensors.values()]).norm())


def assert_same_training(runs: Path, run: str, other: str, start: Path | None) -> None:
    """Losses equal to 4 decimals; the same change of the weights to a thousandth of it."""
    found, expected = rows(runs / run), rows(runs / other)
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for key in ("loss", "policy_loss", "value_loss", "kl", "reward_mean", "accuracy", "val_accuracy", "grad_norm"):
        pairs = [(a[key], b[key]) for a, b in zip(found, expected, strict=True) if key in b]
        tolerance = 1e-3 if key == "grad_norm" else 5e-5
        assert all(abs(a - b) <= tolerance for a, b in pairs), (key, pairs)
    moved, as_expected = (
        weights(runs / name / "final") if start is None else change(runs / name / "final", start)
        for name in (run, other)
    )
    difference = norm({name: moved[name] - as_expected[name] for name in moved})
    assert norm(as_expected) > 1e-3
    assert difference <= 1e-3 * norm(as_expected)


def send(pid: int, number: signal.Signals) -> None:
    os.kill(pid, number)
