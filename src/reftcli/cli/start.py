"""What a stage starts from: model, settings and problems. Says what was chosen."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reftcli.cli.find_runs import is_finished, run_above, run_named, run_to_resume, source_of_run, weights_of
from reftcli.cli.flags import Flags
from reftcli.errors import NothingToStartFrom, RuntimeFailure, UsageError
from reftcli.models.source import ModelSource, reachable, resolve_model
from reftcli.recipe.layers import check_recipe, read_yaml, resolve_recipe
from reftcli.recipe.schema import Recipe
from reftcli.runs.folder import Run, Stage, all_runs, latest_finished

if TYPE_CHECKING:
    from reftcli.problems.load import ProblemSets
    from reftcli.problems.record import Problem

StartStage = Literal["warmup", "rl"]


@dataclass(frozen=True, slots=True)
class Start:
    """Where the weights come from. ``source`` is None only in a dry run with nothing to start from."""

    source: ModelSource | None
    run: Run | None
    recipe: Recipe
    said: str


def start_of_warmup(flags: Flags) -> Start:
    """The base model of a warm-up.

    Raises:
        UsageError: no model is named, or the name means nothing.
    """
    recipe = flags.resolve()
    if recipe.model.name is None:
        raise UsageError("which model? for example: reft warmup --model codellama (or --model tiny --dataset toy)")
    source = resolve_model(recipe.model.name, recipe.model.revision)
    return Start(source, None, recipe, f"model {source.describe()}")


def start_of_resumed(flags: Flags, stage: Stage, name: str | None) -> Start:
    """The start that an unfinished run had, with its settings.

    Raises:
        UsageError: no such run, nothing left to do, or the flags ask for other settings.
    """
    run = run_to_resume(flags.runs_dir, stage, name)
    recipe = check_recipe(read_yaml(run.recipe_file), str(run.recipe_file))
    if flags.resolve_from(run) != recipe:
        raise UsageError(f"{run.folder} goes on with its own settings; leave out the flags that say otherwise")
    steps = run.step_folders()
    where = f"from step {steps[-1][0]}" if steps else "as far as its trainer saved"
    return Start(source_of_run(run), run, recipe, f"going on with {run.folder} {where}")


def start_from(from_: str | None, flags: Flags, stage: StartStage, dry_run: bool) -> Start:
    """What FROM means: a run, a checkpoint or a model; None takes the latest finished run of ``stage``.

    Raises:
        NothingToStartFrom: FROM is not given and there is no such run (in a dry run it is only said).
        UsageError: FROM is none of the three.
    """
    if from_ is not None:
        return _named_start(from_, flags)
    wanted = flags.resolve()
    fields = {"dataset": wanted.data.dataset, "form": wanted.data.cot} if stage == "warmup" else _given_data(flags)
    run = latest_finished(flags.runs_dir, stage, **fields)
    if run is None:
        message = _nothing(stage, flags, fields)
        if dry_run:
            return Start(None, None, wanted, f"start: not checked: {message}")
        raise NothingToStartFrom(message)
    recipe = flags.resolve_from(run)
    record = run.record()
    said = f"from {stage} run {run.name} ({record['model']['name']}, {recipe.data.dataset}, {recipe.data.cot})"
    return Start(weights_of(run), run, recipe, said)


def _given_data(flags: Flags) -> dict[str, Any]:
    data = flags.values.get("data", {})
    return {"form": data["cot"]} if "cot" in data else {}


def _nothing(stage: StartStage, flags: Flags, fields: Mapping[str, Any]) -> str:
    wanted = " ".join(str(value) for value in fields.values())
    others = [run for run in all_runs(flags.runs_dir) if is_finished(run, stage)]
    first = _first_warmup(flags, fields) if stage == "warmup" else "reft rl"
    hint = f"; there is {others[-1].name}, which can be named" if others else ""
    what = "warm-up" if stage == "warmup" else "RL run"
    return f"no finished {what}{f' for {wanted}' if wanted else ''} in {flags.runs_dir}: first run `{first}`{hint}"


def _first_warmup(flags: Flags, fields: Mapping[str, Any]) -> str:
    """The command that makes the warm-up that is missing."""
    command = f"reft warmup --recipe {flags.recipe}" if flags.recipe else "reft warmup --model codellama"
    without_flags = resolve_recipe(flags.recipe, {}).data
    if fields["dataset"] != without_flags.dataset:
        command += f" --dataset {fields['dataset']}"
    if fields["form"] != without_flags.cot:
        command += f" --cot {fields['form']}"
    return command


def _named_start(from_: str, flags: Flags) -> Start:
    run = run_named(from_, flags.runs_dir)
    if run is not None:
        source = weights_of(run)
        return Start(source, run, flags.resolve_from(run), f"from {run.record()['stage']} run {run.name}")
    path = Path(from_)
    if (path / "model" / "config.json").is_file():
        path = path / "model"
    parent = run_above(path)
    try:
        source = resolve_model(str(path) if path.is_dir() else from_)
    except UsageError as error:
        raise UsageError(f"no run {from_!r} in {flags.runs_dir}, and no model: {error}") from None
    recipe = flags.resolve_from(parent) if parent else flags.resolve()
    return Start(source, parent, recipe, f"from model {source.describe()}")


def problem_sets(recipe: Recipe) -> ProblemSets:
    """The problems that the settings name."""
    from reftcli.evaluation.data import data_request
    from reftcli.problems.load import load_problem_sets

    return load_problem_sets(data_request(recipe.data))


def whole(file: str, recipe: Recipe) -> list[Problem]:
    """Every problem of a file: what ``eval --dataset FILE`` measures."""
    from reftcli.problems.load import load_problem_file

    return load_problem_file(file, recipe.data.cot, recipe.data.answer)


def check_start(source: ModelSource) -> None:
    """Fails early, before problems are loaded, where the model cannot be had.

    Raises:
        ModelUnavailable: it cannot.
    """
    if source.kind == "hub":
        from reftcli.models.load import load_tokenizer

        load_tokenizer(source)
    else:
        reachable(source)


def dry_run_lines(start: Start, whole_file: str | None = None) -> list[str]:
    """What a dry run found, one line each; what could not be reached is called "not checked"."""
    lines = [start.said]
    if start.source is not None:
        unchecked = reachable(start.source)
        lines.append(f"not checked: {unchecked}" if unchecked else "weights: found")
    if whole_file is not None:
        return [*lines, f"problems of {whole_file} ({start.recipe.data.cot}): {len(whole(whole_file, start.recipe))}"]
    try:
        sets = problem_sets(start.recipe)
    except RuntimeFailure as error:
        lines.append(f"not checked: {error}")
    else:
        rows = ", ".join(f"{split} {count}" for split, count in sets.provenance["rows"].items())
        lines.append(f"problems of {start.recipe.data.dataset} ({start.recipe.data.cot}): {rows}")
        lines += [f"warning: {warning}" for warning in sets.provenance["warnings"]]
    return lines


def git_commit() -> str | None:
    """The commit of the project a run was started in, if there is one."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
