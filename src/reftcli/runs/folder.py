"""A run's folder ``runs/<name>/``: its record, its files, and how a later stage finds it."""

from __future__ import annotations

import itertools
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from reftcli.errors import Interrupted, ReftError, UsageError
from reftcli.runs.files import JsonlWriter, clear_what_a_crash_left, disk_errors, locked, write_json, write_text

Stage = Literal["warmup", "rl", "rerank", "eval"]
Status = Literal["running", "finished", "interrupted", "failed"]

_PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "peft", "deepspeed", "vllm")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Run:
    """Where the files of one run stand. Made by `create_run` or `open_run`."""

    folder: Path
    writes: bool = True
    """False on all but one of several processes: what they write goes nowhere."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def record_file(self) -> Path:
        return self.folder / "run.json"

    @property
    def recipe_file(self) -> Path:
        return self.folder / "recipe.yaml"

    @property
    def metrics_file(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def best(self) -> Path:
        return self.folder / "best"

    @property
    def final(self) -> Path:
        return self.folder / "final"

    @property
    def results(self) -> Path:
        return self.folder / "eval"

    @property
    def report_file(self) -> Path:
        return self.folder / "report.html"

    def record(self) -> dict[str, Any]:
        """The content of ``run.json``."""
        try:
            record: dict[str, Any] = json.loads(self.record_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.folder} is not a run: {error}") from error
        return record

    def update_record(self, **fields: Any) -> None:
        """Sets fields of ``run.json``."""
        if self.writes:
            write_json(self.record_file, {**self.record(), **fields})

    def rows(self, file: Path) -> JsonlWriter:
        """Opens one of the run's ``.jsonl`` files for appending."""
        return JsonlWriter(file if self.writes else Path(os.devnull))

    def metrics(self) -> JsonlWriter:
        """Opens ``metrics.jsonl`` for appending."""
        return self.rows(self.metrics_file)

    def write_json(self, file: Path, value: Mapping[str, Any]) -> None:
        """Writes one of the run's ``.json`` files."""
        if self.writes:
            write_json(file, value)

    def step_folders(self) -> list[tuple[int, Path]]:
        """Complete checkpoints, oldest first."""
        found = []
        for folder in self.checkpoints.glob("step-*"):
            number = folder.name.removeprefix("step-")
            if number.isdigit() and folder.is_dir():
                found.append((int(number), folder))
        return sorted(found)

    def free_label(self, label: str) -> str:
        """``label``, or ``label-2``, ``label-3``, ... : the first under which no results stand yet."""
        candidates = itertools.chain([label], (f"{label}-{n}" for n in itertools.count(2)))
        return next(c for c in candidates if not self.samples_file(c).exists() and not self.results_file(c).exists())

    def labels(self, label: str) -> list[str]:
        """Labels under which complete evaluations stand, newest first: ``test-2``, ``test``."""
        found = []
        for file in self.results.glob(f"{label}*.json"):
            number = file.stem.removeprefix(label).removeprefix("-") or "1"
            if number.isdigit() and self.samples_file(file.stem).is_file():
                found.append((int(number), file.stem))
        return [stem for _, stem in sorted(found, reverse=True)]

    def samples_file(self, label: str) -> Path:
        """Where the completions of an evaluation stand."""
        return self.samples / f"{label}.jsonl"

    def results_file(self, label: str) -> Path:
        """Where the numbers of an evaluation stand."""
        return self.results / f"{label}.json"

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Writes how the block ended into ``run.json``: finished, interrupted or failed with the reason.

        Raises:
            UsageError: another process is at work on this run.
        """
        if not self.writes:
            yield
            return
        with locked(self.folder) as alone:
            if not alone:
                raise UsageError(f"{self.folder}: another process is at work on this run; wait for it, or end it")
            for folder in (self.folder, self.checkpoints):
                clear_what_a_crash_left(folder)
            with self._end_recorded():
                yield

    @contextmanager
    def _end_recorded(self) -> Iterator[None]:
        if self.record().get("status") != "running":
            self.update_record(status="running", ended=None, error=None)
        try:
            yield
        except (Interrupted, KeyboardInterrupt):
            self._end("interrupted")
            raise
        except BaseException as error:
            self._end("failed", error=str(error) if isinstance(error, ReftError) else repr(error))
            raise
        self._end("finished")

    def _end(self, status: Status, **fields: Any) -> None:
        try:
            self.update_record(status=status, ended=_now(), **fields)
        except ReftError:
            if status == "finished":
                raise
            # The disk that cannot take the record is usually what ended the run: that first error is the one to show.


def create_run(
    runs_dir: Path,
    *,
    stage: Stage,
    name: str | None,
    recipe_yaml: str,
    record: Mapping[str, Any],
) -> Run:
    """Makes a new folder and its ``run.json`` with status running; never touches an existing run.

    Args:
        name: the folder's name; made from the stage and the time where None.
        record: the fields that the stage knows: parent, seed, model, data, world_size, ...

    Raises:
        UsageError: a run of that name exists, or the name is not a plain folder name.
        RuntimeFailure: the folder cannot be written.
    """
    check_name(runs_dir, name)
    folder = runs_dir / (name or _free_name(runs_dir, stage))
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise UsageError(_exists(folder)) from None
        except NotADirectoryError:
            raise UsageError(f"{runs_dir} is not a folder; choose another --runs-dir") from None
    run = Run(folder)
    write_text(run.recipe_file, recipe_yaml)
    base = {
        "stage": stage,
        "status": "running",
        "started": _now(),
        "ended": None,
        "command": " ".join(["reft", *sys.argv[1:]]),
        "versions": package_versions(),
        "hardware": _hardware(),
    }
    write_json(run.record_file, {**base, **record})
    return run


def check_name(runs_dir: Path, name: str | None) -> None:
    """Whether a new run can have this name; None is a name that will be made.

    Raises:
        UsageError: a run of that name exists, or the name is not a plain folder name.
    """
    if name is None:
        return
    if Path(name).name != name or name.startswith(".") or not 0 < len(name.encode()) <= 200:
        raise UsageError(f"--name {name!r} must be a plain folder name")
    if (runs_dir / name).exists():
        raise UsageError(_exists(runs_dir / name))


def _exists(folder: Path) -> str:
    return f"run {folder} exists; choose another --name, or go on with it by --resume"


def _free_name(runs_dir: Path, stage: Stage) -> str:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    name, n = f"{stage}-{stamp}", 2
    while (runs_dir / name).exists():
        name, n = f"{stage}-{stamp}-{n}", n + 1
    return name


def open_run(path: Path) -> Run:
    """The run in a folder.

    Raises:
        UsageError: there is no ``run.json``.
    """
    if not (path / "run.json").is_file():
        raise UsageError(f"{path} is not a run: it has no run.json")
    return Run(path)


def all_runs(runs_dir: Path) -> list[Run]:
    """Every run below a folder, oldest first by the time it started."""
    runs = [Run(file.parent) for file in runs_dir.glob("*/run.json")] if runs_dir.is_dir() else []
    return sorted(runs, key=lambda run: (str(run.record().get("started", "")), run.record_file.stat().st_mtime_ns))


def latest_finished(runs_dir: Path, stage: Stage, **wanted: Any) -> Run | None:
    """The newest finished run of a stage whose record has these fields."""
    for run in reversed(all_runs(runs_dir)):
        record = run.record()
        if record.get("stage") != stage or record.get("status") != "finished":
            continue
        if all(record.get(key) == value for key, value in wanted.items()):
            return run
    return None


def package_versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str | None]:
    """Installed versions of the packages a result depends on; None where one is absent."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("reftcli", *packages):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


def _hardware() -> dict[str, Any]:
    return {"machine": platform.machine(), "system": platform.platform(), "cpus": os.cpu_count()}
