"""Many samples of each prompt: ours against HF generate with ``num_return_sequences``, batch for batch.

    python benchmarks/sampling.py [--json] [--rounds 2] [--problems 16] [--samples 32] [--batch 64]

Real model (``smollm2-q4``), fp32, SVAMP prompts. Lengths are real: completions end where the gold program of their
problem would (the token is forced; everything that decoding costs is paid first). Contestants take turns in processes
of their own; the ratio of CPU-seconds is there for machines that are busy with other work. That greedy output is HF
generate's, token for token, is shown by ``tests/slow/test_real_sampler.py``.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from statistics import median
from typing import Any

from common import arguments, report, summary


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=16)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64, help="completions decoded at once, by both")
    parser.add_argument("--contestant", choices=("hf", "ours"), help="run one of them in this process")
    parser.set_defaults(rounds=2)
    options = parser.parse_args()
    if options.contestant:
        print(json.dumps(run(options.contestant, options.problems, options.samples, options.batch)))
        return
    rows: dict[str, list[dict[str, Any]]] = {"hf": [], "ours": []}
    for _ in range(options.rounds):
        for name, found in rows.items():
            found.append(in_a_process(name, options))
            print(f"{name}: {found[-1]}", file=sys.stderr)
    results: dict[str, Any] = {}
    for name, found in rows.items():
        results[f"{name}, tokens/s"] = summary([row["tokens"] / row["seconds"] for row in found])
        results[f"{name}, tokens/CPU-second"] = summary([row["tokens"] / row["cpu_seconds"] for row in found])
        results[f"{name}, peak MB above imports"] = round(max(row["peak_mb"] for row in found))
    assert len({row["tokens"] for found in rows.values() for row in found}) == 1, "not the same work"
    ratios = {}
    for unit, key in (("s", "seconds"), ("CPU-second", "cpu_seconds")):
        speed = {name: median(row["tokens"] / row[key] for row in found) for name, found in rows.items()}
        ratios[f"ours / hf, tokens/{unit}"] = speed["ours"] / speed["hf"]
    settings = {"problems": options.problems, "samples": options.samples, "batch": options.batch, "precision": "fp32"}
    report("sampling", settings, results, ratios, options.json)


def in_a_process(name: str, options: Any) -> dict[str, Any]:
    flags = [
        "--contestant",
        name,
        "--problems",
        options.problems,
        "--samples",
        options.samples,
        "--batch",
        options.batch,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, __file__, *map(str, flags)], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def run(name: str, problems: int, samples: int, batch: int) -> dict[str, Any]:
    """Tokens drawn, seconds, and peak memory above what the imports take."""
    import torch
    import transformers

    del transformers
    import ppo_contestants
    import ppo_step

    before_mb = ppo_contestants._resident_mb()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    work = ppo_step.work(problems)
    contestant = {"hf": hf, "ours": ours}[name]
    draw = contestant(work["prompts"], [len(row) for row in work["completions"]], samples, batch)
    draw(1)
    started, cpu_started = time.perf_counter(), time.process_time()
    tokens = draw(samples)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mb
    return {"tokens": tokens, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak_mb}


def hf(prompts: list[list[int]], lengths: list[int], samples: int, batch: int) -> Any:
    """``batch // samples`` prompts at a time, each with its samples."""
    import ppo_contestants
    import torch

    loaded = ppo_contestants.load()
    eos = loaded.eos_token_id

    class EndAt:
        """EOS at a row's length and never before."""

        def __init__(self, columns: int, ends: list[int]) -> None:
            self.columns, self.ends = columns, torch.tensor(ends)

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            last = self.ends == input_ids.shape[1] - self.columns + 1
            scores[:, eos] = -torch.inf
            scores[last] = -torch.inf
            scores[last, eos] = 0.0
            return scores

    def draw(k: int) -> int:
        tokens = 0
        size = max(1, batch // k)
        for start in range(0, len(prompts), size):
            some = prompts[start : start + size]
            width = max(map(len, some))
            ids = torch.tensor([[0] * (width - len(row)) + row for row in some])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in some])
            ends = [length for length in lengths[start : start + size] for _ in range(k)]
            loaded.model.generate(
                input_ids=ids, attention_mask=mask, do_sample=True, top_k=0, num_return_sequences=k,
                max_new_tokens=max(ends), eos_token_id=eos, pad_token_id=0, logits_processor=[EndAt(width, ends)],
            )  # fmt: skip
            tokens += sum(ends)
        return tokens

    return draw


def ours(prompts: list[list[int]], lengths: list[int], samples: int, batch: int) -> Any:
    import ppo_contestants
    import torch

    from reftcli.problems.prompts import Prompt
    from reftcli.problems.record import Problem
    from reftcli.sampling import torch_sampler
    from reftcli.sampling.interface import Decode

    loaded = ppo_contestants.load(onednn=True)
    eos = loaded.eos_token_id
    sampler = torch_sampler.TorchSampler(loaded.model, eos_token_id=eos, pad_token_id=0, batch_size=batch, context=2048)
    asked = [Prompt(Problem(str(i), "?", "1"), "?", tuple(ids)) for i, ids in enumerate(prompts)]
    plain = torch_sampler._Decoder._choose

    def choosing(self: Any, rows: list[Any], logits: Any, hidden: Any) -> Any:
        """EOS at a row's length and never before."""
        last = torch.tensor([len(r.token_ids) + 1 == lengths[int(r.prompt.problem.item_id)] for r in rows])
        logits[:, eos] = -torch.inf
        logits[last] = -torch.inf
        logits[last, eos] = 0.0
        return plain(self, rows, logits, hidden)

    torch_sampler._Decoder._choose = choosing

    def draw(k: int) -> int:
        found = sampler.sample(asked, k, Decode("sampled", max(lengths), seed=k))
        assert all(c.ended for c in found)
        return sum(len(c.token_ids) for c in found)

    return draw


if __name__ == "__main__":
    main()
