"""`reft warmup`, `reft rl`, `reft rerank` and `reft demo`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reftcli.cli import options
from reftcli.cli.console import TerminalProgress, print_json, print_table, quiet_libraries, say
from reftcli.errors import UsageError
from reftcli.runs.trackers import check_trackers

if TYPE_CHECKING:
    from reftcli.cli.start import Start
    from reftcli.runs.folder import Run
    from reftcli.training.stages import StageRequest


def warmup(
    model: options.Model = None,
    dataset: options.Dataset = None,
    cot: options.Cot = None,
    recipe: options.Recipe = None,
    set_: options.Set = None,
    train: options.TrainFile = None,
    validation: options.ValidationFile = None,
    test: options.TestFile = None,
    seed: options.Seed = None,
    report_to: options.ReportTo = None,
    name: options.Name = None,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    resume: options.Resume = False,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
) -> None:
    """Teach a base model the shape of an answer: SFT on (question, chain of thought)."""
    from reftcli.cli.flags import Flags
    from reftcli.cli.start import start_of_resumed, start_of_warmup

    flags = Flags.of(
        recipe=recipe,
        assignments=set_,
        runs_dir=runs_dir,
        model=model,
        dataset=dataset,
        cot=cot,
        train=train,
        validation=validation,
        test=test,
        seed=seed,
        report_to=report_to,
    )
    start = start_of_resumed(flags, "warmup", name) if resume else start_of_warmup(flags)
    check_trackers(start.recipe.trackers)
    if dry_run:
        return _dry_run(start, json_)
    request = _request(start, runs_dir, name, resume)
    quiet_libraries()
    from reftcli.training.stages import warmup_stage

    run, outcome = warmup_stage(request, TerminalProgress())
    summary = f"validation accuracy {outcome.accuracy:.3f}"
    _ended(run, json_, dataclasses.asdict(outcome), summary, f"reft rl {run.folder}")


def rl(
    from_: options.From = None,
    dataset: options.Dataset = None,
    cot: options.Cot = None,
    recipe: options.Recipe = None,
    set_: options.Set = None,
    train: options.TrainFile = None,
    validation: options.ValidationFile = None,
    test: options.TestFile = None,
    sampler: options.Sampler = None,
    seed: options.Seed = None,
    report_to: options.ReportTo = None,
    name: options.Name = None,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    resume: options.Resume = False,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
) -> None:
    """Let the model find its own reasoning: PPO, rewarded by a grader of the final answer.

    Without FROM it starts from the latest finished warm-up with the same data set and form.
    """
    from reftcli.cli.flags import Flags
    from reftcli.cli.start import start_from, start_of_resumed

    flags = Flags.of(
        recipe=recipe,
        assignments=set_,
        runs_dir=runs_dir,
        dataset=dataset,
        cot=cot,
        train=train,
        validation=validation,
        test=test,
        sampler=sampler,
        seed=seed,
        report_to=report_to,
    )
    start = start_of_resumed(flags, "rl", name) if resume else start_from(from_, flags, "warmup", dry_run)
    check_trackers(start.recipe.trackers)
    if dry_run:
        return _dry_run(start, json_)
    request = _request(start, runs_dir, name, resume)
    quiet_libraries()
    from reftcli.training.stages import rl_stage

    run, outcome = rl_stage(request, TerminalProgress())
    summary = f"best validation accuracy {outcome.best_accuracy:.3f} after update {outcome.best_update}"
    _ended(run, json_, dataclasses.asdict(outcome), summary, "reft eval --majority-vote 100")


def rerank(
    from_: options.From = None,
    dataset: options.Dataset = None,
    cot: options.Cot = None,
    recipe: options.Recipe = None,
    set_: options.Set = None,
    sampler: options.Sampler = None,
    seed: options.Seed = None,
    name: options.Name = None,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
) -> None:
    """Train a reward model on samples of the warm-up model, and pick the best of K answered candidates with it."""
    from reftcli.cli.find_runs import source_of_run
    from reftcli.cli.flags import Flags
    from reftcli.cli.start import start_from

    flags = Flags.of(
        recipe=recipe, assignments=set_, runs_dir=runs_dir, dataset=dataset, cot=cot, sampler=sampler, seed=seed
    )
    start = start_from(from_, flags, "rl", dry_run)
    if dry_run:
        return _dry_run(start, json_)
    if start.run is None:
        raise UsageError(
            "rerank starts from a run: its training samples come from the warm-up that the run started from"
        )
    request = _request(start, runs_dir, name)
    # An RL run started from the warm-up model; a warm-up run is that model itself.
    started_from_warmup = start.run.record()["stage"] == "rl"
    warmup_source = source_of_run(start.run) if started_from_warmup else request.source
    quiet_libraries()
    from reftcli.reports.tables import accuracy_rows, accuracy_table
    from reftcli.training.rerank import rerank_stage

    run, outcome = rerank_stage(request, warmup_source, start.run, TerminalProgress())
    result = outcome.evaluation.to_json()
    found = {
        "training_samples": outcome.training_samples,
        "share_correct": outcome.share_correct,
        "held_out_samples": outcome.held_out_samples,
        "held_out_auc": outcome.held_out_auc,
    }
    if json_:
        return print_json({**result, "reward_model": found})
    print_table(accuracy_table(accuracy_rows(result), title=f"{run.name}: {result['dataset']}, test"))
    held_out_auc = "undefined" if outcome.held_out_auc is None else f"{outcome.held_out_auc:.3f}"
    say(
        f"reward model: {outcome.training_samples} samples, {outcome.share_correct:.0%} correct; AUC {held_out_auc} on "
        f"{outcome.held_out_samples} samples of other problems; kept in {run.final}"
    )


def demo(
    quick: Annotated[bool, typer.Option("--quick", help="A minute instead of five; numbers mean little.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")] = 1,
    set_: options.Set = None,
    name: Annotated[str | None, typer.Option("--name", help="Prefix of the runs' names.", show_default=False)] = None,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
) -> None:
    """The whole pipeline on the embedded model and data: warm-up, RL, votes, re-ranking, a table and a report."""
    from reftcli.cli.demo import demo_start, run_demo

    if dry_run:
        return _dry_run(demo_start(quick, seed, set_ or []), json_)
    result = run_demo(quick=quick, seed=seed, assignments=set_ or [], name=name, runs_dir=runs_dir)
    if json_:
        return print_json(result.to_json())
    print_table(result.table())
    for line in result.notes:
        say(line)


def _request(start: Start, runs_dir: Path, name: str | None, resume: bool = False) -> StageRequest:
    """Everything a run needs; fails early where the model cannot be had, before problems are loaded."""
    from reftcli.cli.start import check_start, git_commit, problem_sets
    from reftcli.runs.folder import check_name

    assert start.source is not None
    if not resume:
        check_name(runs_dir, name)
    quiet_libraries()
    check_start(start.source)
    from reftcli.training.stages import StageRequest

    sets = problem_sets(start.recipe)
    say(start.said)
    for warning in sets.provenance["warnings"]:
        say(f"warning: {warning}")
    if resume:
        assert start.run is not None
        start.run.update_record(status="running", ended=None)
        return StageRequest(start.recipe, sets, start.source, runs_dir, resume=start.run)
    return StageRequest(start.recipe, sets, start.source, runs_dir, name, start.run, commit=git_commit())


def _dry_run(start: Start, json_: bool, whole_file: str | None = None) -> None:
    from reftcli.cli.start import dry_run_lines

    lines = dry_run_lines(start, whole_file)
    if json_:
        print_json({"dry_run": True, "checks": lines, "recipe": start.recipe.model_dump()})
    else:
        typer.echo("\n".join([*lines, "dry run: nothing was trained or written"]))


def _ended(run: Run, json_: bool, outcome: dict[str, Any], summary: str, following: str) -> None:
    if json_:
        print_json({"run": run.name, "folder": str(run.folder), **outcome})
    else:
        typer.echo(f"{run.folder}: {summary}. Next: {following}")
