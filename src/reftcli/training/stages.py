"""The warm-up and RL stages as commands run them: a run folder, an experiment, training, and a record of it all."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from reftcli.errors import DataError, UsageError
from reftcli.evaluation.experiment import Experiment, chosen, open_experiment
from reftcli.evaluation.samples import SampleRecord
from reftcli.models.load import files_sha256, frozen_copy, load_model, weights_sha256
from reftcli.models.lora import add_lora
from reftcli.models.precision import under_deepspeed
from reftcli.models.source import ModelSource, resolve_model
from reftcli.problems.load import ProblemSets
from reftcli.problems.prompts import Dropped, Prompt, training_examples, training_prompts
from reftcli.problems.record import Problem
from reftcli.recipe.batches import check_shares
from reftcli.recipe.layers import recipe_sha256, recipe_yaml
from reftcli.recipe.schema import Recipe
from reftcli.runs.folder import Run, Stage, create_run
from reftcli.runs.progress import Progress
from reftcli.runs.ranks import ALONE, Ranks
from reftcli.runs.trackers import check_trackers, open_trackers
from reftcli.sampling.interface import Decode
from reftcli.training.ppo.trainer import Collaborators, ReftPPOTrainer, RlOutcome
from reftcli.training.warmup import WarmupOutcome, run_warmup


@dataclass(frozen=True, slots=True)
class StageRequest:
    """What a stage starts from and where it writes. ``resume`` continues an existing run instead of making one."""

    recipe: Recipe
    sets: ProblemSets
    source: ModelSource
    runs_dir: Path
    name: str | None = None
    parent: Run | None = None
    resume: Run | None = None
    commit: str | None = None
    ranks: Ranks = ALONE
    launch: str = "single"
    """The launch profile, for the record."""


def warmup_stage(request: StageRequest, progress: Progress) -> tuple[Run, WarmupOutcome]:
    """Runs `reft warmup`."""
    recipe, sets = request.recipe, request.sets
    check_trackers(recipe.trackers)
    check_shares(recipe, "warmup", request.ranks.count)
    run = stage_run(request, "warmup")
    with (
        run.recorded(),
        open_experiment(recipe, sets, request.source, progress, in_main_memory=under_deepspeed()) as experiment,
        open_trackers(recipe.trackers, run, "warmup", recipe.model_dump(), progress.say) as trackers,
    ):
        _record_start(run, request, experiment)
        train = chosen(sets.train, recipe.data.train_size, recipe.seed)
        examples, dropped = training_examples(experiment.builder, train, recipe.warmup.max_length)
        _report_dropped(run, dropped, len(train), progress)
        outcome = run_warmup(
            run,
            experiment.loaded,
            examples,
            _validation(
                run,
                experiment,
                chosen(sets.validation, recipe.warmup.validation_limit, recipe.seed),
                Decode("greedy", recipe.sampling.max_new_tokens),
                request.ranks,
            ),
            recipe.warmup,
            recipe.model,
            recipe.seed,
            progress,
            resume=request.resume is not None,
            trackers=trackers,
            ranks=request.ranks,
        )
        run.update_record(outcome=dataclasses.asdict(outcome))
    return run, outcome


def rl_stage(request: StageRequest, progress: Progress) -> tuple[Run, RlOutcome]:
    """Runs `reft rl`. A resumed run loads the newest checkpoint's policy; the reference is the start model again."""
    recipe, sets = request.recipe, request.sets
    check_trackers(recipe.trackers)
    check_shares(recipe, "rl", request.ranks.count)
    checkpoint = _newest_checkpoint(request.resume)
    run = stage_run(request, "rl")
    lora = recipe.rl.lora_rank
    # With LoRA a checkpoint's model/ holds the sum: its parts are the start model and the layers in trainer_state.pt.
    policy_source = resolve_model(str(checkpoint / "model")) if checkpoint and not lora else request.source
    with (
        run.recorded(),
        open_experiment(recipe, sets, policy_source, progress, in_main_memory=under_deepspeed()) as experiment,
        open_trackers(recipe.trackers, run, "rl", recipe.model_dump(), progress.say) as trackers,
    ):
        _record_start(run, request, experiment)
        if lora:
            add_lora(experiment.loaded.model, lora, recipe.rl.lora_alpha, recipe.seed)
        prompts = _rl_prompts(run, experiment)
        trainer = ReftPPOTrainer(
            run=run,
            loaded=experiment.loaded,
            reference=None if lora else _reference(request.source, experiment, resumed=checkpoint is not None),
            prompts=prompts,
            updates=planned_updates(recipe, len(prompts)),
            settings=recipe.rl,
            model_settings=recipe.model,
            seed=recipe.seed,
            collaborators=Collaborators(
                experiment.builder,
                experiment.sampler,
                experiment.grader,
                _validation(
                    run,
                    experiment,
                    _rl_validation(recipe, sets),
                    Decode("greedy", recipe.rl.max_total_tokens, recipe.rl.max_total_tokens),
                    request.ranks,
                ),
                progress,
                trackers,
                request.ranks,
            ),
        )
        outcome = trainer.train(checkpoint)
        run.update_record(outcome=dataclasses.asdict(outcome))
    return run, outcome


def _reference(source: ModelSource, experiment: Experiment, *, resumed: bool) -> PreTrainedModel:
    """The start model once more, frozen."""
    if resumed:
        return frozen_copy(load_model(source, in_main_memory=under_deepspeed()).model)
    return frozen_copy(experiment.loaded.model)


def planned_updates(recipe: Recipe, problems: int) -> int:
    """`rl.updates`, or what `rl.epochs` passes over so many problems make."""
    return recipe.rl.updates or max(1, math.ceil(recipe.rl.epochs * problems / recipe.rl.batch_size))


def stage_run(request: StageRequest, stage: Stage, **fields: Any) -> Run:
    """The run that is resumed, or a new one; the same for all processes, of which the main one writes."""
    ranks = request.ranks
    folder = request.resume.folder if request.resume is not None else None
    if folder is None:
        folder = ranks.from_main(new_run(request, stage, **fields).folder if ranks.is_main else None)
    assert folder is not None
    ranks.runs_in(folder)
    return Run(folder, writes=ranks.is_main)


def new_run(request: StageRequest, stage: Stage, **fields: Any) -> Run:
    """The folder of a stage with everything that is known before it starts."""
    recipe, sets, source = request.recipe, request.sets, request.source
    return create_run(
        request.runs_dir,
        stage=stage,
        name=request.name,
        recipe_yaml=recipe_yaml(recipe),
        record={
            "parent": request.parent.name if request.parent else None,
            "seed": recipe.seed,
            "commit": request.commit,
            "dataset": recipe.data.dataset,
            "form": recipe.data.cot,
            "recipe_sha256": recipe_sha256(recipe),
            "model": {"name": source.name, "source": source.kind, "target": source.target, "revision": source.revision},
            "data": dict(sets.provenance),
            "world_size": request.ranks.count,
            "launch": request.launch,
            **fields,
        },
    )


def _record_start(run: Run, request: StageRequest, experiment: Experiment) -> None:
    """What is known once model and grader are there: the hash of the weights, and how samples are graded.

    Raises:
        UsageError: a resumed run would go on from other weights or problems than it began with.
    """
    model = run.record()["model"]
    if request.resume is None:
        run.update_record(model={**model, "sha256": weights_sha256(request.source, experiment.loaded.model)})
    else:
        _check_problems(run, request.sets.provenance)
        now = files_sha256(request.source)
        if now is not None and model.get("sha256") not in (None, now):
            raise UsageError(
                f"{run.folder} began with other weights than {request.source.describe()} has now; start a new run"
            )
        run.update_record(world_size=request.ranks.count, launch=request.launch)
    run.write_json(run.samples / "grader.json", experiment.grader.spec)


def _check_problems(run: Run, now: Mapping[str, Any]) -> None:
    """Raises UsageError where a resumed run would go on with other problems than it began with."""
    for split, before in run.record().get("data", {}).get("splits", {}).items():
        found = now["splits"].get(split, {})
        if any(before.get(key) != found.get(key) for key in ("sha256", "problems", "seed") if key in before):
            where = before.get("path") or "its data set"
            raise UsageError(
                f"{run.folder} began with other {split} problems than {where} gives now; "
                "put the file back as it was, or start a new run"
            )


def _rl_prompts(run: Run, experiment: Experiment) -> list[Prompt]:
    recipe = experiment.recipe
    train = chosen(experiment.sets.train, recipe.data.train_size, recipe.seed)
    if recipe.rl.shuffle_gold:
        train = shuffled_golds(train, recipe.seed)
    limit = min(recipe.rl.max_prompt_tokens, experiment.answerer.context - 1)  # one token of an answer must fit
    prompts, dropped = training_prompts(experiment.builder, train, limit)
    _report_dropped(run, dropped, len(train), experiment.progress)
    if not prompts:
        raise DataError(f"no training problem has a prompt of at most {limit} tokens")
    return prompts


def _rl_validation(recipe: Recipe, sets: ProblemSets) -> list[Problem]:
    problems = chosen(sets.validation, recipe.rl.validation_limit, recipe.seed)
    # In the control nothing true may be seen: choosing the best update by true golds would let it learn.
    return shuffled_golds(problems, recipe.seed) if recipe.rl.shuffle_gold else problems


def shuffled_golds(problems: Sequence[Problem], seed: int) -> list[Problem]:
    """The same problems with each other's gold answers: a control in which nothing can be learned but guessing."""
    order = np.random.default_rng([seed, 7]).permutation(len(problems))
    return [
        dataclasses.replace(problem, gold_answer=problems[int(other)].gold_answer)
        for problem, other in zip(problems, order, strict=True)
    ]


def _report_dropped(run: Run, dropped: Sequence[Dropped], total: int, progress: Progress) -> None:
    """Says how many training problems are left out, and lists them in ``dropped.jsonl``."""
    if not dropped:
        return
    progress.say(f"{len(dropped)} of {total} training problems left out; reasons in {run.folder / 'dropped.jsonl'}")
    if run.writes:
        (run.folder / "dropped.jsonl").unlink(missing_ok=True)
    with run.rows(run.folder / "dropped.jsonl") as file:
        for drop in dropped:
            file.write({"item_id": drop.problem.item_id, "source": drop.problem.source, "reason": drop.reason})


def _validation(
    run: Run, experiment: Experiment, problems: Sequence[Problem], decode: Decode, ranks: Ranks
) -> Callable[[int], list[SampleRecord]]:
    """Greedy answers to validation problems, saved with the step they belong to."""

    def validate(step: int) -> list[SampleRecord]:
        with experiment.progress.task("validation", len(problems), "problem") as task:
            records = experiment.validate(problems, decode, task, ranks)
        file = run.samples / f"validation-step-{step}.jsonl"
        if run.writes:
            file.unlink(missing_ok=True)
        with run.rows(file) as writer:
            for record in records:
                writer.write({**record.to_json(), "step": step})
        return records

    return validate


def _newest_checkpoint(run: Run | None) -> Path | None:
    if run is None:
        return None
    steps = run.step_folders()
    return steps[-1][1] if steps else None
