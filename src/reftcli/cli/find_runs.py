"""Which run a name means, and what it holds."""

from __future__ import annotations

from pathlib import Path

from reftcli.errors import NothingLeftToDo, NothingToStartFrom, UsageError
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


def weights_of(run: Run) -> ModelSource:
    """A warm-up's last weights (its stop is a setting), an RL run's best ones on validation."""
    stage = run.record()["stage"]
    if stage == "rerank":
        raise UsageError(
            f"{run.folder} holds a reward model, which writes no answers; use it with "
            f"`reft eval --majority-vote K --reward-model {run.name}`"
        )
    folder = run.best if stage == "rl" else run.final
    if not (folder / "config.json").is_file():
        raise UsageError(f"{run.folder} has no weights in {folder.name}/ (stage {stage}, {run.record()['status']})")
    return resolve_model(str(folder))


def is_finished(run: Run, stage: Stage) -> bool:
    """Whether a run of this stage has finished."""
    record = run.record()
    return record.get("stage") == stage and record.get("status") == "finished"
