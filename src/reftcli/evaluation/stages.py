"""`reft eval` and `reft vote`: completions of a split to a samples file, and results derived from such files."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from reftcli.errors import DataError, NothingToStartFrom, UsageError
from reftcli.evaluation.chunks import Pass
from reftcli.evaluation.collecting import SamplingPass, begin, differences, fill, identity_of, on_main
from reftcli.evaluation.lm_eval import is_gsm8k, lm_eval_measures
from reftcli.evaluation.partial import Partial
from reftcli.evaluation.results import PLAIN_VOTE, Results, VoteRule, results_of
from reftcli.evaluation.samples import SampleRecord, iter_samples, read_samples
from reftcli.evaluation.tally import TallyBook
from reftcli.grading.interface import Grader
from reftcli.problems.record import AnswerKind, Problem, Split
from reftcli.recipe.schema import SamplingSettings
from reftcli.runs.files import disk_errors, write_json
from reftcli.runs.folder import Run
from reftcli.runs.ranks import ALONE, Ranks
from reftcli.sampling.interface import Decode

if TYPE_CHECKING:  # it loads torch, which `vote` does without
    from reftcli.evaluation.experiment import Experiment


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
    sampling: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """How the completions were drawn."""

    def to_json(self) -> dict[str, Any]:
        """The contract's keys, and how it was sampled and graded."""
        row = self.results.to_json(self.run, self.dataset, self.split, str(self.samples_file))
        lm_eval = {"lm_eval": dict(self.lm_eval)} if self.lm_eval else {}
        return {**row, **lm_eval, "sampling": dict(self.sampling), "grader": dict(self.grader)}


def evaluate(
    run: Run,
    experiment: Experiment,
    problems: Sequence[Problem],
    split: Split,
    k: int | None,
    label: str,
    *,
    resume: bool = False,
    request: Mapping[str, Any] | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Greedy answers, and ``k`` sampled ones for voting, to all the problems; written as they come.

    An evaluation of the same that was stopped is gone on with, and gives what it would have given.

    Args:
        label: part of the file names: ``samples/LABEL.jsonl`` and ``eval/LABEL.json``; numbered where such results
            stand already, because nothing is overwritten.
        resume: there must be such an unfinished evaluation.
        request: kept beside the unfinished samples, for who goes on with them.
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
    with ExitStack() as held:
        label, done = on_main(ranks, lambda: _begun(run, label, experiment, wanted, resume, held))
        partial = Partial(run.samples_file(label))
        fill(experiment, wanted, partial, done, ranks)
        return on_main(ranks, lambda: _finished(run, experiment, problems, label, partial))


def _begun(
    run: Run, label: str, experiment: Experiment, wanted: SamplingPass, resume: bool, held: ExitStack
) -> tuple[str, frozenset[int]]:
    """The label to write under, locked, and the chunks done so far: of an unfinished evaluation of the same, or new."""
    identity = identity_of(experiment, wanted)
    reasons = []
    for name in unfinished_labels(run, label):
        partial = Partial(run.samples_file(name))
        if changed := differences(partial.plan()["identity"], identity):
            reasons.append(f"{partial.plan_file} was begun with other settings ({changed})")
        elif not held.enter_context(partial.locked()):
            reasons.append(f"{partial.plan_file} is being worked on by another process")
        else:
            return name, begin(partial, identity, wanted)
    if resume and reasons:
        raise UsageError(f"{reasons[0]}; ask for the same, or leave out --resume to begin another one")
    if resume:
        raise NothingToStartFrom(f"no unfinished evaluation {label!r} in {run.folder}; leave out --resume")
    for number in itertools.count(1):
        name = label if number == 1 else f"{label}-{number}"
        partial = Partial(run.samples_file(name))
        taken = partial.file.exists() or run.results_file(name).exists() or partial.exists
        if not taken and held.enter_context(partial.locked()):
            return name, begin(partial, identity, wanted)
    raise AssertionError("there is always another number")


def unfinished_labels(run: Run, label: str) -> list[str]:
    """Labels under which unfinished evaluations stand, newest first: ``test-2``, ``test``."""
    found = []
    for file in run.samples.glob("*.partial.json"):
        name = file.name.removesuffix(".partial.json")
        number = name.removeprefix(label).removeprefix("-") or "1"
        if name.startswith(label) and number.isdigit():
            found.append((int(number), name))
    return [name for _, name in sorted(found, reverse=True)]


def _finished(
    run: Run, experiment: Experiment, problems: Sequence[Problem], label: str, partial: Partial
) -> Evaluation:
    """Results of a complete samples file; only when they stand, too, the unfinished form of it goes."""
    write_json(grader_file(partial.file), experiment.grader.spec)
    evaluation = _evaluation(run, experiment, problems, iter_samples(partial.file), label)
    write_json(run.results_file(label), evaluation.to_json())
    partial.clear()
    return evaluation


def collect(
    experiment: Experiment,
    problems: Sequence[Problem],
    split: Split,
    n: int,
    decode: Decode,
    file: Path,
    ranks: Ranks = ALONE,
) -> list[SampleRecord]:
    """``n`` graded completions of each problem, in a samples file that is complete or absent.

    What an interrupted call left beside the file is gone on with.

    Raises:
        Interrupted: somebody asked to stop; what was done is kept.
        UsageError: what is there was begun with other settings.
    """
    wanted = SamplingPass(problems, split, [Pass(decode, n)])
    partial = Partial(file)
    with ExitStack() as held:

        def begun() -> frozenset[int]:
            if not held.enter_context(partial.locked()):
                raise UsageError(f"{file} is being worked on by another process")
            return begin(partial, identity_of(experiment, wanted), wanted)

        done = on_main(ranks, begun)
        fill(experiment, wanted, partial, done, ranks)
        on_main(ranks, partial.clear)
    return read_samples(file)


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


def recount(
    samples_file: Path,
    grader: Grader,
    answer: AnswerKind,
    ks: Sequence[int] | None,
    seed: int,
    rule: VoteRule = PLAIN_VOTE,
) -> tuple[Results, str]:
    """Every number again from saved samples; no model is loaded. Returns the results and the split.

    Raises:
        UsageError, DataError: the file cannot be read or has bad rows.
    """
    problems: dict[str, Problem] = {}
    splits: list[str] = []

    def rows() -> Iterator[SampleRecord]:
        for record in iter_samples(samples_file):
            if record.item_id not in problems:
                problems[record.item_id] = Problem(record.item_id, record.prompt, record.gold_answer, answer)
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
    return _derived(book, problems, grader, ks, seed, rule), splits[0]


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
    scores: Mapping[tuple[str, int], float],
    label: str,
) -> Evaluation:
    """Results with rerank@k, from p(correct) by (item_id, sample_index); rows with scores go to the samples file."""
    file = run.samples_file(label)
    with _written_aside(file) as lines:
        for record in records:
            lines.write(json.dumps(_scored(record, scores).to_json(), ensure_ascii=False) + "\n")
    write_json(grader_file(file), experiment.grader.spec)
    evaluation = _evaluation(run, experiment, problems, iter_samples(file), label)
    write_json(run.results_file(label), evaluation.to_json())
    return evaluation


def _scored(record: SampleRecord, scores: Mapping[tuple[str, int], float]) -> SampleRecord:
    score = scores.get((record.item_id, record.sample_index))
    return record if score is None or record.decoding == "greedy" else dataclasses.replace(record, rm_score=score)


@contextmanager
def _written_aside(file: Path) -> Iterator[IO[str]]:
    """A file that takes its place when the block succeeds."""
    aside = file.with_name(f".{file.name}.{os.getpid()}.partial")
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("w", encoding="utf-8") as lines:
                yield lines
                lines.flush()
                os.fsync(lines.fileno())
            os.replace(aside, file)
        finally:
            aside.unlink(missing_ok=True)


def _evaluation(
    run: Run, experiment: Experiment, problems: Sequence[Problem], records: Iterable[SampleRecord], label: str
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
        sampling=_stated(recipe.sampling, recipe.seed) if results.samples_per_problem else {},
    )


def _stated(settings: SamplingSettings, seed: int) -> dict[str, Any]:
    """The settings of the sampled completions."""
    names = ("temperature", "top_k", "top_p", "max_new_tokens", "backend")
    return {**{name: getattr(settings, name) for name in names}, "seed": seed}
