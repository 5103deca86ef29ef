"""Calls `reft` in this process, and one session on the tiny model that most tests look at."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reftcli.cli.app import run

# Half-trained on purpose and graded leniently: the reward model needs right and wrong answers.
SMALL_RECIPE = """
seed: 3
model: {name: tiny}
data: {dataset: toy, cot: ncot, level: 1, train_size: 640, validation_size: 8, test_size: 12}
warmup: {schedule_epochs: 1.5, stop_epoch: null, learning_rate: 3.0e-3, lr_warmup: 0.05, batch_size: 16}
rl: {updates: 2, batch_size: 8, learning_rate: 1.0e-4, max_prompt_tokens: 80, max_total_tokens: 110,
     validate_every: 1, checkpoint_every: 1}
sampling: {k: 4, max_new_tokens: 28}
rerank: {problems: 24, samples_per_problem: 4, epochs: 1, learning_rate: 3.0e-4, batch_size: 16}
grading: {tolerance: 3}
"""


@dataclass(frozen=True)
class Called:
    """What one call of `reft` returned and printed."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines on standard error, all of them."""
        return self.err.splitlines()

    @property
    def json(self) -> Any:
        """The one JSON object on standard output."""
        assert len(self.out.splitlines()) == 1, self.out
        return json.loads(self.out)


def call(*arguments: object) -> Called:
    """`reft ARGUMENTS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([str(argument) for argument in arguments])
    return Called(code, out.getvalue(), err.getvalue())


def call_process(*arguments: object, cwd: Path, env: dict[str, str] | None = None) -> Called:
    """`reft ARGUMENTS` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "reftcli", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Called(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def reft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Called]:
    """`reft` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REFT_RUNS_DIR", raising=False)
    return call


@pytest.fixture(scope="session")
def reft_process() -> Callable[..., Called]:
    """`reft` in a process of its own; takes ``cwd`` and ``env``."""
    return call_process


@dataclass
class Session:
    """warmup, another warmup, rl, eval, vote, rerank, report: a folder, and what each command printed."""

    folder: Path
    called: dict[str, Called] = field(default_factory=dict)
    kept: dict[str, bytes] = field(default_factory=dict)

    def call(self, *arguments: object) -> Called:
        """`reft ARGUMENTS` in the session's folder."""
        with contextlib.chdir(self.folder):
            return call(*arguments)

    def run(self, name: str) -> Path:
        return self.folder / "runs" / name

    def record(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run(name) / "run.json").read_text())
        return found

    def rows(self, file: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "runs" / file).read_text().splitlines()]


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """The commands of a session one after another, each with exit code 0."""
    made = Session(tmp_path_factory.mktemp("session"))
    (made.folder / "small.yaml").write_text(SMALL_RECIPE)

    def step(key: str, *arguments: object) -> None:
        made.called[key] = found = made.call(*arguments)
        assert found.code == 0, (key, found.err)

    step("warmup", "warmup", "--recipe", "small.yaml", "--name", "warm", "--json")
    fewer = ("--set", "warmup.schedule_epochs=0.1", "--set", "data.validation_size=2")
    step("other", "warmup", "--recipe", "small.yaml", "--cot", "pcot", "--name", "other", *fewer)
    step("rl", "rl", "--recipe", "small.yaml", "--name", "rl", "--json")
    step("eval", "eval", "--majority-vote", "4", "--json")
    made.kept["samples"] = (made.run("rl") / "samples" / "test.jsonl").read_bytes()
    step("rerank", "rerank", "--name", "reranked", "--json")
    step("report", "report", "--json")
    return made
