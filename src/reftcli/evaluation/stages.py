"""`reft eval` and `reft vote`: completions of a split to a samples file, and results derived from such files."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from reftcli.errors import DataError, NothingToStartFrom, UsageError
from reftcli.evaluation.chunks import Pass
from reftcli.evaluation.collecting import SamplingPass, begin, differences, fill, identity_of, on_main
from reftcli.evaluation.lm_eval import is_gsm8k, lm_eval_measures
from reftcli.evaluation.pairing import AskedProblem
from reftcli.evaluation.partial import Partial, unfinished_labels
from reftcli.evaluation.results import PLAIN_VOTE, Results, VoteRule, results_of
from reftcli.evaluation.samples import SampleRecord, iter_samples, write_samples
from reftcli.evaluation.saved import Origin, saved_evaluations
from reftcli.evaluation.tally import TallyBook
from reftcli.grading.interface import Grader
from reftcli.problems.record import AnswerKind, Problem, Split
from reftcli.recipe.schema import Recipe
from reftcli.runs.files import write_json
from reftcli.runs.folder import Run
from reftcli.runs.ranks import ALONE, Ranks
from reftcli.sampling.interface import Decode

if TYPE_CHECKING:  # it loads torch, which `vote` does without
    from reftcli.evaluation.experiment import Experiment
    from reftcli.evaluation.reward_scores import Scores


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Results with where they came from; `to_json` is what ``--json`` prints and ``eval/*.json`` keeps."""

    run: str
    dataset: str
    split: str
    results: Results
    samples_file: Path
    grader: Mapping[str, Any]
    lm_eval: Mapping[str, Any]
    """GSM8K by lm-eval's extractions; empty for everything else."""
    origin: Origin = dataclasses.field(default_factory=Origin)
    """What the completions were drawn from, and how."""

    def to_json(self) -> dict[str, Any]:
        """The contract's keys, and how it was sampled and graded."""
        row = self.results.to_json(self.run, self.dataset, self.split, str(self.samples_file))
        lm_eval = {"lm_eval": dict(self.lm_eval)} if self.lm_eval else {}
        return {**row, **lm_eval, **self.origin.to_json(), "grader": dict(self.grader)}


Score = Callable[[Iterable[SampleRecord]], "Scores"]
"""p(correct) of rows by a reward model: called on every rank with all rows, and everybody gets the scores of all."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """An evaluation that is being made: where, and the chunks that are drawn; None where all rows stand complete."""

    label: str
    done: frozenset[int] | None


def evaluate(
    run: Run,
    experiment: Experiment,
    problems: Sequence[Problem],
    split: Split,
    k: int | None,
    label: str,
    *,
    limit: int | None = None,
    resume: bool = False,
    request: Mapping[str, Any] | None = None,
    score: Score | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Greedy answers, and ``k`` sampled ones for voting, to all the problems; written as they come.

    An evaluation of the same that was stopped is gone on with, and gives what it would have given. It is unfinished
    until its samples are scored, too; and to one that stands complete without scores only these are added.

    Args:
        label: part of the file names: ``samples/LABEL.jsonl`` and ``eval/LABEL.json``; numbered where such results
            stand already, because nothing is overwritten.
        limit: what the problems were limited to, for the record.
        resume: there must be such an unfinished evaluation.
        request: kept beside the unfinished samples, for who goes on with them.
        score: a reward model that picks among the samples.
        ranks: chunks are dealt out to all of them; the main one writes, and everybody returns the same.

    Raises:
        DataError: there is no problem.
        Interrupted: somebody asked to stop; the samples so far are kept.
        UsageError, NothingToStartFrom: there is nothing to resume, or something else.
    """
    if not problems:
        raise DataError(f"the split {split} has no problem")
    again = "; the same command with --resume goes on"
    wanted = SamplingPass(problems, split, _passes(experiment, k), request or {}, again)
    identity = on_main(ranks, lambda: identity_of(experiment, wanted))
    with ExitStack() as held:
        begun = on_main(ranks, lambda: _begun(run, label, identity, wanted, resume, score is not None, held))
        partial = Partial(run.samples_file(begun.label))
        if begun.done is not None:
            fill(experiment, wanted, partial, begun.done, ranks)
        scores = score(iter_samples(partial.file)) if score else {}
        origin = Origin(identity, _stated(experiment.recipe) if k else {}, limit)
        return on_main(ranks, lambda: _finished(run, experiment, problems, partial, origin, scores))


def evaluation_identity(
    experiment: Experiment, problems: Sequence[Problem], split: Split, k: int | None
) -> dict[str, Any]:
    """What an evaluation of these would be of: `identity_of` its sampling pass."""
    return identity_of(experiment, SamplingPass(problems, split, _passes(experiment, k)))


def _begun(
    run: Run,
    label: str,
    identity: Mapping[str, Any],
    wanted: SamplingPass,
    resume: bool,
    scored: bool,
    held: ExitStack,
) -> _Begun:
    """What is gone on with, locked: an unfinished evaluation of the same, one that only lacks scores, or a new one."""
    reasons = []
    for name in unfinished_labels(run, label):
        partial = Partial(run.samples_file(name))
        if changed := differences(partial.plan()["identity"], identity):
            reasons.append(f"{partial.plan_file} was begun with other settings ({changed})")
        elif not held.enter_context(partial.locked()):
            reasons.append(f"{partial.plan_file} is being worked on by another process")
        else:
            return _Begun(name, begin(partial, identity, wanted))
    for saved in saved_evaluations(run, label) if scored else []:
        unscored = not saved.has_scores and not differences(saved.origin.identity, identity)
        partial = Partial(saved.samples_file)
        if unscored and held.enter_context(partial.locked()):
            held.callback(partial.clear)  # of the file that the lock is on
            return _Begun(saved.label, None)
    if resume and reasons:
        raise UsageError(f"{reasons[0]}; ask for the same, or leave out --resume to begin another one")
    if resume:
        raise NothingToStartFrom(f"no unfinished evaluation {label!r} in {run.folder}; leave out --resume")
    return _new(run, label, identity, wanted, held)


def _new(run: Run, label: str, identity: Mapping[str, Any], wanted: SamplingPass, held: ExitStack) -> _Begun:
    """Under the first number that nobody has taken."""
    for number in itertools.count(1):
        name = label if number == 1 else f"{label}-{number}"
        partial = Partial(run.samples_file(name))
        taken = partial.file.exists() or run.results_file(name).exists() or partial.exists
        if not taken and held.enter_context(partial.locked()):
            return _Begun(name, begin(partial, identity, wanted))
    raise AssertionError("there is always another number")


def _finished(
    run: Run,
    experiment: Experiment,
    problems: Sequence[Problem],
    partial: Partial,
    origin: Origin,
    scores: Scores,
) -> Evaluation:
    """Results of a complete samples file; only when they stand, too, the unfinished form of it goes."""
    records = iter_samples(partial.file)
    if scores:
        evaluation = with_reranking(run, experiment, problems, records, scores, partial.file.stem, origin)
    else:
        evaluation = _written(run, experiment, problems, partial.file.stem, origin)
    partial.clear()
    return evaluation


def _written(run: Run, experiment: Experiment, problems: Sequence[Problem], label: str, origin: Origin) -> Evaluation:
    """Derives the results of a samples file, and writes them and the grader."""
    file = run.samples_file(label)
    write_json(grader_file(file), experiment.grader.spec)
    evaluation = _evaluation(run, experiment, problems, iter_samples(file), label, origin)
    write_json(run.results_file(label), evaluation.to_json())
    return evaluation


def _passes(experiment: Experiment, k: int | None) -> list[Pass]:
    settings = experiment.recipe.sampling
    passes = [Pass(Decode("greedy", settings.max_new_tokens), 1)]
    if k:
        sampled = Decode(
            "sampled",
            settings.max_new_tokens,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            seed=experiment.recipe.seed,
        )
        passes.append(Pass(sampled, k))
    return passes


def grader_file(samples_file: Path) -> Path:
    """Where the specification of the grader of a samples file stands."""
    return samples_file.with_suffix(".grader.json")


class Recount(NamedTuple):
    """What saved samples say when they are counted again."""

    results: Results
    split: str
    asked: Mapping[str, AskedProblem]
    """By item_id."""


def recount(
    samples_file: Path,
    grader: Grader,
    answer: AnswerKind,
    ks: Sequence[int] | None,
    seed: int,
    rule: VoteRule = PLAIN_VOTE,
) -> Recount:
    """Every number again from saved samples; no model is loaded.

    Raises:
        UsageError, DataError: the file cannot be read or has bad rows.
    """
    problems: dict[str, Problem] = {}
    asked: dict[str, AskedProblem] = {}
    splits: list[str] = []

    def rows() -> Iterator[SampleRecord]:
        for record in iter_samples(samples_file):
            if record.item_id not in problems:
                problems[record.item_id] = Problem(record.item_id, record.prompt, record.gold_answer, answer)
                asked[record.item_id] = AskedProblem(record.gold_answer, record.question_sha256)
                splits.append(record.split)
            yield record

    book = TallyBook.of(rows())
    if not problems:
        raise DataError(f"{samples_file}: no sample in it")
    if ks is not None:
        most = book.samples_per_problem
        if most == 0:
            raise DataError(f"{samples_file}: no sampled completion to vote with; use eval --majority-vote K")
        if max(ks) > most:
            raise UsageError(f"--k {max(ks)}: {samples_file} has {most} samples per problem")
    return Recount(_derived(book, problems, grader, ks, seed, rule), splits[0], asked)


def _derived(
    book: TallyBook,
    problems: Mapping[str, Problem],
    grader: Grader,
    ks: Sequence[int] | None,
    seed: int,
    rule: VoteRule = PLAIN_VOTE,
) -> Results:
    return results_of(book, lambda item_id, a, b: grader.same_answer(problems[item_id], a, b), ks, seed, rule)


def with_reranking(
    run: Run,
    experiment: Experiment,
    problems: Sequence[Problem],
    records: Iterable[SampleRecord],
    scores: Scores,
    label: str,
    origin: Origin,
) -> Evaluation:
    """Results with rerank@k, from p(correct) of the samples; rows with scores go to the samples file.

    Args:
        origin: of the rows, which may have been drawn by an earlier evaluation with settings of its own.
    """
    write_samples(run.samples_file(label), (_scored(record, scores) for record in records))
    return _written(run, experiment, problems, label, origin)


def _scored(record: SampleRecord, scores: Scores) -> SampleRecord:
    score = scores.get((record.item_id, record.sample_index))
    return record if score is None or record.decoding == "greedy" else dataclasses.replace(record, rm_score=score)


def _evaluation(
    run: Run,
    experiment: Experiment,
    problems: Sequence[Problem],
    records: Iterable[SampleRecord],
    label: str,
    origin: Origin,
) -> Evaluation:
    """Derived from rows that are read once, and not kept but for the greedy ones."""
    recipe, grader = experiment.recipe, experiment.grader
    comparable = is_gsm8k(problems, recipe.data.dataset)
    greedy: list[SampleRecord] = []
    splits: set[str] = set()

    def rows() -> Iterator[SampleRecord]:
        for record in records:
            splits.add(record.split)
            if comparable and record.decoding == "greedy":
                greedy.append(record)
            yield record

    by_id = {problem.item_id: problem for problem in problems}
    results = _derived(TallyBook.of(rows()), by_id, grader, None, recipe.seed)
    return Evaluation(
        run=run.name,
        dataset=recipe.data.dataset,
        split=", ".join(sorted(splits)),
        results=results,
        samples_file=run.samples_file(label),
        grader=grader.spec,
        lm_eval=lm_eval_measures(greedy, recipe.data.cot, recipe.seed) if comparable else {},
        origin=origin,
    )


def _stated(recipe: Recipe) -> dict[str, Any]:
    """The settings of sampled completions, for people."""
    names = ("temperature", "top_k", "top_p", "max_new_tokens", "backend")
    return {**{name: getattr(recipe.sampling, name) for name in names}, "seed": recipe.seed}
