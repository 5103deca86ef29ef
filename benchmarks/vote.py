"""Counting the votes of saved samples: `reft vote` on 1,319 problems x 100 samples, as a process of its own.

    python benchmarks/vote.py [--json] [--rounds 3] [--problems 1319] [--samples 100]

The file is made for it: GSM8K's size, prompts and chains of such lengths that a row has 0.9 kB, some 30 distinct texts
of answers a problem (1000, 1,000 and 1000.0 are one candidate), one sample in 20 without an answer. Peak memory is the
process's, imports included.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import arguments, report, summary

WORDS = ("the", "she", "has", "and", "of", "each", "so", "then", "buys", "sells", "eggs", "dollars", "left", "gives")


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=1319)
    parser.add_argument("--samples", type=int, default=100)
    parser.set_defaults(rounds=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "test.jsonl"
        write(file, options.problems, options.samples)
        found = [vote(file) for _ in range(options.rounds)]
        size_mb = round(file.stat().st_size / 1e6)
    results: dict[str, Any] = {
        "seconds": summary([row["seconds"] for row in found]),
        "peak MB": round(max(row["peak_mb"] for row in found)),
        "file MB": size_mb,
    }
    settings = {"problems": options.problems, "samples": options.samples}
    report("vote", settings, results, {}, options.json)


def write(file: Path, problems: int, samples: int) -> None:
    """A samples file, greedy answers first, as `reft eval` writes it; the same in every call."""
    rng = random.Random(0)
    golds = [rng.choice([rng.randint(1, 2000), round(rng.uniform(0, 99), 2)]) for _ in range(problems)]
    prompts = [f"Question: {text(rng, 46)}\nAnswer reasoning: \n" for _ in range(problems)]
    with file.open("w", encoding="utf-8") as out:
        for decoding, count in (("greedy", 1), ("sampled", samples)):
            for problem in range(problems):
                for index in range(count):
                    row = sample(rng, problem, golds[problem], prompts[problem], index, decoding)
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")


def sample(rng: random.Random, problem: int, gold: float, prompt: str, index: int, decoding: str) -> dict[str, Any]:
    answer = None
    if rng.random() > 0.05:
        answer = written(
            rng, gold if rng.random() < 0.5 else round(gold * rng.choice([0.5, 2, 1.1, 3]), 3) + rng.randint(0, 3)
        )
    right = answer is not None and answer.replace(",", "") in (str(gold), str(float(gold)))
    verdict = "no_answer" if answer is None else "correct" if right else "wrong"
    return {
        "item_id": f"gsm8k_test_{problem}", "split": "test", "sample_index": index, "decoding": decoding,
        "prompt": prompt, "completion": f"{text(rng, 60)}\nTherefore, the answer is: {answer}",
        "predicted_answer": answer, "gold_answer": str(gold), "verdict": verdict, "score": float(right),
        "reward": 1.0 if right else 0.1, "why": f"answered {answer}, the gold answer is {gold}",
        "logprob": -rng.uniform(5, 80), "step": None,
    }  # fmt: skip


def written(rng: random.Random, value: float) -> str:
    """One of the ways to write a number."""
    whole = value == int(value)
    ways = (
        [f"{int(value):,}", f"{int(value)}", f"{float(value)}"] if whole else [f"{value}", f"{value}0", f"{value:.2f}"]
    )
    return rng.choice(ways)


def text(rng: random.Random, words: int) -> str:
    """So many words and numbers."""
    return " ".join(rng.choice(WORDS) if rng.random() < 0.8 else str(rng.randint(1, 500)) for _ in range(words))


def vote(file: Path) -> dict[str, float]:
    """Seconds and peak memory of one `reft vote`."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "reftcli", "vote", str(file), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        sys.exit(f"reft vote failed: {out.decode()[-500:]}")
    print(f"{seconds:.1f} s, {json.loads(out)['maj']}", file=sys.stderr)
    return {"seconds": seconds, "peak_mb": usage.ru_maxrss / 1024}


if __name__ == "__main__":
    main()
