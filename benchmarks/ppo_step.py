"""One PPO update, side by side: ours, a padded loop (P1), the same with our matrix products (P1+), stock TRL (P2).

    python benchmarks/ppo_step.py [--json] [--rounds 3] [--batch 8,16] [--only p1,ours] [--demo]

Real model (``smollm2-q4``), fp32, SVAMP prompts; completions are the gold programs, so that all contestants draw the
same tokens, and prompts and lengths are real. Each contestant is a process of its own; each peer and ours take turns,
one at a time, on every core. Peak memory is what a process held at most, less what it held after its imports. What each
contestant does is written in `ppo_contestants.py`.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from common import SHARED_DATA, arguments, report, summary

MICRO_BATCH = 8
CONTESTANTS = ("p1", "p1+", "p2", "ours")
PROGRAM = Path(__file__).with_name("ppo_contestants.py")


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--batch", default="8,16", help="prompts per update, with commas")
    parser.add_argument("--only", default=",".join(CONTESTANTS), help="contestants, with commas")
    parser.add_argument("--demo", action="store_true", help="the demo's model, problems and RL settings instead")
    parser.set_defaults(rounds=3)
    options = parser.parse_args()
    names = options.only.split(",")
    results: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    if options.demo:
        os.environ["REFT_BENCH_MODEL"] = "tiny"
    for batch in [128] if options.demo else map(int, options.batch.split(",")):
        rows = contests(names, demo_work() if options.demo else work(batch), options.rounds)
        for name in names:
            results[f"{name}, batch {batch}, seconds"] = summary([row["seconds"] for row in rows[name]])
            last = rows[name][-1]
            results[f"{name}, batch {batch}, peak MB above imports"] = round(last["peak_mb"] - last["imported_mb"])
            results[f"{name}, batch {batch}, peak MB"] = round(last["peak_mb"])
        check(rows, same=not options.demo)  # ours shuffles rows among mini-batches, P1 does not
        if "ours" in names:
            ratios |= compared(rows, batch)
    settings = {
        "model": "tiny" if options.demo else "smollm2-q4",
        "precision": "fp32",
        "ppo_epochs": 2,
        "micro_batch": MICRO_BATCH,
    }
    report("ppo_step", settings | {"rounds": options.rounds}, results, ratios, options.json)


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


def demo_work() -> dict[str, Any]:
    """The demo's RL settings: 128 rollouts on the toy problems, mini-batches of 32, gold chains as completions."""
    from reftcli.models.load import load_model
    from reftcli.models.source import resolve_model
    from reftcli.problems.prompts import PromptBuilder
    from reftcli.problems.toy import toy_problem_sets

    loaded = load_model(resolve_model("tiny"))
    builder = PromptBuilder(loaded.tokenizer, "ncot", "paper", loaded.eos_token_id)
    problems, _, _ = toy_problem_sets(
        level=3, form="ncot", answer="number", train_size=128, validation_size=8, test_size=8, seed=1
    )
    examples = [builder.example(problem) for problem in problems]
    return {
        "prompts": [list(example.prompt.token_ids) for example in examples],
        "completions": [list(example.target_ids) for example in examples],
        "rewards": [float(i % 2) for i in range(len(examples))],
        "micro_batch": 32,
        "mini_batch": 32,
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


def contest(names: list[str], given: dict[str, Any], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Rows of each contestant, one a round. The first update of each is not counted."""
    cores = len(os.sched_getaffinity(0))
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(cores),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
    processes = {}
    for name in names:
        processes[name] = subprocess.Popen(
            [sys.executable, str(PROGRAM), name, str(rounds + 1)],
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
        sys.exit(f"contestant {name} ended: run {PROGRAM.name} {name} by hand to see why")
    row: dict[str, Any] = json.loads(line)
    return row


def check(rows: dict[str, list[dict[str, Any]]], same: bool) -> None:
    """All updates are sensible, and those of p1, p1+ and ours are the same one."""
    for name, found in rows.items():
        for row in found:
            assert all(math.isfinite(row[loss]) for loss in ("policy_loss", "value_loss")), (name, row)
            assert row["moved"] > 0, (name, row)
    firsts = [rows[name][0] for name in ("p1", "p1+", "ours") if name in rows]
    for row in firsts[1:] if same else []:
        for key in ("value_loss", "first_policy_loss"):
            assert math.isclose(row[key], firsts[0][key], rel_tol=0.02, abs_tol=1e-4), (key, row, firsts[0])


def compared(rows: dict[str, list[dict[str, Any]]], batch: int) -> dict[str, float]:
    """Times and peak memory of the others over ours."""
    seconds = {name: median(row["seconds"] for row in found) for name, found in rows.items()}
    peaks = {name: found[-1]["peak_mb"] - found[-1]["imported_mb"] for name, found in rows.items()}
    others = [name for name in rows if name != "ours"]
    speed = {f"{name} / ours, seconds, batch {batch}": seconds[name] / seconds["ours"] for name in others}
    memory = {f"ours / {name}, peak memory, batch {batch}": peaks["ours"] / peaks[name] for name in others}
    return speed | memory


if __name__ == "__main__":
    main()
