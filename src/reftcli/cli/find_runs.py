"""Which run a name means, and what it holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reftcli.errors import NothingLeftToDo, NothingToStartFrom, UsageError
from reftcli.evaluation.saved import Needs, SavedEvaluation, base_labels, evaluation_of, newest_evaluation
from reftcli.models.source import ModelSource, resolve_model
from reftcli.runs.folder import Run, Stage, all_runs, latest_finished, open_run


def named_run(from_: str | None, runs_dir: Path) -> Run:
    """A run for commands that load no model: the named one, or the latest finished RL run.

    Raises:
        UsageError, NothingToStartFrom: none.
    """
    if from_ is not None:
        run = run_named(from_, runs_dir)
        if run is None:
            raise UsageError(f"no run {from_!r}: neither a run's folder nor a name in {runs_dir}; see `reft runs`")
        return run
    latest = latest_finished(runs_dir, "rl")
    if latest is None:
        raise NothingToStartFrom(f"no finished RL run in {runs_dir}: first run `reft rl`")
    return latest


def reward_model_of(name: str, runs_dir: Path) -> Path:
    """The folder of a rerank run's reward model.

    Raises:
        UsageError: no such run, or it holds none.
    """
    run = named_run(name, runs_dir)
    record = run.record()
    if record["stage"] != "rerank" or not (run.final / "config.json").is_file():
        raise UsageError(f"{run.folder} holds no reward model (stage {record['stage']}, {record['status']})")
    return run.final


def warmup_of(policy: Run, source: ModelSource) -> ModelSource:
    """The warm-up model behind a policy: what an RL run started from; of a warm-up run its own ``source``."""
    return source_of_run(policy) if policy.record()["stage"] == "rl" else source


def reranked_run(rerank: Run, runs_dir: Path) -> Run:
    """The run whose candidates an unfinished rerank run picks from.

    Raises:
        UsageError: it is gone.
    """
    return named_run(str(rerank.record()["parent"]), runs_dir)


def run_to_resume(runs_dir: Path, stage: Stage, name: str | None) -> Run:
    """The run that `--resume` goes on with.

    Raises:
        UsageError: no such run, another stage, or nothing left to do.
    """
    if name is not None:
        run = named_run(name, runs_dir)
    else:
        unfinished = [run for run in all_runs(runs_dir) if _can_resume(run, stage)]
        if not unfinished:
            raise NothingToStartFrom(f"no unfinished {stage} run in {runs_dir} to resume")
        run = unfinished[-1]
    record = run.record()
    if record["stage"] != stage:
        raise UsageError(f"{run.folder} is a {record['stage']} run, not {stage}")
    if record["status"] == "finished":
        raise NothingLeftToDo(f"{run.folder} has finished; there is nothing left to do")
    return run


def _can_resume(run: Run, stage: Stage) -> bool:
    record = run.record()
    return record.get("stage") == stage and record.get("status") != "finished"


def run_named(from_: str, runs_dir: Path) -> Run | None:
    """The run in a folder or of a name; None where there is none."""
    for folder in (Path(from_), runs_dir / from_):
        if (folder / "run.json").is_file():
            return open_run(folder)
    return None


def run_above(path: Path) -> Run | None:
    """The run that a checkpoint folder belongs to."""
    for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
        if (folder / "run.json").is_file():
            return open_run(folder)
    return None


def source_of_run(run: Run) -> ModelSource:
    """The model that a run started from, as its record says."""
    model = run.record()["model"]
    if model["source"] == "folder":
        return resolve_model(model["target"])
    return resolve_model(model["name"], model.get("revision"))


def own_weights(run: Run) -> Path:
    """The folder of the weights that a run stands for."""
    return run.best if run.record()["stage"] == "rl" else run.final


def weights_of(run: Run) -> ModelSource:
    """A warm-up's last weights (its stop is a setting), an RL run's best ones on validation."""
    stage = run.record()["stage"]
    if stage == "rerank":
        raise UsageError(
            f"{run.folder} holds a reward model, which writes no answers; use it with "
            f"`reft eval --majority-vote K --reward-model {run.name}`"
        )
    folder = own_weights(run)
    if not (folder / "config.json").is_file():
        raise UsageError(f"{run.folder} has no weights in {folder.name}/ (stage {stage}, {run.record()['status']})")
    return resolve_model(str(folder))


def is_finished(run: Run, stage: Stage) -> bool:
    """Whether a run of this stage has finished."""
    record = run.record()
    return record.get("stage") == stage and record.get("status") == "finished"


_OF_OTHER_WEIGHTS = re.compile(r"(step-\d+|best|final)-")
"""How the labels of evaluations begin that are not of the weights that their run stands for."""


@dataclass(frozen=True, slots=True)
class FoundSamples:
    """A samples file, the run in whose folder it stands, and the evaluation that it is of; None where there is none."""

    file: Path
    run: Run | None
    evaluation: SavedEvaluation | None
    named: bool
    """Whether a person named the file; else it was chosen among those of the run."""


def find_samples(
    source: str | None, runs_dir: Path, split: str | None = None, preferred: Sequence[Needs] = ()
) -> FoundSamples:
    """The samples that a file's or a run's name means.

    Args:
        split: None takes the test split, or what else the run has if that is one thing only, and of its own weights.
        preferred: which of several evaluations of a run, see `newest_evaluation`.

    Raises:
        UsageError: there are none.
    """
    if source is not None and Path(source).is_file():
        file = Path(source)
        folder = file.parent.parent
        run = open_run(folder) if (folder / "run.json").is_file() else None
        return FoundSamples(file, run, evaluation_of(file) if run else None, named=True)
    if source is not None and not Path(source).exists() and source.endswith((".jsonl", ".json")):
        raise UsageError(f"no samples file {source!r}")
    run = named_run(source, runs_dir)
    labels = base_labels(run)
    only = labels[0] if len(labels) == 1 and not _OF_OTHER_WEIGHTS.match(labels[0]) else None
    label = split or only or "test"
    newest = newest_evaluation(run, label, preferred)
    if newest is None:
        raise UsageError(f"{run.folder} has no samples/{label}.jsonl; {_what_to_do(run, labels, split)}")
    return FoundSamples(newest.samples_file, run, newest, named=False)


def _what_to_do(run: Run, labels: Sequence[str], split: str | None) -> str:
    if labels:
        return f"name one of what it has: {', '.join(str(run.samples_file(label)) for label in labels)}"
    if run.record()["stage"] == "eval":
        return "`reft eval --resume` goes on with what is unfinished"
    asked = f" --split {split}" if split not in (None, "test") else ""
    return f"run `reft eval {run.name}{asked} --majority-vote 100` first"
