"""What every stage works with, put together once: settings, problems, model, prompts, sampler, grader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from reftcli.errors import UsageError
from reftcli.evaluation.answering import Answerer
from reftcli.evaluation.samples import SampleRecord
from reftcli.grading.build import build_grader
from reftcli.grading.interface import Grader
from reftcli.models.load import LoadedModel, default_device, load_model
from reftcli.models.precision import autocast_for
from reftcli.models.source import ModelSource
from reftcli.problems.load import ProblemSets
from reftcli.problems.prompts import PromptBuilder
from reftcli.problems.record import Problem
from reftcli.recipe.schema import Recipe
from reftcli.runs.progress import Progress, Task
from reftcli.runs.ranks import ALONE, Ranks
from reftcli.sampling.interface import Decode, Sampler
from reftcli.sampling.torch_sampler import TorchSampler
from reftcli.sampling.vllm_sampler import VllmSampler, check_vllm

_NO_LIMIT = 1_000_000
"""Context of a model whose configuration states none."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """The collaborators of a stage. ``answerer`` samples from ``loaded.model`` as it is at that moment."""

    recipe: Recipe
    sets: ProblemSets
    source: ModelSource
    loaded: LoadedModel
    builder: PromptBuilder
    sampler: Sampler
    grader: Grader
    answerer: Answerer
    progress: Progress

    def validate(
        self, problems: Sequence[Problem], decode: Decode, task: Task | None = None, ranks: Ranks = ALONE
    ) -> list[SampleRecord]:
        """Answers to validation problems, in order, by the weights as they are now: all of them on every rank."""
        self.sampler.weights_changed()
        return self.answerer.answer_over_ranks(problems, "validation", 1, decode, ranks, task)


@contextmanager
def open_experiment(
    recipe: Recipe, sets: ProblemSets, source: ModelSource, progress: Progress, *, in_main_memory: bool = False
) -> Iterator[Experiment]:
    """Loads the model and starts the grader; ends the grader's processes and the sampler's engine with the block.

    Raises:
        UsageError: the sampler that the settings name cannot be used here, or not with this model.
    """
    _check_backend(recipe, source)
    loaded = load_model(source, in_main_memory=in_main_memory)
    builder = PromptBuilder(loaded.tokenizer, recipe.data.cot, recipe.prompt.template, loaded.eos_token_id)
    context = _context(recipe, loaded)
    sampler = sampler_of(recipe, loaded, context)
    grader = grader_of(recipe, sets)
    try:
        answerer = Answerer(builder, sampler, grader, recipe.rl.reward_table, context)
        yield Experiment(recipe, sets, source, loaded, builder, sampler, grader, answerer, progress)
    finally:
        grader.close()
        sampler.close()


def _check_backend(recipe: Recipe, source: ModelSource) -> None:
    if recipe.sampling.backend == "torch":
        return
    check_vllm()
    if source.kind == "embedded":
        raise UsageError(f"sampler vllm: the embedded model {source.name} has no files to load; use --sampler torch")


def _context(recipe: Recipe, loaded: LoadedModel) -> int:
    """Most tokens of prompt and completion: what the model can, or less where the engine has room for less."""
    context = int(getattr(loaded.model.config, "max_position_embeddings", None) or _NO_LIMIT)
    limit = recipe.sampling.vllm_max_length if recipe.sampling.backend == "vllm" else None
    return min(context, limit or context)


def sampler_of(recipe: Recipe, loaded: LoadedModel, context: int) -> Sampler:
    """What `sampling.backend` names."""
    if recipe.sampling.backend == "vllm":
        return VllmSampler(
            loaded.model, loaded.tokenizer, recipe.sampling, eos_token_id=loaded.eos_token_id, context=context
        )
    return TorchSampler(
        loaded.model,
        eos_token_id=loaded.eos_token_id,
        pad_token_id=loaded.pad_token_id,
        batch_size=recipe.sampling.batch_size,
        context=context,
        autocast=autocast_for(recipe.model.precision, default_device()),
    )


def grader_of(recipe: Recipe, sets: ProblemSets) -> Grader:
    """The grader that fits the form and the kind of answers."""
    some = next(iter(sets.train or sets.test or sets.validation))
    return build_grader(
        recipe.data.cot,
        recipe.data.answer or some.answer_kind,
        policy=recipe.grading.policy,
        timeout_s=recipe.grading.timeout_s,
        workers=recipe.grading.workers,
    )


def chosen(problems: Sequence[Problem], limit: int | None, seed: int) -> list[Problem]:
    """A seeded choice of at most ``limit`` problems, in their order."""
    if limit is None or limit >= len(problems):
        return list(problems)
    keep = np.random.default_rng(seed).permutation(len(problems))[:limit]
    return [problems[i] for i in sorted(keep.tolist())]
