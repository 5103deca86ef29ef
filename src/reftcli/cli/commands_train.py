"""`reft warmup`, `reft rl`, `reft rerank` and `reft demo`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reftcli.cli import options
from reftcli.cli.console import print_json, print_table, quiet_libraries, say
from reftcli.cli.launching import check_launch, launched, profile_of, progress_of, ranks_of
from reftcli.errors import UsageError
from reftcli.launch.request import LaunchRequest
from reftcli.launch.worker import alone_on_one_gpu
from reftcli.runs.ranks import ALONE, Ranks
from reftcli.runs.trackers import check_trackers

if TYPE_CHECKING:
    from reftcli.cli.start import Start
    from reftcli.runs.folder import Run
    from reftcli.training.stages import StageRequest


def warmup(
    ctx: typer.Context,
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
    launch: options.Launch = None,
    processes: options.Processes = None,
    machines: options.Machines = 1,
    machine_rank: options.MachineRank = 0,
    main_address: options.MainAddress = None,
    rank_timeout: options.RankTimeout = options.DEFAULT_RANK_TIMEOUT,
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
    asked = LaunchRequest(launch, processes, machines, machine_rank, main_address, rank_timeout)
    check_launch(asked, start.recipe, "warmup")
    if dry_run:
        return _dry_run(start, json_)
    if launched(asked, ctx.obj, start.recipe.model.precision, _found_by_itself(start, name, resume)):
        return None
    ranks = ranks_of(asked)
    request = _request(start, runs_dir, name, resume, ranks, asked)
    quiet_libraries()
    from reftcli.training.stages import warmup_stage

    run, outcome = warmup_stage(request, progress_of(ranks))
    summary = f"validation accuracy {outcome.accuracy:.3f}"
    _ended(run, json_, dataclasses.asdict(outcome), summary, f"reft rl {run.folder}")


def rl(
    ctx: typer.Context,
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
    keep: options.Keep = None,
    name: options.Name = None,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    resume: options.Resume = False,
    launch: options.Launch = None,
    processes: options.Processes = None,
    machines: options.Machines = 1,
    machine_rank: options.MachineRank = 0,
    main_address: options.MainAddress = None,
    rank_timeout: options.RankTimeout = options.DEFAULT_RANK_TIMEOUT,
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
        keep=keep,
    )
    start = start_of_resumed(flags, "rl", name) if resume else start_from(from_, flags, "warmup", dry_run)
    check_trackers(start.recipe.trackers)
    asked = LaunchRequest(launch, processes, machines, machine_rank, main_address, rank_timeout)
    check_launch(asked, start.recipe, "rl")
    if dry_run:
        return _dry_run(start, json_, plan=_plan(start, asked))
    if launched(asked, ctx.obj, start.recipe.model.precision, _found_by_itself(start, name, resume)):
        return None
    ranks = ranks_of(asked)
    request = _request(start, runs_dir, name, resume, ranks, asked)
    quiet_libraries()
    from reftcli.training.stages import rl_stage

    run, outcome = rl_stage(request, progress_of(ranks))
    summary = f"best validation accuracy {outcome.best_accuracy:.3f} after update {outcome.best_update}"
    _ended(run, json_, dataclasses.asdict(outcome), summary, "reft eval --majority-vote 100")


def rerank(
    ctx: typer.Context,
    from_: options.From = None,
    dataset: options.Dataset = None,
    cot: options.Cot = None,
    recipe: options.Recipe = None,
    set_: options.Set = None,
    sampler: options.Sampler = None,
    seed: options.Seed = None,
    name: options.Name = None,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    resume: options.Resume = False,
    launch: options.Launch = None,
    processes: options.Processes = None,
    machines: options.Machines = 1,
    machine_rank: options.MachineRank = 0,
    main_address: options.MainAddress = None,
    rank_timeout: options.RankTimeout = options.DEFAULT_RANK_TIMEOUT,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
) -> None:
    """Train a reward model on samples of the warm-up model, and pick the best of K answered candidates with it.

    Ctrl-C keeps the samples that are drawn: `reft rerank --resume` goes on with them.
    """
    from reftcli.cli.find_runs import reranked_run, warmup_of
    from reftcli.cli.flags import Flags
    from reftcli.cli.start import start_from, start_of_resumed

    flags = Flags.of(
        recipe=recipe, assignments=set_, runs_dir=runs_dir, dataset=dataset, cot=cot, sampler=sampler, seed=seed
    )
    start = start_of_resumed(flags, "rerank", name) if resume else start_from(from_, flags, "rl", dry_run)
    asked = LaunchRequest(launch, processes, machines, machine_rank, main_address, rank_timeout)
    check_launch(asked, start.recipe, "rerank")
    if dry_run:
        return _dry_run(start, json_)
    if start.run is None:
        raise UsageError(
            "rerank starts from a run: its training samples come from the warm-up that the run started from"
        )
    if launched(asked, ctx.obj, start.recipe.model.precision, _found_by_itself(start, name, resume)):
        return
    ranks = ranks_of(asked)
    policy = reranked_run(start.run, runs_dir) if resume else start.run
    request = _request(start, runs_dir, name, resume, ranks, asked)
    quiet_libraries()
    from reftcli.reports.calibration_table import calibration_table
    from reftcli.reports.tables import accuracy_rows, accuracy_table
    from reftcli.training.rerank import rerank_stage

    run, outcome = rerank_stage(request, warmup_of(policy, request.source), policy, progress_of(ranks))
    result, found = outcome.evaluation.to_json(), outcome.reward_model()
    if json_:
        return print_json({**result, "reward_model": found})
    print_table(accuracy_table(accuracy_rows(result), title=f"{run.name}: {result['dataset']}, test"))
    print_table(calibration_table({"held-out samples": found["held_out"], "candidates": found["candidates"]}))
    say(
        f"reward model: {outcome.training_samples} samples, {outcome.share_correct:.0%} correct, of training problems; "
        f"held-out samples are of other training problems, candidates of test problems; kept in {run.final}"
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
    alone_on_one_gpu()
    result = run_demo(quick=quick, seed=seed, assignments=set_ or [], name=name, runs_dir=runs_dir)
    if json_:
        return print_json(result.to_json())
    print_table(result.table())
    for line in result.notes:
        say(line)


def _found_by_itself(start: Start, name: str | None, resume: bool) -> str | None:
    return start.run.name if resume and name is None and start.run is not None else None


def _request(
    start: Start,
    runs_dir: Path,
    name: str | None,
    resume: bool = False,
    ranks: Ranks = ALONE,
    launch: LaunchRequest | None = None,
) -> StageRequest:
    """Everything a run needs; fails early where the model cannot be had, before problems are loaded."""
    from reftcli.cli.start import check_start, git_commit, problem_sets
    from reftcli.runs.folder import check_name

    assert start.source is not None
    if not resume and ranks.is_main:  # it makes the folder, perhaps before another process looks
        check_name(runs_dir, name)
    quiet_libraries()
    check_start(start.source)
    from reftcli.training.stages import StageRequest

    sets = problem_sets(start.recipe)
    say(start.said)
    for warning in sets.provenance["warnings"]:
        say(f"warning: {warning}")
    profile = profile_of(launch or LaunchRequest())
    if resume:
        assert start.run is not None
        return StageRequest(start.recipe, sets, start.source, runs_dir, resume=start.run, ranks=ranks, launch=profile)
    return StageRequest(
        start.recipe,
        sets,
        start.source,
        runs_dir,
        name,
        start.run,
        commit=git_commit(),
        ranks=ranks,
        launch=profile,
    )


def _plan(start: Start, launch: LaunchRequest) -> list[str]:
    """Memory and tokens of an RL stage, in short."""
    from reftcli.launch.profiles import PROFILES
    from reftcli.planning.request import short_form

    profile = next((known for known in PROFILES if known == (launch.profile or "single")), None)
    if start.source is None or profile is None:
        return []
    return short_form(start.recipe, start.source, profile, launch.processes or _gpus(profile))


def _gpus(profile: str) -> int:
    """As many as a launch would take where --processes does not say."""
    if profile == "single":
        return 1
    from reftcli.launch.launcher import Hardware

    return max(1, Hardware.here().gpus)


def _dry_run(start: Start, json_: bool, whole_file: str | None = None, plan: Sequence[str] = ()) -> None:
    from reftcli.cli.start import dry_run_lines

    lines = [*dry_run_lines(start, whole_file), *plan]
    if json_:
        print_json({"dry_run": True, "checks": lines, "recipe": start.recipe.model_dump()})
    else:
        typer.echo("\n".join([*lines, "dry run: nothing was trained or written"]))


def _ended(run: Run, json_: bool, outcome: dict[str, Any], summary: str, following: str) -> None:
    if json_:
        print_json({"run": run.name, "folder": str(run.folder), **outcome})
    else:
        typer.echo(f"{run.folder}: {summary}. Next: {following}")
