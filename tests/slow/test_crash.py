"""kill -9 at random moments of an RL run; each time --resume ends at the same bits as a run that nobody killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

KILLS = 20
SETTINGS = [
    "data.train_size=64", "data.validation_size=8", "data.test_size=8", "data.level=1",
    "rl.updates=24", "rl.batch_size=8", "rl.mini_batch_size=4", "rl.validate_every=6", "rl.checkpoint_every=1",
    "rl.max_prompt_tokens=60", "rl.max_total_tokens=84", "rl.learning_rate=1e-3", "rl.keep=2",
    "warmup.schedule_epochs=16", "warmup.stop_epoch=null", "warmup.learning_rate=3e-3", "warmup.batch_size=16",
    "sampling.max_new_tokens=20",
]  # fmt: skip

# Imports take seconds and training takes less, so one process imports, and forks for each command that it is told.
SERVER = """
import json, os, sys
import reftcli.training.stages, reftcli.evaluation.experiment, reftcli.training.trl_seam
from reftcli.__main__ import main
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)
        sys.argv = ["reft", *json.loads(line)]
        try:
            code = main()
        except SystemExit as end:
            code = end.code
        sys.stderr.flush()
        os._exit(code or 0)
    print(json.dumps({"pid": child}), flush=True)
    _, status = os.waitpid(child, 0)
    print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), flush=True)
"""


class Server:
    """Runs `reft` commands, and kills one of them after a while."""

    def __init__(self, folder: Path) -> None:
        self._log = (folder / "log.txt").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        )  # fmt: skip
        self.log = folder / "log.txt"

    def run(self, *arguments: str, kill_after: float | None = None) -> int:
        """The exit code, negative for a signal."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        pid = self._answer()["pid"]
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return int(self._answer()["status"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return dict(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


def rl(name: str) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return ["rl", "warm", "--dataset", "toy", "--cot", "ncot", *settings, "--seed", "5", "--name", name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crash")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    yield server
    server.close()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_killed_at_random_moments_every_run_ends_at_the_same_weights(server: Server, folder: Path) -> None:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    warm = ["warmup", "--model", "tiny", "--dataset", "toy", "--cot", "ncot", *settings, "--name", "warm"]
    assert server.run(*warm) == 0, server.log.read_text()[-2000:]
    assert server.run(*rl("first")) == 0, server.log.read_text()[-2000:]
    started = time.monotonic()
    assert server.run(*rl("whole")) == 0, server.log.read_text()[-2000:]
    seconds = time.monotonic() - started
    runs = folder / "runs"
    final, best = weights(runs / "whole/final"), weights(runs / "whole/best")
    assert same(weights(runs / "first/final"), final)
    assert not same(weights(runs / "warm/final"), final)
    rng = random.Random(0)
    killed_at = []
    for number in range(KILLS):
        name = f"killed-{number}"
        status = server.run(*rl(name), kill_after=rng.uniform(0.05, 0.95) * seconds)
        assert status in (-signal.SIGKILL, 0)
        if not (runs / name).exists():
            assert server.run(*rl(name)) == 0  # nothing was begun, so there is nothing to resume
        else:
            steps = sorted(int(path.name[5:]) for path in (runs / name / "checkpoints").glob("step-*"))
            killed_at.append(steps[-1] if steps else 0)
            assert server.run("rl", "--resume", "--name", name) == 0, server.log.read_text()[-2000:]
        assert same(weights(runs / name / "final"), final), name
        assert same(weights(runs / name / "best"), best), name
        left = [path.name for path in (runs / name / "checkpoints").iterdir()]
        assert all(found.startswith("step-") for found in left), left
    assert len(set(killed_at)) >= 4, f"the moments should be spread over the run: {killed_at}"
