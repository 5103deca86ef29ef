"""`reft eval`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reftcli.cli import options
from reftcli.cli.console import TerminalProgress, print_json, print_table, quiet_libraries, say
from reftcli.errors import GateFailed, UsageError

if TYPE_CHECKING:
    from reftcli.cli.start import Start


def evaluate(
    from_: options.From = None,
    dataset: options.Dataset = None,
    cot: options.Cot = None,
    split: Annotated[options.SplitName, typer.Option("--split", help="Which problems.")] = options.SplitName.TEST,
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
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
) -> None:
    """Measure a model: greedy accuracy, and majority vote over K sampled completions.

    Without FROM it takes the latest finished RL run, its data set and the test split. A file given to --dataset is
    used whole.
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
    start = start_from(from_, flags, "rl", dry_run)
    if dry_run:
        from reftcli.cli.commands_train import _dry_run

        return _dry_run(start, json_, whole_file)
    if reward_model is not None and majority_vote is None:
        raise UsageError("--reward-model picks among samples: add --majority-vote K")
    result = _measured(start, split.value, majority_vote, reward_model, whole_file, limit, name, runs_dir)
    show_results(result, json_)
    if fail_under is not None and result["accuracy"] < fail_under:
        raise GateFailed(f"greedy accuracy {result['accuracy']:.4f} is below --fail-under {fail_under}")


def _measured(
    start: Start,
    split: Any,
    k: int | None,
    reward_model: str | None,
    whole_file: str | None,
    limit: int | None,
    name: str | None,
    runs_dir: Path,
) -> dict[str, Any]:
    from reftcli.cli.find_runs import reward_model_of
    from reftcli.cli.start import check_start, problem_sets, whole
    from reftcli.problems.load import ProblemSets
    from reftcli.runs.folder import check_name

    assert start.source is not None
    check_name(runs_dir, name)
    quiet_libraries()
    check_start(start.source)
    scorer = reward_model_of(reward_model, runs_dir) if reward_model else None
    if whole_file is not None:
        problems = whole(whole_file, start.recipe)
        sets = ProblemSets(
            [], [], problems, start.recipe.data.cot, {"dataset": whole_file, "rows": {"test": len(problems)}}
        )
    else:
        sets = problem_sets(start.recipe)
        problems = sets.split(split)
    say(start.said)
    from reftcli.evaluation.experiment import chosen, open_experiment
    from reftcli.evaluation.stages import evaluate as run_evaluation
    from reftcli.training.stages import StageRequest, new_run

    problems = chosen(problems, limit, start.recipe.seed)
    # Results of a run stand in its folder; those of a bare model get one of their own, as do those with a --name.
    own = start.run is None or name is not None
    run = (
        new_run(StageRequest(start.recipe, sets, start.source, runs_dir, name, start.run), "eval") if own else start.run
    )
    assert run is not None
    progress = TerminalProgress()
    label = _label(split, start, whole_file)
    with (
        run.recorded() if own else nullcontext(),
        open_experiment(start.recipe, sets, start.source, progress) as experiment,
    ):
        evaluation = run_evaluation(run, experiment, problems, split, k, label)
        if scorer is not None:
            from reftcli.evaluation.reward_scores import load_and_score
            from reftcli.evaluation.samples import read_samples
            from reftcli.evaluation.stages import with_reranking

            records = read_samples(evaluation.samples_file)
            scores = load_and_score(scorer, records, start.recipe, progress)
            label = evaluation.samples_file.stem
            evaluation = with_reranking(run, experiment, problems, records, scores, label)
    return evaluation.to_json()


def _label(split: str, start: Start, whole_file: str | None) -> str:
    """Names the files of these results; only a run's own data set writes ``test``, which vote and rerank read."""
    if whole_file is not None:
        return f"file-{Path(whole_file).stem}"
    dataset = start.recipe.data.dataset
    if start.run is None or start.run.record().get("dataset") == dataset:
        return split
    return f"{Path(dataset).stem}-{split}"


def show_results(result: dict[str, Any], json_: bool) -> None:
    """Results as a table with where the samples are, or as JSON."""
    if json_:
        return print_json(result)
    from reftcli.reports.tables import accuracy_rows, accuracy_table

    title = f"{result['run']}: {result['dataset']}, {result['split']}"
    print_table(accuracy_table(accuracy_rows(result), title=title))
    if result.get("ungradable"):
        shown = ", ".join(result["ungradable"][:5])
        say(f"{len(result['ungradable'])} problems could not be graded and count as not correct: {shown}")
    say(f"samples: {result['samples_file']}")
