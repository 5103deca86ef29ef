"""`reft vote`, `reft compare` and `reft grade`: what saved answers say. No model is loaded."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reftcli.cli import options
from reftcli.cli.commands_measure import show_results
from reftcli.cli.console import TerminalProgress, print_json, say
from reftcli.errors import DataError, RuntimeFailure, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reftcli.cli.find_runs import FoundSamples
    from reftcli.evaluation.results import Results
    from reftcli.evaluation.stages import Recount
    from reftcli.grading.audit import Audit
    from reftcli.grading.interface import Grade, Grader
    from reftcli.problems.record import Problem

_DEFAULT_SEED = 42
"""As recipes have it."""


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
        typer.Option(
            "--seed", min=0, help="Of the subsets for k < K and of ties; default: the evaluation's.", show_default=False
        ),
    ] = None,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
) -> None:
    """Count the votes of saved samples again: no model is loaded."""
    from reftcli.cli.find_runs import find_samples
    from reftcli.evaluation.results import VoteRule
    from reftcli.evaluation.samples import iter_samples
    from reftcli.evaluation.saved import Needs
    from reftcli.evaluation.stages import recount

    ks = _sizes(k)
    wanted = Needs(max(ks) if ks else 1, scores=weights is Weights.REWARD)
    found = find_samples(source, runs_dir, preferred=[wanted, Needs(1)])
    _say_which(found)
    if dry_run:
        return _dry_run(json_, f"{sum(1 for _ in iter_samples(found.file))} samples in {found.file}", "counted")
    grader = _saved_grader(found.file, answer, tolerance)
    try:
        kind: Any = answer.value if answer else grader.spec.get("answer", "number")
        rule = VoteRule(weights.value, ties.value)
        counted = recount(found.file, grader, kind, ks, _seed_of(found) if seed is None else seed, rule)
    finally:
        grader.close()
    record = found.run.record() if found.run else {}
    result = counted.results.to_json(
        found.run.name if found.run else "", record.get("dataset", ""), counted.split, str(found.file)
    )
    sampling = dict(found.evaluation.origin.sampling) if found.evaluation else {}
    show_results(result | ({"sampling": sampling} if sampling else {}), json_)


def _say_which(found: FoundSamples) -> None:
    """Which of a run's evaluations was taken: there may be several, of other problems or drawn in other ways."""
    saved = found.evaluation
    if found.named or saved is None:
        return
    limited = "" if saved.origin.limit is None else f" (--limit {saved.origin.limit})"
    samples = f", {saved.samples_per_problem} samples each" if saved.samples_per_problem else ", greedy only"
    if sampling := saved.origin.sampling:
        from reftcli.reports.tables import sampling_text

        samples += f" {sampling_text(sampling)}"
    say(f"taking {saved.samples_file}: {saved.problems:,} problems{limited}{samples}")


def _seed_of(found: FoundSamples) -> int:
    """The seed that gives the evaluation's own numbers again."""
    if found.evaluation is not None and found.evaluation.seed is not None:
        return found.evaluation.seed
    seed = found.run.record().get("seed") if found.run else None
    return seed if isinstance(seed, int) else _DEFAULT_SEED


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
            return grader_from_spec(spec if tolerance is None else _with_tolerance(spec, tolerance))
    policy = AnswerPolicy() if tolerance is None else AnswerPolicy(tolerance=tolerance)
    return build_grader("ncot", answer.value if answer else "number", policy=policy)


def _with_tolerance(spec: Any, tolerance: float) -> Any:
    """The specification with another tolerance; one that cannot be read stays as it is, for the grader to refuse."""
    policy = spec.get("policy", {}) if isinstance(spec, dict) else None
    return {**spec, "policy": {**policy, "tolerance": tolerance}} if isinstance(policy, dict) else spec


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
    there = sum(1 for _ in read_rows(file, kind))
    if not there:
        raise DataError(f"{file}: no row to grade")
    if dry_run:
        return _dry_run(json_, f"{there} rows in {file}", "graded")
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
    except FileNotFoundError as error:  # in /proc, say; what was read is there, and was read before
        raise RuntimeFailure(f"{out or file}: no file can be made there; choose another place") from error
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
    run_a: Annotated[str, typer.Argument(help="A run with results, or a samples file.")],
    run_b: Annotated[str, typer.Argument(help="Another one.")],
    measure: Annotated[str, typer.Option("--measure", help="greedy, maj@K or rerank@K.")] = "greedy",
    split: Annotated[
        options.SplitName | None,
        typer.Option("--split", help="Which problems of the runs [default: test].", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap.")] = _DEFAULT_SEED,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
) -> None:
    """Compare two runs on the problems that both answered: difference, its interval, exact McNemar."""
    import dataclasses

    from reftcli.evaluation.pairing import refuse_other_problems
    from reftcli.metrics.compare import compare as compare_outcomes

    sides = [_side(name, measure, split.value if split else None, seed, runs_dir) for name in (run_a, run_b)]
    refuse_other_problems(sides[0].asked, sides[1].asked, run_a, run_b)
    outcomes = [_outcomes(name, side.results, measure) for name, side in zip((run_a, run_b), sides, strict=True)]
    if dry_run:
        return _dry_run(json_, f"{measure}: {len(outcomes[0])} and {len(outcomes[1])} problems", "compared")
    try:
        found = compare_outcomes(outcomes[0], outcomes[1], run_a, run_b, seed)
    except ValueError as error:
        raise UsageError(f"{run_a} and {run_b} cannot be compared by {measure}: {error}") from error
    if json_:
        return print_json({**dataclasses.asdict(found), "sentence": found.sentence, "measure": measure})
    typer.echo(found.sentence)


def _side(name: str, measure: str, split: str | None, seed: int, runs_dir: Path) -> Recount:
    """One of the two, counted again with the sizes that the measure needs."""
    from reftcli.cli.find_runs import find_samples
    from reftcli.evaluation.saved import Needs
    from reftcli.evaluation.stages import recount

    strategy, _, size = measure.partition("@")
    k = int(size) if size.isdecimal() else 0
    scores = strategy in ("rerank", "weighted")
    # K = k first: with more samples a vote of k is a mean over subsets, and pairs need 0 or 1.
    preferred = [Needs(k, scores, exactly=True), Needs(k, scores)] if k else []
    found = find_samples(name, runs_dir, split, preferred)
    _say_which(found)
    grader = _saved_grader(found.file, None)
    try:
        kind: Any = grader.spec.get("answer", "number")
        return recount(found.file, grader, kind, None, seed)
    finally:
        grader.close()


def _outcomes(name: str, results: Results, measure: str) -> dict[str, float]:
    if measure not in results.per_problem:
        raise UsageError(f"{name} has no {measure}; it has {', '.join(results.per_problem)}")
    return dict(results.per_problem[measure])


def _dry_run(json_: bool, found: str, verb: str) -> None:
    if json_:
        print_json({"dry_run": True, "checks": [found]})
    else:
        typer.echo(f"{found}\ndry run: nothing was {verb} or written")
