"""One PPO update, side by side: ours, a padded loop (P1), the same with our matrix products (P1+), stock TRL (P2).

    python benchmarks/ppo_step.py [--json] [--rounds 3] [--batch 8,16] [--only p1,ours]
    python benchmarks/ppo_step.py --demo [--json] [--rounds 59] [--warmup FOLDER]

Real model (``smollm2-q4``), fp32, SVAMP prompts; completions are the gold programs, so that all contestants draw the
same tokens, and prompts and lengths are real. Each contestant is a process of its own; each peer and ours take turns,
one at a time, on every core. Peak memory is what a process held at most, less what it held after its imports. What each
contestant does is written in `ppo_contestants.py`.

With ``--demo`` it is the RL stage of ``reft demo``, drawn freely by both: see `demo_contestants.py`. The warm-up that
both start from is made first, in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from common import SHARED_DATA, arguments, report, summary

MICRO_BATCH = 8
CONTESTANTS = ("p1", "p1+", "p2", "floor", "ours")
"""The floor is no contestant, but how fast anybody could be: the products of linear layers and nothing else."""
PROGRAM = Path(__file__).with_name("ppo_contestants.py")
DEMO_PROGRAM = Path(__file__).with_name("demo_contestants.py")


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--batch", default="8,16", help="prompts per update, with commas")
    parser.add_argument("--only", help="contestants, with commas")
    parser.add_argument("--demo", action="store_true", help="the RL stage of the demo instead")
    parser.add_argument("--warmup", help="with --demo: weights to start from, instead of a warm-up of its own")
    parser.set_defaults(rounds=3)
    options = parser.parse_args()
    if options.demo:
        demo(options)
        return
    names = (options.only or ",".join(CONTESTANTS)).split(",")
    results: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    for batch in map(int, options.batch.split(",")):
        rows = contests(names, work(batch), options.rounds)
        for name in names:
            results[f"{name}, batch {batch}, seconds"] = summary([row["seconds"] for row in rows[name]])
            last = rows[name][-1]
            results[f"{name}, batch {batch}, peak MB above imports"] = round(last["peak_mb"] - last["imported_mb"])
            results[f"{name}, batch {batch}, peak MB"] = round(last["peak_mb"])
        check(rows)
        if "ours" in names:
            ratios |= compared(rows, batch)
    settings = {"model": "smollm2-q4", "precision": "fp32", "ppo_epochs": 2, "micro_batch": MICRO_BATCH}
    report("ppo_step", settings | {"rounds": options.rounds}, results, ratios, options.json)


def demo(options: argparse.Namespace) -> None:
    """The RL stage of the demo: so many updates from the same warm-up, drawn freely."""
    names = (options.only or "p1,ours").split(",")
    with tempfile.TemporaryDirectory() as folder:
        warmup = options.warmup or warmed_up(Path(folder))
        rows = contest(names, {"warmup": warmup}, options.rounds, DEMO_PROGRAM)
    results: dict[str, Any] = {}
    for name, found in rows.items():
        assert all(math.isfinite(row["policy_loss"]) for row in found), name
        for number in ("seconds", "cpu_seconds", "length", "accuracy"):
            results[f"{name}, {number} of an update"] = summary([row[number] for row in found])
        results[f"{name}, seconds in all"] = round(sum(row["seconds"] for row in found), 1)
        results[f"{name}, peak MB above imports"] = round(found[-1]["peak_mb"] - found[-1]["imported_mb"])
    ratios = {
        f"{name} / ours, {number} in all": sum(row[number] for row in rows[name]) / sum(r[number] for r in rows["ours"])
        for name in names
        for number in ("seconds", "cpu_seconds")
        if name != "ours" and "ours" in rows
    }
    report("ppo_step --demo", {"model": "tiny", "updates": options.rounds + 1}, results, ratios, options.json)


def warmed_up(folder: Path) -> str:
    """Weights of the demo's warm-up, made now."""
    command = [sys.executable, "-m", "reftcli", "warmup", "--recipe", "tiny/toy-ncot", "--name", "warmup"]
    subprocess.run([*command, "--runs-dir", str(folder)], check=True, stdout=subprocess.DEVNULL)
    return str(folder / "warmup/final")


def work(batch: int) -> dict[str, Any]:
    """Token ids of prompts and completions. Rewards are 1 for every other row."""
    from reftcli.models.load import load_tokenizer
    from reftcli.models.source import resolve_model
    from reftcli.problems.prompts import PromptBuilder
    from reftcli.problems.record import Problem

    file = SHARED_DATA / "svamp/svamp_python_sdp.json"
    if not file.exists():
        sys.exit(f"{file.name} is not beside the checkout: this benchmark needs the SVAMP programs")
    tokenizer = load_tokenizer(resolve_model("smollm2-q4"))
    builder = PromptBuilder(tokenizer, "pcot", "paper", tokenizer.eos_token_id)
    prompts, completions = [], []
    for row in json.loads(file.read_text(encoding="utf-8"))[:batch]:
        problem = Problem(row["item_id"], row["question"], str(row["answer_value"]), chains={"pcot": row["answer_cot"]})
        example = builder.example(problem)
        prompts.append(list(example.prompt.token_ids))
        completions.append(list(example.target_ids))
    rewards = [float(i % 2) for i in range(batch)]
    return {
        "prompts": prompts,
        "completions": completions,
        "rewards": rewards,
        "micro_batch": MICRO_BATCH,
        "mini_batch": batch,
    }


def contests(names: list[str], given: dict[str, Any], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Each peer against ours, in turns. All four at once need more memory than this machine has."""
    if "ours" not in names or len(names) == 1:
        return contest(names, given, rounds)
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        if name != "ours":
            for found, its in contest([name, "ours"], given, rounds).items():
                rows.setdefault(found, []).extend(its)
    return rows


def contest(
    names: list[str], given: dict[str, Any], rounds: int, program: Path = PROGRAM
) -> dict[str, list[dict[str, Any]]]:
    """Rows of each contestant, one a round. The first update of each is not counted."""
    cores = os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(cores),
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
    if program == PROGRAM:  # the demo's contestants wait as a process alone does
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
    processes = {}
    for name in names:
        processes[name] = subprocess.Popen(
            [sys.executable, str(program), name, str(rounds + 1)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
        )  # fmt: skip
        say(processes[name], json.dumps(given))
        hear(name, processes[name])
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name, process in processes.items():
            say(process, "go")
            row = hear(name, process)
            print(f"{name}: {row}", file=sys.stderr)
            if number:
                rows[name].append(row)
    for process in processes.values():
        process.kill()
        process.wait()
    return rows


def say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def hear(name: str, process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.exit(f"contestant {name} ended: run its program by hand to see why")
    row: dict[str, Any] = json.loads(line)
    return row


def check(rows: dict[str, list[dict[str, Any]]]) -> None:
    """All updates are sensible, and those of p1, p1+ and ours are the same one."""
    for name, found in rows.items():
        for row in found if name != "floor" else []:
            assert all(math.isfinite(row[loss]) for loss in ("policy_loss", "value_loss")), (name, row)
            assert row["moved"] > 0, (name, row)
    firsts = [rows[name][0] for name in ("p1", "p1+", "ours") if name in rows]
    for row in firsts[1:]:
        for key in ("value_loss", "first_policy_loss"):
            assert math.isclose(row[key], firsts[0][key], rel_tol=0.02, abs_tol=1e-4), (key, row, firsts[0])


def compared(rows: dict[str, list[dict[str, Any]]], batch: int) -> dict[str, float]:
    """Times and peak memory of the others over ours."""
    seconds = {name: median(row["seconds"] for row in found) for name, found in rows.items()}
    peaks = {name: found[-1]["peak_mb"] - found[-1]["imported_mb"] for name, found in rows.items()}
    others = [name for name in rows if name not in ("ours", "floor")]
    floor = {f"ours / floor, seconds, batch {batch}": seconds["ours"] / seconds["floor"]} if "floor" in rows else {}
    speed = {f"{name} / ours, seconds, batch {batch}": seconds[name] / seconds["ours"] for name in others}
    memory = {f"ours / {name}, peak memory, batch {batch}": peaks["ours"] / peaks[name] for name in others}
    return speed | memory | floor


if __name__ == "__main__":
    main()
