"""What an evaluation is asked for, where its results go, and how an unfinished one is found again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reftcli.errors import NothingToStartFrom

if TYPE_CHECKING:
    from reftcli.cli.start import Start
    from reftcli.problems.load import ProblemSets
    from reftcli.runs.folder import Run


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be measured. `to_json` is kept beside unfinished samples, `from_json` goes on with them."""

    start: Start
    split: Any
    k: int | None
    reward_model: str | None
    whole_file: str | None
    limit: int | None
    goes_on_in: Run | None = None
    """The run in whose folder the unfinished samples were found."""

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
    def from_json(cls, row: dict[str, Any], plan_file: Path) -> Asked:
        from reftcli.cli.start import Start
        from reftcli.models.source import resolve_model
        from reftcli.recipe.layers import check_recipe
        from reftcli.runs.folder import open_run

        where = str(plan_file)
        run = open_run(Path(row["run"])) if row["run"] else None
        source = resolve_model(row["model"], row["revision"])
        start = Start(source, run, check_recipe(row["recipe"], where), f"going on with {where}: {source.describe()}")
        goes_on_in = open_run(plan_file.parent.parent)
        return cls(start, row["split"], row["k"], row["reward_model"], row["whole_file"], row["limit"], goes_on_in)


def latest_stopped(runs_dir: Path, name: str | None) -> Asked:
    """What the newest unfinished evaluation was asked for, or that of a run."""
    from reftcli.evaluation.partial import Partial

    plans = sorted(runs_dir.glob(f"{name or '*'}/samples/*.partial.json"), key=lambda file: file.stat().st_mtime_ns)
    for file in reversed(plans):
        request = Partial(file.with_name(file.name.replace(".partial.json", ".jsonl"))).plan()["request"]
        if request:
            return Asked.from_json(request, file)
    raise NothingToStartFrom(f"no unfinished evaluation in {runs_dir / name if name else runs_dir}; leave out --resume")


def run_for(asked: Asked, sets: ProblemSets, name: str | None, runs_dir: Path, resume: bool) -> tuple[Run, bool]:
    """Where the results go, and whether that is a run of this evaluation's own.

    Results of a run stand in its folder; those of a bare model get one of their own, as do those with a --name.
    """
    from reftcli.training.stages import StageRequest, new_run

    start = asked.start
    assert start.source is not None
    if asked.goes_on_in is not None:
        return asked.goes_on_in, asked.goes_on_in.record()["stage"] == "eval"
    if start.run is not None and name is None:
        return start.run, False
    if resume:
        return _stopped_run(asked, name, runs_dir), True
    return new_run(StageRequest(start.recipe, sets, start.source, runs_dir, name, start.run), "eval"), True


def _stopped_run(asked: Asked, name: str | None, runs_dir: Path) -> Run:
    """An unfinished run of its own: the named one, else the newest that was asked for the same, else the newest."""
    from reftcli.cli.find_runs import run_to_resume
    from reftcli.evaluation.partial import Partial
    from reftcli.runs.folder import all_runs

    label = label_of(asked, own=True)
    for run in reversed(all_runs(runs_dir)) if name is None else []:
        partial = Partial(run.samples_file(label))
        if run.record().get("stage") == "eval" and partial.exists and partial.plan()["request"] == asked.to_json():
            return run
    return run_to_resume(runs_dir, "eval", name)


def label_of(asked: Asked, own: bool) -> str:
    """Names the files of these results; only a run's own data set and weights write ``test``, which vote and rerank
    read.

    Args:
        own: they stand in a run of their own, which holds nothing else.
    """
    start = asked.start
    weights = "" if own else _other_weights(start)
    if asked.whole_file is not None:
        return f"{weights}file-{Path(asked.whole_file).stem}"
    dataset = start.recipe.data.dataset
    if start.run is None or start.run.record().get("dataset") == dataset:
        return f"{weights}{asked.split}"
    return f"{weights}{Path(dataset).stem}-{asked.split}"


def _other_weights(start: Start) -> str:
    """``step-1-`` for a checkpoint; nothing for the weights that the run stands for."""
    from reftcli.cli.find_runs import own_weights

    if start.run is None or start.source is None or start.source.kind != "folder":
        return ""
    folder, run_folder = Path(start.source.target).resolve(), start.run.folder.resolve()
    if folder == own_weights(start.run).resolve():
        return ""
    parts = folder.relative_to(run_folder).parts if folder.is_relative_to(run_folder) else (folder.name,)
    return "".join(f"{part}-" for part in parts if part not in ("checkpoints", "model"))
