"""`reft eval` and `reft vote`: completions of a split to a samples file, and results derived from such files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reftcli.errors import DataError, Interrupted, UsageError
from reftcli.evaluation.lm_eval import is_gsm8k, lm_eval_measures
from reftcli.evaluation.results import Results, derive_results
from reftcli.evaluation.samples import SampleRecord, read_samples
from reftcli.grading.interface import Grader
from reftcli.problems.record import AnswerKind, Problem, Split
from reftcli.runs.files import JsonlWriter, write_json, write_text
from reftcli.runs.folder import Run
from reftcli.runs.interrupts import stop_on_signal
from reftcli.sampling.interface import Decode

if TYPE_CHECKING:  # it loads torch, which `vote` does without
    from reftcli.evaluation.experiment import Experiment

_ANSWERS_PER_CHUNK = 512
"""Completions that are decoded and graded before they are written: what Ctrl-C can lose."""


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

    def to_json(self) -> dict[str, Any]:
        """The contract's keys, and how it was graded."""
        row = self.results.to_json(self.run, self.dataset, self.split, str(self.samples_file))
        return {**row, **({"lm_eval": dict(self.lm_eval)} if self.lm_eval else {}), "grader": dict(self.grader)}


def evaluate(
    run: Run, experiment: Experiment, problems: Sequence[Problem], split: Split, k: int | None, label: str
) -> Evaluation:
    """Greedy answers, and ``k`` sampled ones for voting, to all the problems; written as they come.

    Args:
        label: part of the file names: ``samples/LABEL.jsonl`` and ``eval/LABEL.json``; numbered where such results
            stand already, because nothing is overwritten.

    Raises:
        DataError: there is no problem.
        Interrupted: somebody asked to stop; the samples so far are in the file.
    """
    if not problems:
        raise DataError(f"the split {split} has no problem")
    label = run.free_label(label)
    samples_file = run.samples_file(label)
    unfinished = samples_file.with_suffix(".partial.jsonl")
    unfinished.unlink(missing_ok=True)
    records: list[SampleRecord] = []
    for decode, n in _passes(experiment, k):
        records += collect(experiment, problems, split, n, decode, unfinished)
    unfinished.replace(samples_file)
    write_json(grader_file(samples_file), experiment.grader.spec)
    evaluation = _evaluation(run, experiment, problems, records, label)
    write_json(run.results_file(label), evaluation.to_json())
    return evaluation


def collect(
    experiment: Experiment, problems: Sequence[Problem], split: Split, n: int, decode: Decode, file: Path
) -> list[SampleRecord]:
    """``n`` graded completions of each problem, appended to a samples file as they come.

    Raises:
        Interrupted: somebody asked to stop; what was done is in the file.
    """
    records: list[SampleRecord] = []
    progress = experiment.progress
    with (
        JsonlWriter(file) as writer,
        stop_on_signal(progress.say) as stop,
        progress.task(f"{split}, {decode.decoding}", len(problems) * n, "completion") as task,
    ):
        for chunk in experiment.answerer.in_chunks(problems, split, n, decode, task, _ANSWERS_PER_CHUNK):
            records += chunk
            for record in chunk:
                writer.write(record.to_json())
            if stop:
                raise Interrupted(f"stopped; {len(records)} completions are in {file}")
    return records


def _passes(experiment: Experiment, k: int | None) -> list[tuple[Decode, int]]:
    settings = experiment.recipe.sampling
    passes = [(Decode("greedy", settings.max_new_tokens), 1)]
    if k:
        sampled = Decode(
            "sampled",
            settings.max_new_tokens,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            seed=experiment.recipe.seed,
        )
        passes.append((sampled, k))
    return passes


def grader_file(samples_file: Path) -> Path:
    """Where the specification of the grader of a samples file stands."""
    return samples_file.with_suffix(".grader.json")


def _derived(
    records: Sequence[SampleRecord],
    problems: Sequence[Problem],
    grader: Grader,
    ks: Sequence[int] | None,
    seed: int,
) -> Results:
    by_id = {problem.item_id: problem for problem in problems}

    def same_answer(item_id: str, a: str, b: str) -> bool:
        return grader.same_answer(by_id[item_id], a, b)

    return derive_results(records, same_answer, ks, seed)


def recount(
    samples_file: Path, grader: Grader, answer: AnswerKind, ks: Sequence[int] | None, seed: int
) -> tuple[Results, str]:
    """Every number again from saved samples; no model is loaded. Returns the results and the split.

    Raises:
        UsageError, DataError: the file cannot be read or has bad rows.
    """
    records = read_samples(samples_file)
    if not records:
        raise DataError(f"{samples_file}: no sample in it")
    if ks is not None:
        most = max((record.sample_index for record in records if record.decoding == "sampled"), default=-1) + 1
        if most == 0:
            raise DataError(f"{samples_file}: no sampled completion to vote with; use eval --majority-vote K")
        if max(ks) > most:
            raise UsageError(f"--k {max(ks)}: {samples_file} has {most} samples per problem")
    problems = {
        record.item_id: Problem(record.item_id, record.prompt, record.gold_answer, answer) for record in records
    }
    return _derived(records, list(problems.values()), grader, ks, seed), records[0].split


def _with_scores(records: Sequence[SampleRecord], scores: Mapping[tuple[str, int], float]) -> list[SampleRecord]:
    return [
        dataclasses.replace(record, rm_score=scores[record.item_id, record.sample_index])
        if (record.item_id, record.sample_index) in scores and record.decoding == "sampled"
        else record
        for record in records
    ]


def with_reranking(
    run: Run,
    experiment: Experiment,
    problems: Sequence[Problem],
    records: Sequence[SampleRecord],
    scores: Mapping[tuple[str, int], float],
    label: str,
) -> Evaluation:
    """Results with rerank@k, from p(correct) by (item_id, sample_index); rows with scores go to the samples file."""
    scored = _with_scores(records, scores)
    samples_file = run.samples_file(label)
    write_text(samples_file, "".join(json.dumps(record.to_json(), ensure_ascii=False) + "\n" for record in scored))
    write_json(grader_file(samples_file), experiment.grader.spec)
    evaluation = _evaluation(run, experiment, problems, scored, label)
    write_json(run.results_file(label), evaluation.to_json())
    return evaluation


def _evaluation(
    run: Run, experiment: Experiment, problems: Sequence[Problem], records: Sequence[SampleRecord], label: str
) -> Evaluation:
    recipe, spec = experiment.recipe, experiment.grader.spec
    results = _derived(records, problems, experiment.grader, None, recipe.seed)
    dataset = recipe.data.dataset
    comparable = is_gsm8k(problems, dataset)
    lm_eval = lm_eval_measures(records, recipe.data.cot, recipe.seed) if comparable else {}
    return Evaluation(run.name, dataset, records[0].split, results, run.samples_file(label), spec, lm_eval)
