"""Peak memory of rollout, scoring and update, measured, beside what `reft plan` says of the same shapes.

    python benchmarks/memory.py [--json] [--only small,medium] [--smollm2]

Each case is a process of its own on the CPU in fp32 (the plan's profile ``single``): a Llama with random weights, or
SmolLM2-135M, the sampler, the reference's forward pass, and optimizer steps of the policy with its value head, with
the code that `reft rl` runs. Measured is the resident memory at its highest in each phase, above that after imports.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from common import arguments, report


@dataclasses.dataclass(frozen=True)
class Case:
    """Sizes of a model and of its work; ``rows`` per forward pass, ``micro_batches`` of them per optimizer step."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    rows: int
    prompt: int
    completion: int
    micro_batches: int = 1
    checkpointing: bool = False
    chunk: int | None = None
    alias: str | None = None


CASES: Mapping[str, Case] = {
    "30 M, 8 x 256": Case(512, 1376, 8, 8, 8, 8000, 8, 128, 128),
    "30 M, 24 x 256": Case(512, 1376, 8, 8, 8, 8000, 24, 128, 128),
    "30 M, 2 x 8 x 256": Case(512, 1376, 8, 8, 8, 8000, 8, 128, 128, micro_batches=2),
    "90 M, vocabulary 49,152, 8 x 200": Case(640, 1728, 8, 10, 5, 49_152, 8, 100, 100),
    "90 M, the same, chunks of 128": Case(640, 1728, 8, 10, 5, 49_152, 8, 100, 100, chunk=128),
    "120 M, 4 x 256": Case(1024, 2752, 8, 16, 4, 16_000, 4, 128, 128),
    "120 M, 16 x 256": Case(1024, 2752, 8, 16, 4, 16_000, 16, 128, 128),
    "120 M, 16 x 256, checkpointing": Case(1024, 2752, 8, 16, 4, 16_000, 16, 128, 128, checkpointing=True),
}
SMOLLM2 = {
    "SmolLM2-135M, 4 x 160": Case(576, 1536, 30, 9, 3, 49_152, 4, 96, 64, alias="smollm2-q4"),
    "SmolLM2-135M, 16 x 160": Case(576, 1536, 30, 9, 3, 49_152, 16, 96, 64, alias="smollm2-q4"),
}
SMALL = Case(512, 64, 1, 4, 4, 64, 1, 8, 8)
PHASES = ("rollout", "scoring", "update")


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--only", help="cases whose name contains one of these, with commas")
    parser.add_argument("--smollm2", action="store_true", help="also the real model, from the installed package")
    parser.add_argument("--case", help=argparse_suppress())
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measured(Case(**json.loads(options.case)))))
        return
    cases = {**CASES, **(SMOLLM2 if options.smollm2 else {})}
    if options.only:
        cases = {name: case for name, case in cases.items() if any(part in name for part in options.only.split(","))}
    results, ratios = {}, {}
    for name, case in cases.items():
        found, said = in_a_process(case), predicted(case)
        both = (f"{phase} {found[phase] / 1e6:.0f} MB, planned {said[phase] / 1e6:.0f}" for phase in PHASES)
        print(f"{name}: {'; '.join(both)}", file=sys.stderr, flush=True)
        for phase in PHASES:
            results[f"{name}: {phase}, MB measured / planned"] = f"{found[phase] / 1e6:.0f} / {said[phase] / 1e6:.0f}"
            ratios[f"{name}: {phase}, planned / measured"] = said[phase] / found[phase]
    report("memory", {"cases": list(cases)}, results, ratios, options.json)


def argparse_suppress() -> str:
    import argparse

    return argparse.SUPPRESS


def in_a_process(case: Case) -> dict[str, int]:
    """`measured` in a process that has done nothing else."""
    command = [sys.executable, __file__, "--case", json.dumps(dataclasses.asdict(case))]
    # Else the C library keeps what was freed, in blocks of up to 32 MB, and resident memory says nothing of one phase.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "2000000", "MALLOC_TRIM_THRESHOLD_": "2000000"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


# What the plan says ----------------------------------------------------------------------------------------------


def predicted(case: Case) -> dict[str, int]:
    """Bytes by phase. On the CPU the sampler lays out a second copy of the weights, which no GPU has."""
    from reftcli.planning.memory import memory_of
    from reftcli.planning.shapes import shape_from_config
    from reftcli.planning.work import Lengths, Work

    shape = shape_from_config(config_of(case), "case")
    total = case.prompt + case.completion
    work = Work(
        "rl", case.rows * case.micro_batches, case.rows * case.micro_batches, case.rows, 2, 1, 1,
        Lengths(case.prompt, case.completion, case.completion, "given"), total, case.prompt, case.completion,
        decode_rows=case.rows, validation_problems=0, validation_max_tokens=total, validations=0, bf16=False,
        checkpointing=case.checkpointing, logprob_chunk=case.chunk, lora_rank=None, separate_value=False,
        recomputed=False, vllm_share=None,
    )  # fmt: skip
    memory = memory_of(shape, work, "single", 1, case.rows, 0)
    return {
        "rollout": memory.total("rollout") + 4 * (shape.matrices + shape.head),
        "scoring": memory.total("scoring"),
        "update": max(memory.total("update"), memory.total("step")),
    }


def config_of(case: Case) -> dict[str, Any]:
    """In Hugging Face's spelling."""
    return {
        "model_type": "llama", "vocab_size": case.vocabulary, "hidden_size": case.hidden,
        "intermediate_size": case.intermediate, "num_hidden_layers": case.layers, "num_attention_heads": case.heads,
        "num_key_value_heads": case.kv_heads, "max_position_embeddings": 4096, "tie_word_embeddings": True,
    }  # fmt: skip


# What is measured ------------------------------------------------------------------------------------------------


def measured(case: Case) -> dict[str, int]:
    """Bytes of resident memory at the highest point of each phase, above those after imports."""
    import torch

    torch.manual_seed(0)
    everything(dataclasses.replace(SMALL, hidden=case.hidden))  # what libraries load when they are first used
    gc.collect()
    imported = resident()
    return {phase: size - imported for phase, size in everything(case).items()}


def everything(case: Case) -> dict[str, int]:
    """Bytes of resident memory at the highest point of each phase."""
    import torch
    from torch import nn

    from reftcli.models.load import frozen_copy
    from reftcli.sampling.torch_sampler import TorchSampler
    from reftcli.training.ppo.policy import PolicyWithValueHead, turn_off_dropout

    model = model_of(case)
    reference = frozen_copy(model)
    if case.checkpointing:
        model.gradient_checkpointing_enable()
    policy = PolicyWithValueHead(model, nn.Linear(case.hidden, 1))
    policy.logprob_chunk = case.chunk
    turn_off_dropout(policy)
    policy.train(case.checkpointing)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-6, fused=True)
    sampler = TorchSampler(model, eos_token_id=-1, pad_token_id=0, batch_size=case.rows, context=4096)
    step = optimizer_step(case, policy, optimizer)
    step()  # moments are made in the first
    phases: dict[str, Callable[[], None]] = {
        "rollout": drawing(case, sampler),
        "scoring": scoring(case, reference, policy.packs),
        "update": step,
    }
    return {phase: highest(run) for phase, run in phases.items()}


def model_of(case: Case) -> Any:
    if case.alias:
        from reftcli.models.load import load_model
        from reftcli.models.source import resolve_model

        return load_model(resolve_model(case.alias)).model
    from transformers import LlamaConfig, LlamaForCausalLM

    from reftcli.models.load import LARGE_ENOUGH_FOR_ONEDNN
    from reftcli.models.onednn import use_onednn

    model = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in config_of(case).items() if k != "model_type"}))
    if case.hidden >= LARGE_ENOUGH_FOR_ONEDNN:
        use_onednn(model)
    return model


def scoring_input(case: Case) -> Any:
    import torch

    from reftcli.training.ppo.policy import ScoringInput

    length = case.prompt + case.completion
    ids = torch.arange(case.rows * length) % case.vocabulary
    predicts = torch.cat(
        [torch.arange(row * length + case.prompt - 1, (row + 1) * length - 1) for row in range(case.rows)]
    )
    return ScoringInput(ids, (length,) * case.rows, predicts, ids[predicts + 1])


def drawing(case: Case, sampler: Any) -> Callable[[], None]:
    from reftcli.problems.prompts import Prompt
    from reftcli.problems.record import Problem
    from reftcli.sampling.interface import Decode

    prompts = [
        Prompt(Problem(str(row), "?", "1"), "?", tuple((row + i) % case.vocabulary for i in range(case.prompt)))
        for row in range(case.rows)
    ]

    def run() -> None:
        sampler.sample(prompts, 1, Decode("sampled", case.completion))

    return run


def scoring(case: Case, reference: Any, packs: bool) -> Callable[[], None]:
    from contextlib import nullcontext

    from reftcli.training.ppo.policy import reference_logprobs

    def run() -> None:
        reference_logprobs(reference, scoring_input(case), 1.0, nullcontext, packs)

    return run


def optimizer_step(case: Case, policy: Any, optimizer: Any) -> Callable[[], None]:
    """As `reftcli.training.ppo.update`: micro-batches, clipping, AdamW, gradients forgotten."""
    import torch

    def step() -> None:
        for _ in range(case.micro_batches):
            logprobs, values, _ = policy(scoring_input(case), 1.0)
            (logprobs.mean() + values.mean()).backward()
            del logprobs, values
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def highest(run: Callable[[], None]) -> int:
    """Bytes of resident memory at the highest point of a call."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # forgets the highest so far
    run()
    return status("VmHWM")


def resident() -> int:
    return status("VmRSS")


def status(name: str) -> int:
    """Bytes of a line of /proc/self/status."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
