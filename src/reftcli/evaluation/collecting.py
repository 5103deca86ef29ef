"""The sampling pass: chunk after chunk, graded while the next one is drawn, by one process or several, resumable."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from reftcli.errors import Interrupted, ReftError, UsageError
from reftcli.evaluation.chunks import Chunk, Pass, plan_chunks
from reftcli.evaluation.partial import Partial
from reftcli.evaluation.samples import SampleRecord, read_samples
from reftcli.problems.record import Problem, Split
from reftcli.runs.interrupts import StopRequest, stop_on_signal
from reftcli.runs.progress import Task
from reftcli.runs.ranks import ALONE, Ranks
from reftcli.sampling.interface import Decode

if TYPE_CHECKING:  # it loads torch, which `vote` does without
    from reftcli.evaluation.answering import Drawn
    from reftcli.evaluation.experiment import Experiment

BATCHES_PER_CHUNK = 8
"""Batches in a chunk: what a crash loses. Smaller ones would leave slots of the sampler empty at their ends."""

_FORMAT = 1
"""Of the files of unfinished passes, and of how chunks are cut."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SamplingPass:
    """What is drawn, and for which problems."""

    problems: Sequence[Problem]
    split: Split
    passes: Sequence[Pass]
    request: Mapping[str, Any] = field(default_factory=dict)
    """What a caller needs to ask for the same again; kept beside the unfinished samples."""
    go_on: str = ""
    """The end of the line that says that the pass was stopped."""

    def chunks(self, experiment: Experiment) -> list[Chunk]:
        return plan_chunks(len(self.problems), self.passes, BATCHES_PER_CHUNK * experiment.recipe.sampling.batch_size)

    @property
    def completions(self) -> int:
        return len(self.problems) * sum(one.n for one in self.passes)


def identity_of(experiment: Experiment, wanted: SamplingPass) -> dict[str, Any]:
    """All that the rows of a samples file depend on, as plain data: equal for the same samples, bit for bit."""
    from reftcli.models.load import weights_sha256

    recipe, loaded = experiment.recipe, experiment.loaded
    prompts = hashlib.sha256()
    for problem in wanted.problems:
        ids = experiment.builder.prompt(problem).token_ids
        row = [problem.item_id, problem.gold_answer, problem.answer_kind, dict(problem.options), ids]
        prompts.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    identity = {
        "format": _FORMAT,
        "split": wanted.split,
        "problems": len(wanted.problems),
        "prompts and golds": prompts.hexdigest(),
        "weights": weights_sha256(experiment.source, loaded.model),
        "samples a problem": {one.decode.decoding: one.n for one in wanted.passes},
        "decoding": [dataclasses.asdict(one.decode) for one in wanted.passes],
        "sampling.backend": recipe.sampling.backend,
        "sampling.batch_size": recipe.sampling.batch_size,
        "model.precision": recipe.model.precision,
        "context": experiment.answerer.context,
        "grader": experiment.grader.spec,
        "rewards": dataclasses.asdict(experiment.answerer.rewards),
    }
    plain: dict[str, Any] = json.loads(json.dumps(identity, default=str))
    return plain


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two identities, in words: ``samples a problem: {"greedy": 1}, now {...}``."""
    found = []
    for key in now:
        if before.get(key) == now[key]:
            continue
        texts = [json.dumps(side.get(key)) for side in (before, now)]
        found.append(f"{key}: {texts[0]}, now {texts[1]}" if max(map(len, texts)) <= 60 else f"other {key}")
    return "; ".join(found)


def drawn_differently(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What makes saved rows others than those that would be drawn now, in words; how many each problem has does not.

    Nor do batches, precision and backend: they draw from the same distribution.
    """
    if not before:
        return "what they were drawn from is not recorded"
    keys = ("weights", "problems", "prompts and golds", "decoding", "context", "grader")
    return differences({key: before.get(key) for key in keys}, {key: now.get(key) for key in keys})


def begin(partial: Partial, identity: Mapping[str, Any], wanted: SamplingPass) -> frozenset[int]:
    """Makes the files ready, and returns the chunks that are done already. Call it in the lock."""
    if not partial.exists:
        for part in partial.parts:  # of a pass whose plan was removed
            part.write_bytes(b"")
        partial.begin(identity, wanted.request)
    elif changed := differences(partial.plan()["identity"], identity):
        raise UsageError(f"{partial.plan_file} is of another sampling pass ({changed}); remove it, or ask for the same")
    partial.drop_cut_off()
    return frozenset(partial.blocks())


def fill(experiment: Experiment, wanted: SamplingPass, partial: Partial, done: frozenset[int], ranks: Ranks) -> None:
    """Draws and grades what is left, this process its share; the main one then writes the samples file.

    Raises:
        Interrupted: somebody asked to stop; every chunk that was begun is done and kept.
    """
    chunks = wanted.chunks(experiment)
    mine = [chunk for chunk in chunks if chunk.number not in done][ranks.rank :: ranks.count]
    before = sum(chunk.completions for chunk in chunks if chunk.number in done) if ranks.is_main else 0
    total = before + sum(chunk.completions for chunk in mine)
    progress = experiment.progress
    title = wanted.split if ranks.count == 1 else f"{wanted.split}, a share of {ranks.count}"
    with stop_on_signal(progress.say) as stop, progress.task(title, total, "completion") as task:
        if before:
            progress.say(f"going on: {before:,} of {wanted.completions:,} completions are there already")
            task.advance(before)
        _work(experiment, wanted, partial, mine, ranks.rank, task, stop)
        stopped = any(ranks.gather(bool(stop)))
    kept = on_main(ranks, lambda: sum(block.rows for block in partial.blocks().values()))
    if stopped and kept < wanted.completions:
        raise Interrupted(
            f"stopped; {kept:,} of {wanted.completions:,} completions are kept beside {partial.file}{wanted.go_on}"
        )
    on_main(ranks, lambda: partial.merge(len(chunks)))


def _work(
    experiment: Experiment,
    wanted: SamplingPass,
    partial: Partial,
    chunks: Sequence[Chunk],
    rank: int,
    task: Task,
    stop: StopRequest,
) -> None:
    """One chunk is graded and written while the next is drawn; so two are in memory, and never more."""
    answerer = experiment.answerer

    def grade(chunk: Chunk, drawn: Drawn) -> None:
        problems = wanted.problems[chunk.start : chunk.end]
        records = answerer.graded(drawn, problems, wanted.split, chunk.n, chunk.decode)
        partial.append(rank, chunk.number, [record.to_json() for record in records])

    with ThreadPoolExecutor(1, "grading") as grading:
        graded: Future[None] | None = None
        for chunk in chunks:
            if stop:
                break
            drawn = answerer.drawn(wanted.problems[chunk.start : chunk.end], chunk.n, chunk.decode, task)
            if graded is not None:
                graded.result()
            graded = grading.submit(grade, chunk, drawn)
        if graded is not None:
            graded.result()


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


def on_main(ranks: Ranks, do: Callable[[], T]) -> T:
    """What ``do`` returns on the main process, on every rank; what it raises is raised on every rank."""
    outcome: tuple[T | None, ReftError | None] = (None, None)
    if ranks.is_main:
        try:
            outcome = (do(), None)
        except ReftError as error:
            outcome = (None, error)
    value, failed = ranks.from_main(outcome)
    if failed is not None:
        raise failed
    return value  # type: ignore[return-value]
