"""`reft eval`."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reftcli.cli import options
from reftcli.cli.console import TerminalProgress, print_json, print_table, quiet_libraries, say
from reftcli.cli.launching import launched, ranks_of
from reftcli.errors import GateFailed, NothingToStartFrom, UsageError
from reftcli.launch.request import LaunchRequest
from reftcli.runs.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from reftcli.cli.start import Start
    from reftcli.evaluation.experiment import Experiment
    from reftcli.evaluation.stages import Evaluation
    from reftcli.problems.load import ProblemSets
    from reftcli.problems.record import Problem
    from reftcli.runs.folder import Run


def evaluate(
    ctx: typer.Context,
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
    used whole. Ctrl-C keeps what is done: the same command, or `reft eval --resume`, goes on.
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
    nothing_asked = from_ is None and limit is None and majority_vote is None and reward_model is None
    if resume and nothing_asked and not flags.values and not flags.assignments and recipe is None and not dry_run:
        asked = _latest_stopped(runs_dir, name)
    else:
        start = start_from(from_, flags, "rl", dry_run)
        if dry_run:
            from reftcli.cli.commands_train import _dry_run

            return _dry_run(start, json_, whole_file)
        asked = Asked(start, split.value, majority_vote, reward_model, whole_file, limit)
    if asked.reward_model is not None and asked.k is None:
        raise UsageError("--reward-model picks among samples: add --majority-vote K")
    request = LaunchRequest(launch, processes, machines, machine_rank, main_address, rank_timeout)
    if launched(request, ctx.obj, asked.start.recipe.model.precision):
        return
    ranks = ranks_of(request)
    result = _measured(asked, name, runs_dir, resume, ranks)
    show_results(result, json_)
    if fail_under is not None and result["accuracy"] < fail_under:
        raise GateFailed(f"greedy accuracy {result['accuracy']:.4f} is below --fail-under {fail_under}")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be measured. `to_json` is kept beside unfinished samples, `from_json` goes on with them."""

    start: Start
    split: Any
    k: int | None
    reward_model: str | None
    whole_file: str | None
    limit: int | None

    def to_json(self) -> dict[str, Any]:
        source, run = self.start.source, self.start.run
        assert source is not None
        return {
            "model": source.target if source.kind == "folder" else source.name,
            "revision": source.revision,
            "run": str(run.folder) if run else None,
            "recipe": self.start.recipe.model_dump(mode="json"),
            "split": self.split,
            "k": self.k,
            "reward_model": self.reward_model,
            "whole_file": self.whole_file,
            "limit": self.limit,
        }

    @classmethod
    def from_json(cls, row: dict[str, Any], where: str) -> Asked:
        from reftcli.cli.start import Start
        from reftcli.models.source import resolve_model
        from reftcli.recipe.layers import check_recipe
        from reftcli.runs.folder import open_run

        run = open_run(Path(row["run"])) if row["run"] else None
        source = resolve_model(row["model"], row["revision"])
        start = Start(source, run, check_recipe(row["recipe"], where), f"going on with {where}: {source.describe()}")
        return cls(start, row["split"], row["k"], row["reward_model"], row["whole_file"], row["limit"])


def _latest_stopped(runs_dir: Path, name: str | None) -> Asked:
    """What the newest unfinished evaluation was asked for, or that of a run."""
    from reftcli.evaluation.partial import Partial

    plans = sorted(runs_dir.glob(f"{name or '*'}/samples/*.partial.json"), key=lambda file: file.stat().st_mtime_ns)
    for file in reversed(plans):
        request = Partial(file.with_name(file.name.replace(".partial.json", ".jsonl"))).plan()["request"]
        if request:
            return Asked.from_json(request, str(file))
    raise NothingToStartFrom(f"no unfinished evaluation in {runs_dir / name if name else runs_dir}; leave out --resume")


def _measured(asked: Asked, name: str | None, runs_dir: Path, resume: bool, ranks: Ranks = ALONE) -> dict[str, Any]:
    from reftcli.cli.find_runs import reward_model_of
    from reftcli.cli.start import check_start
    from reftcli.evaluation.collecting import on_main
    from reftcli.runs.folder import check_name

    start = asked.start
    assert start.source is not None
    if not resume:
        on_main(ranks, lambda: check_name(runs_dir, name))
    quiet_libraries()
    check_start(start.source)
    scorer = reward_model_of(asked.reward_model, runs_dir) if asked.reward_model else None
    sets, problems = _problems(asked)
    if ranks.is_main:
        say(start.said)
    from reftcli.evaluation.experiment import chosen, open_experiment
    from reftcli.evaluation.stages import evaluate as run_evaluation
    from reftcli.runs.progress import SilentProgress

    problems = chosen(problems, asked.limit, start.recipe.seed)
    run, own = on_main(ranks, lambda: _run_for(asked, sets, name, runs_dir, resume))
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
            _label(asked.split, start, asked.whole_file),
            resume=resume,
            request=asked.to_json(),
            ranks=ranks,
        )
        if scorer is not None:
            picking = evaluation
            evaluation = on_main(ranks, lambda: _reranked(run, experiment, problems, picking, scorer))
    return evaluation.to_json()


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


def _run_for(asked: Asked, sets: ProblemSets, name: str | None, runs_dir: Path, resume: bool) -> tuple[Run, bool]:
    """Where the results go, and whether that is a run of this evaluation's own.

    Results of a run stand in its folder; those of a bare model get one of their own, as do those with a --name.
    """
    from reftcli.training.stages import StageRequest, new_run

    start = asked.start
    assert start.source is not None
    if start.run is not None and name is None:
        return start.run, False
    if resume:
        run = _stopped_run(asked, name, runs_dir)
        run.update_record(status="running")
        return run, True
    return new_run(StageRequest(start.recipe, sets, start.source, runs_dir, name, start.run), "eval"), True


def _stopped_run(asked: Asked, name: str | None, runs_dir: Path) -> Run:
    """An unfinished run of its own: the named one, else the newest that was asked for the same, else the newest."""
    from reftcli.cli.find_runs import run_to_resume
    from reftcli.evaluation.partial import Partial
    from reftcli.runs.folder import all_runs

    label = _label(asked.split, asked.start, asked.whole_file)
    for run in reversed(all_runs(runs_dir)) if name is None else []:
        partial = Partial(run.samples_file(label))
        if run.record().get("stage") == "eval" and partial.exists and partial.plan()["request"] == asked.to_json():
            return run
    return run_to_resume(runs_dir, "eval", name)


def _reranked(
    run: Run, experiment: Experiment, problems: list[Problem], evaluation: Evaluation, scorer: Path
) -> Evaluation:
    """The same evaluation with a reward model's pick among the samples."""
    from reftcli.evaluation.reward_scores import load_and_score
    from reftcli.evaluation.samples import read_samples
    from reftcli.evaluation.stages import with_reranking

    records = read_samples(evaluation.samples_file)
    scores = load_and_score(scorer, records, experiment.recipe, experiment.progress)
    return with_reranking(run, experiment, problems, records, scores, evaluation.samples_file.stem)


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
    lines = []
    if sampling := result.get("sampling"):
        filters = ", ".join(f"{name} {sampling[name] or 'off'}" for name in ("top_k", "top_p"))
        lines.append(f"sampled at temperature {sampling['temperature']}, {filters}, seed {sampling['seed']}")
    if voting := result.get("voting"):
        ties = {"first": "the answer seen first", "random": f"one at random, seed {voting['seed']}"}[voting["ties"]]
        lines.append(
            f"votes: ties go to {ties}; for k below K the mean over {voting['subsets']} subsets or all of them"
        )
    return lines
