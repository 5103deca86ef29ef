"""What a stage does, as numbers: how many sequences, how long, how often. From a recipe, and from what is assumed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from reftcli.planning.shapes import ModelShape
from reftcli.problems.splits import CARVED_SHARE
from reftcli.recipe.schema import Recipe

Stage = Literal["warmup", "rl", "rerank"]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens that are expected. ``longest``: of the longest completion among those that are drawn at once."""

    prompt: float
    completion: float
    longest: float
    source: str
    """Where the numbers come from, in words."""


_MEASURED: Mapping[tuple[str, str], tuple[int, int, int]] = {
    ("gsm8k", "pcot"): (134, 49, 82),
    ("gsm8k", "ncot"): (68, 97, 173),
    ("svamp", "pcot"): (89, 62, 94),
    ("svamp", "ncot"): (46, 103, 158),
    ("mathqa", "pcot"): (180, 131, 188),
    ("mathqa", "ncot"): (90, 96, 206),
    ("toy", "ncot"): (41, 17, 25),
}
"""(prompt, completion, longest): mean prompt and gold chain, and the chain's 95th percentile, in tokens of SmolLM2's
tokenizer (toy: of the embedded one's), over up to 1,500 problems of each set."""

PROBLEMS: Mapping[str, int] = {"gsm8k": 7_473, "svamp": 700, "mathqa": 29_837, "mathqa-numeric": 29_837}
"""Training rows of the named data sets on the hub."""
HAS_VALIDATION = ("mathqa", "mathqa-numeric")


@dataclass(frozen=True, slots=True)
class Work:
    """One stage. Sequence counts are over all devices.

    Lengths in tokens: ``max_tokens`` of a whole sequence, ``max_completion`` of what is decoded; memory is planned for
    sequences that are all that long, time for ``lengths``.
    """

    stage: Stage
    batch: int
    mini_batch: int
    micro_batch: int | None
    """Sequences per forward pass and device, where the recipe says so."""
    passes: int
    """Times that a batch is trained on."""
    steps: int
    """Batches of the whole run."""
    problems: int
    lengths: Lengths
    max_tokens: int
    max_prompt: int
    max_completion: int
    decode_rows: int
    """Completions decoded at once on a device, at most."""
    validation_problems: int
    validation_max_tokens: int
    validations: int
    bf16: bool
    checkpointing: bool
    logprob_chunk: int | None
    lora_rank: int | None
    separate_value: bool
    recomputed: bool
    """Rollouts are scored by the policy once more."""
    vllm_share: float | None
    """Share of the card that vLLM's engine holds, where it decodes on the same card."""

    @property
    def samples(self) -> bool:
        """Whether the stage draws completions to train on."""
        return self.stage == "rl"


def work_of(recipe: Recipe, stage: Stage, shape: ModelShape, problems: int, lengths: Lengths) -> Work:
    """The work of a stage under a recipe."""
    rl, validation = recipe.rl, recipe.rl.validation_limit
    context = shape.context
    carved = recipe.data.validation_size
    validation_problems = carved if validation is None else min(validation, carved)
    vllm = recipe.sampling.vllm_gpu_memory if recipe.sampling.backend == "vllm" else None
    common: dict[str, Any] = {
        "problems": problems,
        "lengths": lengths,
        "decode_rows": recipe.sampling.batch_size,
        "bf16": recipe.model.precision != "fp32",
        "checkpointing": recipe.model.gradient_checkpointing,
        "vllm_share": vllm if recipe.sampling.vllm_mode == "colocate" else None,
    }
    if stage == "rl":
        total = min(rl.max_total_tokens, context)
        steps = rl.updates or max(1, math.ceil(rl.epochs * problems / rl.batch_size))
        return Work(
            stage, rl.batch_size, rl.mini_batch_size or rl.batch_size, rl.micro_batch_size, rl.ppo_epochs, steps,
            max_tokens=total, max_prompt=min(rl.max_prompt_tokens, total),
            max_completion=max(1, total - round(min(lengths.prompt, total - 1))),
            validation_problems=validation_problems, validation_max_tokens=total,
            validations=1 + steps // rl.validate_every, logprob_chunk=rl.logprob_chunk, lora_rank=rl.lora_rank,
            separate_value=rl.value_model == "separate",
            recomputed=rl.rollout_logprobs == "recomputed" or vllm is not None,
            **common,
        )  # fmt: skip
    settings = recipe.warmup if stage == "warmup" else recipe.rerank
    sampled = (recipe.rerank.problems or problems) * recipe.rerank.samples_per_problem
    examples = problems if stage == "warmup" else sampled
    total = min(settings.max_length, context)
    return Work(
        stage, settings.batch_size, settings.batch_size, settings.micro_batch_size, 1,
        max(1, round(settings.epochs * math.ceil(examples / settings.batch_size))),
        max_tokens=total, max_prompt=min(recipe.rl.max_prompt_tokens, total),
        max_completion=total if stage == "warmup" else 0,
        validation_problems=validation_problems if stage == "warmup" else 0,
        validation_max_tokens=min(context, round(lengths.prompt) + recipe.sampling.max_new_tokens),
        validations=1 if stage == "warmup" else 0, logprob_chunk=None, lora_rank=None, separate_value=False,
        recomputed=False, **common,
    )  # fmt: skip


def lengths_of(recipe: Recipe, prompt: float | None = None, completion: float | None = None) -> Lengths:
    """What was measured on the data set, or given, or else half of what the limits leave room for."""
    measured = _MEASURED.get((recipe.data.dataset.removesuffix("-numeric"), recipe.data.cot))
    half_prompt = recipe.rl.max_prompt_tokens / 2
    half_completion = (recipe.rl.max_total_tokens - recipe.rl.max_prompt_tokens) / 2
    found = measured or (half_prompt, half_completion, 2 * half_completion)
    source = "measured on the gold chains" if measured else "half of the limits, as nothing was measured"
    if prompt is not None or completion is not None:
        source = "given"
    mean = found[1] if completion is None else completion
    return Lengths(found[0] if prompt is None else prompt, mean, mean * found[2] / found[1], source)


def carved_from(rows: int, recipe: Recipe) -> int:
    """Training problems left of so many rows of a named data set, after what is carved for validation."""
    carved = 0 if recipe.data.dataset in HAS_VALIDATION else min(recipe.data.validation_size, rows // CARVED_SHARE)
    left = rows - carved
    return min(left, recipe.data.train_size or left)
