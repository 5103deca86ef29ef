"""`reft vote`, `reft compare` and `reft grade`: what saved answers say. No model is loaded."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reftcli.cli import options
from reftcli.cli.commands_measure import show_results
from reftcli.cli.console import TerminalProgress, print_json, say
from reftcli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reftcli.grading.audit import Audit
    from reftcli.grading.interface import Grade, Grader
    from reftcli.problems.record import Problem
    from reftcli.runs.folder import Run


class Weights(StrEnum):
    """What a vote counts."""

    NONE = "none"
    LOGPROB = "logprob"
    REWARD = "reward"


class Ties(StrEnum):
    """Who wins a tie."""

    FIRST = "first"
    RANDOM = "random"


def vote(
    source: Annotated[
        str | None, typer.Argument(metavar="[SAMPLES|RUN]", help="A samples file or a run.", show_default=False)
    ] = None,
    k: Annotated[
        str | None, typer.Option("--k", help="Sizes, e.g. 1,5,10 [default: 1, 2, 5, ... K].", show_default=False)
    ] = None,
    answer: Annotated[
        options.Kind | None,
        typer.Option("--answer", help="Kind of answer, instead of the saved grader's.", show_default=False),
    ] = None,
    weights: Annotated[
        Weights,
        typer.Option(
            "--weights",
            help="What a vote counts: one; the sample's probability under the model; the reward model's p(correct).",
        ),
    ] = Weights.NONE,
    ties: Annotated[
        Ties, typer.Option("--ties", help="Who wins a tie: the answer seen first, or one at random (seeded).")
    ] = Ties.FIRST,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            min=0,
            help="Numbers that differ by no more are one candidate; default: the grader's. Verdicts stay as graded.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Of the subsets for k < K and of ties; default: the run's.", show_default=False),
    ] = None,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
) -> None:
    """Count the votes of saved samples again: no model is loaded."""
    from reftcli.evaluation.results import VoteRule
    from reftcli.evaluation.samples import iter_samples
    from reftcli.evaluation.stages import recount

    run, file = _samples_of(source, runs_dir)
    if dry_run:
        return _dry_run(json_, f"{sum(1 for _ in iter_samples(file))} samples in {file}", "counted")
    record = run.record() if run else {}
    ks = _sizes(k)
    grader = _saved_grader(file, answer, tolerance)
    try:
        kind: Any = answer.value if answer else grader.spec.get("answer", "number")
        rule = VoteRule(weights.value, ties.value)
        results, split = recount(file, grader, kind, ks, record.get("seed", 42) if seed is None else seed, rule)
    finally:
        grader.close()
    show_results(results.to_json(run.name if run else "", record.get("dataset", ""), split, str(file)), json_)


def _samples_of(source: str | None, runs_dir: Path) -> tuple[Run | None, Path]:
    """A samples file and the run it belongs to, from a samples file or a run."""
    from reftcli.cli.find_runs import named_run
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


def _saved_grader(samples_file: Path, answer: options.Kind | None, tolerance: float | None = None) -> Grader:
    """The grader saved beside the samples, or one for the kind of answer (default number); with another tolerance."""
    import json

    from reftcli.grading.build import build_grader, grader_from_spec
    from reftcli.grading.policy import AnswerPolicy

    for file in (samples_file.with_suffix(".grader.json"), samples_file.parent / "grader.json"):
        if answer is None and file.is_file():
            try:
                spec = json.loads(file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise UsageError(f"{file}: not JSON ({error})") from error
            if tolerance is not None and isinstance(spec, dict):
                spec = {**spec, "policy": {**spec.get("policy", {}), "tolerance": tolerance}}
            return grader_from_spec(spec)
    policy = AnswerPolicy() if tolerance is None else AnswerPolicy(tolerance=tolerance)
    return build_grader("ncot", answer.value if answer else "number", policy=policy)


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
    audit: Annotated[
        bool, typer.Option("--audit", help="Also say why answers failed, and which right ones look odd.")
    ] = False,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
) -> None:
    """Grade completions in a file: verdict, score, predicted answer, reward and why, in input order."""
    from collections import Counter

    from reftcli.grading.build import build_grader
    from reftcli.grading.files import grade_file, read_rows
    from reftcli.rewards.shaping import RewardTable

    built = _specified_grader(grader) if grader else build_grader(cot.value, answer.value)
    kind: Any = built.spec.get("answer", answer.value)
    if dry_run:
        return _dry_run(json_, f"{sum(1 for _ in read_rows(file, kind))} rows in {file}", "graded")
    found: list[Audit] = []

    def look(problems: Sequence[Problem], completions: Sequence[str], grades: Sequence[Grade]) -> None:
        from reftcli.grading.audit import audit as audit_grades

        found.append(audit_grades(problems, completions, grades, built.spec.get("form", cot.value)))

    try:
        rows = grade_file(
            file,
            built,
            answer_kind=kind,
            reward_of=RewardTable().of,
            out=out,
            progress=TerminalProgress(),
            look=look if audit else None,
        )
    finally:
        built.close()
    counts = dict(Counter(row["verdict"] for row in rows))
    if json_:
        audits = {"audit": found[0].to_json()} if found else {}
        written = str(out) if out else None
        return print_json({"n": len(rows), "verdicts": counts, "out": written, "grades": rows, **audits})
    if out is None:
        import json

        for row in rows:
            typer.echo(json.dumps(row, ensure_ascii=False))
    say(f"{len(rows)} graded: " + ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())))
    for audited in found:
        for why, count in audited.reasons:
            say(f"{count} not correct: {why}")
        for finding in audited.findings:
            say(f"look at row {finding.row}: {finding.what}")


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
    dry_run: options.DryRun = False,
    json_: options.Json = False,
) -> None:
    """Compare two runs on the problems that both answered: difference, its interval, exact McNemar."""
    import dataclasses

    from reftcli.metrics.compare import compare as compare_outcomes

    sides = [_outcomes(name, measure, split.value, seed, runs_dir) for name in (run_a, run_b)]
    if dry_run:
        return _dry_run(json_, f"{measure}: {len(sides[0])} and {len(sides[1])} problems", "compared")
    try:
        found = compare_outcomes(sides[0], sides[1], run_a, run_b, seed)
    except ValueError as error:
        raise UsageError(f"{run_a} and {run_b} cannot be compared by {measure}: {error}") from error
    if json_:
        return print_json({**dataclasses.asdict(found), "sentence": found.sentence, "measure": measure})
    typer.echo(found.sentence)


def _outcomes(name: str, measure: str, split: str, seed: int, runs_dir: Path) -> dict[str, float]:
    from reftcli.cli.find_runs import named_run
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


def _dry_run(json_: bool, found: str, verb: str) -> None:
    if json_:
        print_json({"dry_run": True, "checks": [found]})
    else:
        typer.echo(f"{found}\ndry run: nothing was {verb} or written")
