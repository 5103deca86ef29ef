"""kill -9 three times in a sampling run of 200 problems x 16: it ends at the same samples as one that nobody killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PROBLEMS, K, KILLS = 200, 16, 3
SETTINGS = (
    "data.dataset=toy", "data.cot=ncot", "data.level=1", "data.train_size=8", "data.validation_size=8",
    f"data.test_size={PROBLEMS}", "sampling.max_new_tokens=48", "sampling.batch_size=16",
)  # fmt: skip


def command(name: str, *flags: str) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return [
        sys.executable, "-m", "reftcli", "eval", "tiny", *settings, "--majority-vote", str(K), "--name", name,
        "--seed", "4", *flags,
    ]  # fmt: skip


RESUME_ALONE = [sys.executable, "-m", "reftcli", "eval", "--resume"]
"""Finds the newest unfinished evaluation and its run, whatever --name that had."""


def start(folder: Path, command: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def rows_kept(samples: Path) -> int:
    return sum(part.read_bytes().count(b"\n") for part in samples.glob("*.partial-*.jsonl"))


def rows(file: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    found = [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]]
    by_key = {(row["item_id"], row["decoding"], row["sample_index"]): row for row in found}
    assert len(by_key) == len(found), "no sample twice"
    return by_key


def test_killed_three_times_it_ends_at_the_same_samples(tmp_path: Path) -> None:
    whole = start(tmp_path, command("whole"))
    out, _ = whole.communicate(timeout=600)
    assert whole.returncode == 0, out[-2000:]
    expected = rows(tmp_path / "runs/whole/samples/test.jsonl")
    assert len(expected) == PROBLEMS * (1 + K)

    rng = random.Random(0)
    samples = tmp_path / "runs/killed/samples"
    kept = []
    for kill in range(KILLS):
        process = start(tmp_path, command("killed", *(["--resume"] if kill else [])))
        before = rows_kept(samples)
        until = time.monotonic() + 300
        while rows_kept(samples) <= before:  # something new stands in the files
            assert process.poll() is None, process.communicate()[0][-2000:]
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was killed in the middle"
        if kill == 0:  # as if the machine had gone down while a row was being written
            with (samples / "test.partial-0.jsonl").open("ab") as file:
                file.write(b'{"chunk": 40, "of": 128, "item_id": "to')
        kept.append(rows_kept(samples))
        assert not (samples / "test.jsonl").exists()
    assert sorted(set(kept)) == kept, "every attempt got further"
    last = start(tmp_path, RESUME_ALONE)
    out, _ = last.communicate(timeout=600)
    assert last.returncode == 0, out[-2000:]
    assert f"of {PROBLEMS * (1 + K):,} completions are there already" in out
    assert rows(samples / "test.jsonl") == expected
    assert not list(samples.glob("*.partial*"))
    results = [json.loads((tmp_path / f"runs/{name}/eval/test.json").read_text()) for name in ("whole", "killed")]
    for result in results:
        del result["run"], result["samples_file"]
    assert results[0] == results[1]
