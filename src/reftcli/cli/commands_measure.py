"""`reft eval`, `reft vote`, `reft grade` and `reft compare`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reftcli.cli import options
from reftcli.cli.console import TerminalProgress, print_json, print_table, quiet_libraries, say
from reftcli.errors import GateFailed, UsageError

if TYPE_CHECKING:
    from reftcli.cli.settings import Start
    from reftcli.grading.interface import Grader
    from reftcli.runs.folder import Run


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
    from reftcli.cli.settings import Flags, start_from

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
        seed=seed,
    )
    start = start_from(from_, flags, "rl", dry_run)
    if dry_run:
        from reftcli.cli.commands_train import _dry_run

        return _dry_run(start, json_, whole_file)
    if reward_model is not None and majority_vote is None:
        raise UsageError("--reward-model picks among samples: add --majority-vote K")
    result = _measured(start, split.value, majority_vote, reward_model, whole_file, limit, name, runs_dir)
    _show_results(result, json_)
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
    from reftcli.cli.settings import check_start, problem_sets, reward_model_of, whole
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


def _show_results(result: dict[str, Any], json_: bool) -> None:
    if json_:
        return print_json(result)
    from reftcli.reports.tables import accuracy_rows, accuracy_table

    title = f"{result['run']}: {result['dataset']}, {result['split']}"
    print_table(accuracy_table(accuracy_rows(result), title=title))
    if result.get("ungradable"):
        shown = ", ".join(result["ungradable"][:5])
        say(f"{len(result['ungradable'])} problems could not be graded and count as not correct: {shown}")
    say(f"samples: {result['samples_file']}")


def vote(
    source: Annotated[
        str | None, typer.Argument(metavar="[SAMPLES|RUN]", help="A samples file or a run.", show_default=False)
    ] = None,
    k: Annotated[
        str | None, typer.Option("--k", help="Sizes, e.g. 1,5,10 [default: 1, 2, 5, ... K].", show_default=False)
    ] = None,
    answer: Annotated[
        options.Kind | None,
        typer.Option("--answer", help="Kind of answer where no grader is saved.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of the subsets for k < K; default: the run's.", show_default=False)
    ] = None,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    json_: options.Json = False,
) -> None:
    """Count the votes of saved samples again: no model is loaded."""
    from reftcli.evaluation.stages import recount

    run, file = _samples_of(source, runs_dir)
    record = run.record() if run else {}
    ks = _sizes(k)
    grader = _saved_grader(file, answer)
    try:
        kind: Any = answer.value if answer else grader.spec.get("answer", "number")
        results, split = recount(file, grader, kind, ks, record.get("seed", 42) if seed is None else seed)
    finally:
        grader.close()
    _show_results(results.to_json(run.name if run else "", record.get("dataset", ""), split, str(file)), json_)


def _samples_of(source: str | None, runs_dir: Path) -> tuple[Run | None, Path]:
    """A samples file and the run it belongs to, from a samples file or a run."""
    from reftcli.cli.settings import named_run
    from reftcli.evaluation.samples import newest_samples
    from reftcli.runs.folder import open_run

    if source is not None and Path(source).is_file():
        folder = Path(source).parent.parent
        return open_run(folder) if (folder / "run.json").is_file() else None, Path(source)
    if source is not None and not Path(source).exists() and source.endswith((".jsonl", ".json")):
        raise UsageError(f"no samples file {source!r}")
    run = named_run(source, runs_dir)
    newest = newest_samples(run, "test", samples_per_problem=1) or newest_samples(run, "test")
    if newest is None:
        raise UsageError(
            f"{run.folder} has no samples/test.jsonl; run `reft eval {run.name} --majority-vote 100` first"
        )
    return run, newest


def _sizes(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--k {text!r}: expected whole numbers with commas, for example 1,5,10") from None
    if not sizes or min(sizes) < 1:
        raise UsageError(f"--k {text!r}: sizes start at 1")
    return sorted(set(sizes))


def _saved_grader(samples_file: Path, answer: options.Kind | None) -> Grader:
    """The grader saved beside the samples; otherwise one for the kind of answer (default number)."""
    import json

    from reftcli.grading.build import build_grader, grader_from_spec

    for file in (samples_file.with_suffix(".grader.json"), samples_file.parent / "grader.json"):
        if answer is None and file.is_file():
            try:
                spec = json.loads(file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise UsageError(f"{file}: not JSON ({error})") from error
            return grader_from_spec(spec)
    return build_grader("ncot", answer.value if answer else "number")


def grade(
    file: Annotated[
        Path, typer.Argument(help="JSONL or JSON array of {completion, gold_answer, options?, question?}.")
    ],
    cot: Annotated[options.Form, typer.Option("--cot", help="Form of the completions.")] = options.Form.NCOT,
    answer: Annotated[options.Kind, typer.Option("--answer", help="Kind of the answers.")] = options.Kind.NUMBER,
    grader: Annotated[
        Path | None,
        typer.Option("--grader", help="A grader's specification instead of --cot and --answer.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the grades here, JSONL.", show_default=False)] = None,
    json_: options.Json = False,
) -> None:
    """Grade completions in a file: verdict, score, predicted answer, reward and why, in input order."""
    from collections import Counter

    from reftcli.grading.build import build_grader
    from reftcli.grading.files import grade_file
    from reftcli.rewards.shaping import RewardTable

    built = _specified_grader(grader) if grader else build_grader(cot.value, answer.value)
    kind: Any = built.spec.get("answer", answer.value)
    try:
        rows = grade_file(
            file, built, answer_kind=kind, reward_of=RewardTable().of, out=out, progress=TerminalProgress()
        )
    finally:
        built.close()
    counts = dict(Counter(row["verdict"] for row in rows))
    if json_:
        return print_json({"n": len(rows), "verdicts": counts, "out": str(out) if out else None, "grades": rows})
    if out is None:
        import json

        for row in rows:
            typer.echo(json.dumps(row, ensure_ascii=False))
    say(f"{len(rows)} graded: " + ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())))


def _specified_grader(file: Path) -> Grader:
    import json

    from reftcli.grading.build import grader_from_spec

    try:
        spec = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{file}: not JSON ({error})") from error
    return grader_from_spec(spec)


def compare(
    run_a: Annotated[str, typer.Argument(help="A run with results.")],
    run_b: Annotated[str, typer.Argument(help="Another one.")],
    measure: Annotated[str, typer.Option("--measure", help="greedy, maj@K or rerank@K.")] = "greedy",
    split: Annotated[options.SplitName, typer.Option("--split", help="Which problems.")] = options.SplitName.TEST,
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap.")] = 42,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    json_: options.Json = False,
) -> None:
    """Compare two runs on the problems that both answered: difference, its interval, exact McNemar."""
    import dataclasses

    from reftcli.metrics.compare import compare as compare_outcomes

    sides = [_outcomes(name, measure, split.value, seed, runs_dir) for name in (run_a, run_b)]
    try:
        found = compare_outcomes(sides[0], sides[1], run_a, run_b, seed)
    except ValueError as error:
        raise UsageError(f"{run_a} and {run_b} cannot be compared by {measure}: {error}") from error
    if json_:
        return print_json({**dataclasses.asdict(found), "sentence": found.sentence, "measure": measure})
    typer.echo(found.sentence)


def _outcomes(name: str, measure: str, split: str, seed: int, runs_dir: Path) -> dict[str, float]:
    from reftcli.cli.settings import named_run
    from reftcli.evaluation.samples import newest_samples
    from reftcli.evaluation.stages import recount

    run = named_run(name, runs_dir)
    needed = 0 if measure == "greedy" else 1
    file = newest_samples(run, split, needed) or newest_samples(run, split)
    if file is None:
        raise UsageError(f"{run.folder} has no samples/{split}.jsonl; run `reft eval {run.name}` first")
    grader = _saved_grader(file, None)
    try:
        results, _ = recount(file, grader, grader.spec.get("answer", "number"), None, seed)
    finally:
        grader.close()
    if measure not in results.per_problem:
        raise UsageError(f"{run.name} has no {measure}; it has {', '.join(results.per_problem)}")
    return dict(results.per_problem[measure])
