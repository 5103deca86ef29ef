"""The RL stage of ``reft demo``, by a padded loop and by reft itself, for ``ppo_step.py --demo``.

Nothing is forced here: both start from the same warm-up weights, take the same problems in the same order, draw their
own completions with the recipe's settings, have them graded by the same grader, and learn from them. So lengths are
those that a policy has while it learns.

    p1    the padded loop of `ppo_contestants`, with the demo's settings
    p1+   the same with the products of linear layers sent to oneDNN, as ours are
    ours  `rl_stage` itself, as ``reft rl`` runs it; it waits for its turn where it would show its progress
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from ppo_contestants import PaddedLoop, Updates, load, main

RECIPE = "tiny/toy-ncot"


def recipe_for(updates: int) -> Any:
    """The demo's, without validation and checkpoints between the updates: a padded loop makes none either."""
    from reftcli.recipe.layers import resolve_recipe

    never = updates + 1
    changed = {"updates": updates, "validate_every": never, "checkpoint_every": never, "validation_limit": 8}
    return resolve_recipe(RECIPE, {"rl": changed}, ())


class DemoPaddedLoop(PaddedLoop):
    """The padded loop on the demo's problems."""

    def __init__(self, warmup: str, updates: int, onednn: bool) -> None:
        from reftcli.cli.start import problem_sets
        from reftcli.evaluation.experiment import chosen, grader_of
        from reftcli.problems.prompts import PromptBuilder, training_prompts
        from reftcli.training.ppo.schedule import ProblemOrder

        recipe = recipe_for(updates)
        loaded, rl = load(warmup, onednn), recipe.rl
        super().__init__(loaded, rl, rl.micro_batch_size or rl.mini_batch_size)
        sets = problem_sets(recipe)
        train = chosen(sets.train, recipe.data.train_size, recipe.seed)
        self.builder = PromptBuilder(loaded.tokenizer, recipe.data.cot, recipe.prompt.template, loaded.eos_token_id)
        self.prompts, _ = training_prompts(self.builder, train, rl.max_prompt_tokens)
        self.batches = ProblemOrder(len(self.prompts), rl.batch_size, recipe.seed)
        self.grader = grader_of(recipe, sets)
        self.updates = 0

    def update(self) -> dict[str, float]:
        prompts = [self.prompts[i] for i in self.batches.batch(self.updates)]
        self.updates += 1
        found, mask, start = self.generate(
            [prompt.token_ids for prompt in prompts], max_length=self.settings.max_total_tokens
        )
        drawn = found[:, start:]
        ends_before = (drawn == self.eos).cumsum(1) - (drawn == self.eos).long()
        counted = (ends_before == 0).long()
        rewards, accuracy = self._rewards(prompts, drawn, counted.sum(1).tolist())
        losses = self.learn(found, torch.cat([mask, counted], dim=1), start, rewards)
        return {**losses, "accuracy": accuracy, "length": float(counted.sum()) / len(prompts)}

    def order(self, n: int) -> list[int]:
        return torch.randperm(n).tolist()

    def _rewards(self, prompts: list[Any], drawn: torch.Tensor, lengths: list[int]) -> tuple[list[float], float]:
        from reftcli.grading.interface import Verdict

        rows = zip(prompts, drawn.tolist(), lengths, strict=True)
        texts = [self.builder.completion_text(prompt, ids[:length]) for prompt, ids, length in rows]
        grades = self.grader.grade([prompt.problem for prompt in prompts], texts)
        table = self.settings.reward_table
        right = sum(grade.verdict is Verdict.CORRECT for grade in grades)
        return [table.of(grade) or 0.0 for grade in grades], right / len(grades)


class TakesTurns:
    """A `Progress` that tells what each update found and waits to be let on."""

    def __init__(self, answer: Callable[[dict[str, float] | None, None], None]) -> None:
        self._answer = answer

    @contextmanager
    def task(self, title: str, total: int, unit: str) -> Iterator[Any]:
        if title == "rl":
            self._answer(None, None)  # ready
        yield self

    def advance(self, units: int = 1) -> None:
        return None

    def show(self, values: Mapping[str, float]) -> None:
        if "policy_loss" in values:
            found = {name: values[name] for name in ("policy_loss", "value_loss", "accuracy")}
            self._answer({**found, "length": values["completion_length"]}, None)

    def say(self, line: str) -> None:
        return None


def _contest(name: str, given: dict[str, Any], updates: int, answer: Any) -> Updates:
    if name == "ours":
        _run_stage(given["warmup"], updates, TakesTurns(answer))
        return
    loop = DemoPaddedLoop(given["warmup"], updates, onednn=name == "p1+")
    yield None, loop.model
    for _ in range(updates):
        yield loop.update(), loop.model


def _run_stage(warmup: str, updates: int, turns: TakesTurns) -> None:
    from reftcli.cli.start import problem_sets
    from reftcli.models.source import resolve_model
    from reftcli.training.stages import StageRequest, rl_stage

    recipe = recipe_for(updates)
    with tempfile.TemporaryDirectory() as folder:
        rl_stage(StageRequest(recipe, problem_sets(recipe), resolve_model(warmup), Path(folder)), turns)


if __name__ == "__main__":
    main(_contest)
