"""`reft eval`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reftcli.cli import options
from reftcli.cli.asked_evaluation import Asked, label_of, latest_stopped, run_for
from reftcli.cli.console import TerminalProgress, print_json, print_table, quiet_libraries, say
from reftcli.cli.launching import check_launch, launched, ranks_of
from reftcli.errors import GateFailed, UsageError
from reftcli.launch.request import LaunchRequest
from reftcli.runs.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reftcli.evaluation.experiment import Experiment
    from reftcli.evaluation.stages import Score
    from reftcli.problems.load import ProblemSets
    from reftcli.problems.record import Problem


def evaluate(
    ctx: typer.Context,
    from_: options.From = None,
    dataset: options.Dataset = None,
    cot: options.Cot = None,
    split: Annotated[
        options.SplitName | None,
        typer.Option("--split", help="Which problems [default: test].", show_default=False),
    ] = None,
    majority_vote: Annotated[
        int | None, typer.Option("--majority-vote", min=1, help="Sample K completions and vote.", show_default=False)
    ] = None,
    reward_model: Annotated[
        str | None, typer.Option("--reward-model", help="A rerank run: report rerank@k.", show_default=False)
    ] = None,
    recipe: options.Recipe = None,
    set_: options.Set = None,
    train: options.TrainFile = None,
    validation: options.ValidationFile = None,
    test: options.TestFile = None,
    limit: options.Limit = None,
    fail_under: Annotated[
        float | None,
        typer.Option("--fail-under", min=0, max=1, help="Exit 3 below this greedy accuracy.", show_default=False),
    ] = None,
    sampler: options.Sampler = None,
    seed: options.Seed = None,
    name: options.Name = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an evaluation that was stopped; alone: with the latest one.")
    ] = False,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    launch: options.Launch = None,
    processes: options.Processes = None,
    machines: options.Machines = 1,
    machine_rank: options.MachineRank = 0,
    main_address: options.MainAddress = None,
    rank_timeout: options.RankTimeout = options.DEFAULT_RANK_TIMEOUT,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
) -> None:
    """Measure a model: greedy accuracy, and majority vote over K sampled completions.

    Without FROM it takes the latest finished RL run, its data set and the test split. A file given to --dataset is
    used whole. Ctrl-C keeps what is done: `reft eval --resume` goes on. So does the same command where FROM is a run
    and there is no --name; else that begins another run.
    """
    from reftcli.cli.flags import Flags
    from reftcli.cli.start import start_from

    whole_file = dataset if dataset is not None and Path(dataset).is_file() else None
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
    )
    asked_for = (from_, limit, majority_vote, reward_model, split, recipe)
    nothing_asked = all(flag is None for flag in asked_for) and not flags.values and not flags.assignments
    if resume and nothing_asked and not dry_run:
        asked = latest_stopped(runs_dir, name)
    else:
        start = start_from(from_, flags, "rl", dry_run)
        asked = Asked(start, split.value if split else "test", majority_vote, reward_model, whole_file, limit)
    scorer = _reward_model(asked, runs_dir)
    request = LaunchRequest(launch, processes, machines, machine_rank, main_address, rank_timeout)
    check_launch(request)
    if dry_run:
        from reftcli.cli.commands_train import _dry_run

        return _dry_run(asked.start, json_, whole_file)
    if launched(request, ctx.obj, asked.start.recipe.model.precision):
        return
    ranks = ranks_of(request)
    result = _measured(asked, scorer, name, runs_dir, resume, ranks)
    show_results(result, json_)
    if fail_under is not None and result["accuracy"] < fail_under:
        raise GateFailed(f"greedy accuracy {result['accuracy']:.4f} is below --fail-under {fail_under}")


def _reward_model(asked: Asked, runs_dir: Path) -> Path | None:
    """The folder of the reward model that is to pick.

    Raises:
        UsageError: there is none of that name, or nothing to pick among.
    """
    from reftcli.cli.find_runs import reward_model_of

    if asked.reward_model is None:
        return None
    if asked.k is None:
        raise UsageError("--reward-model picks among samples: add --majority-vote K")
    return reward_model_of(asked.reward_model, runs_dir)


def _measured(
    asked: Asked, scorer: Path | None, name: str | None, runs_dir: Path, resume: bool, ranks: Ranks = ALONE
) -> dict[str, Any]:
    from reftcli.cli.start import check_start
    from reftcli.evaluation.collecting import on_main
    from reftcli.evaluation.trained_on import refuse_trained_on
    from reftcli.runs.folder import check_name

    start = asked.start
    assert start.source is not None
    if not resume:
        on_main(ranks, lambda: check_name(runs_dir, name))
    quiet_libraries()
    check_start(start.source)
    sets, problems = _problems(asked)
    if ranks.is_main:
        say(start.said)
    from reftcli.evaluation.experiment import chosen, open_experiment
    from reftcli.evaluation.stages import evaluate as run_evaluation
    from reftcli.runs.progress import SilentProgress

    problems = chosen(problems, asked.limit, start.recipe.seed)
    if scorer is not None:
        refuse_trained_on(scorer, problems)
    run, own = on_main(ranks, lambda: run_for(asked, sets, name, runs_dir, resume))
    ranks.runs_in(run.folder)
    progress = TerminalProgress() if ranks.is_main else SilentProgress()
    with (
        run.recorded() if own and ranks.is_main else nullcontext(),
        open_experiment(start.recipe, sets, start.source, progress) as experiment,
    ):
        evaluation = run_evaluation(
            run,
            experiment,
            problems,
            asked.split,
            asked.k,
            label_of(asked, own),
            limit=asked.limit,
            resume=resume,
            request=asked.to_json(),
            score=_score_by(scorer, experiment, problems, ranks) if scorer else None,
            ranks=ranks,
        )
    return evaluation.to_json()


def _score_by(scorer: Path, experiment: Experiment, problems: Sequence[Problem], ranks: Ranks) -> Score:
    """How the reward model in a folder scores samples. Refuses one that saw these problems, before any is drawn."""
    from reftcli.evaluation.reward_scores import load_and_score
    from reftcli.evaluation.trained_on import refuse_trained_on

    refuse_trained_on(scorer, problems, lambda problem: experiment.builder.prompt(problem).text)
    return lambda records: load_and_score(scorer, records, experiment.recipe, experiment.progress, ranks)


def _problems(asked: Asked) -> tuple[ProblemSets, list[Problem]]:
    """All problems that the settings name, and those to be measured."""
    from reftcli.cli.start import problem_sets, whole
    from reftcli.problems.load import ProblemSets

    recipe, file = asked.start.recipe, asked.whole_file
    if file is None:
        sets = problem_sets(recipe)
        return sets, sets.split(asked.split)
    problems = whole(file, recipe)
    return ProblemSets([], [], problems, recipe.data.cot, {"dataset": file, "rows": {"test": len(problems)}}), problems


def show_results(result: dict[str, Any], json_: bool) -> None:
    """Results as a table with where the samples are, or as JSON."""
    if json_:
        return print_json(result)
    from reftcli.reports.tables import accuracy_rows, accuracy_table

    title = ", ".join(filter(None, (result["run"], result["dataset"], result["split"])))
    print_table(accuracy_table(accuracy_rows(result), title=title))
    if result.get("ungradable"):
        shown = ", ".join(result["ungradable"][:5])
        say(f"{len(result['ungradable'])} problems could not be graded and count as not correct: {shown}")
    for line in _how(result):
        say(line)
    say(f"samples: {result['samples_file']}")


def _how(result: dict[str, Any]) -> list[str]:
    """How it was sampled and how votes were counted, where that is known."""
    from reftcli.reports.tables import sampling_text

    lines = []
    if sampling := result.get("sampling"):
        lines.append(f"sampled {sampling_text(sampling)}")
    if voting := result.get("voting"):
        ties = {"first": "the answer seen first", "random": f"one at random, seed {voting['seed']}"}[voting["ties"]]
        lines.append(
            f"votes: ties go to {ties}; for k below K the mean over {voting['subsets']} subsets or all of them"
        )
    return lines
