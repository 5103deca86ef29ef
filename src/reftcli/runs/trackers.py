"""Where metrics go besides ``metrics.jsonl``, which is always written and is the source: TensorBoard, W&B, trackio.

A tracker is other people's code that may talk to other people's machines. Asking for one that is not installed is
said before any work starts; whatever goes wrong later costs one warning, and never the run.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from typing import Any, Protocol

from reftcli.errors import UsageError
from reftcli.runs.files import JsonlWriter
from reftcli.runs.folder import Run

_PROJECT = "reft"
"""Name of the project at W&B and trackio, where WANDB_PROJECT or TRACKIO_PROJECT names no other."""
_NOT_METRICS = ("step", "time")


class Tracker(Protocol):
    """Shows metrics somewhere. ``where`` tells people how to look at them."""

    where: str

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Metrics of a step; a step may come in several rows."""
        ...

    def close(self, failed: bool) -> None:
        """Hands on what is left. ``failed``: the stage did not get to its end."""
        ...


class TensorBoardTracker:
    """Event files in ``tensorboard/`` of the run's folder; a resumed run adds a file to them."""

    def __init__(self, run: Run, settings: Mapping[str, Any]) -> None:
        summary = import_module("tensorboard.summary")  # torch's writer is the same, and would load torch
        folder = run.folder / "tensorboard"
        self.where = f"tensorboard --logdir {folder}"
        self._writer = summary.Writer(str(folder))

    def log(self, step: int, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, failed: bool) -> None:
        self._writer.close()


class WandbTracker:
    """A run at W&B, its files in the run's folder. Its id is kept in ``run.json``: a resumed run goes on with it."""

    def __init__(self, run: Run, settings: Mapping[str, Any]) -> None:
        wandb = import_module("wandb")
        id_ = _known(run, "wandb") or uuid.uuid4().hex[:12]
        _keep(run, "wandb", id_)  # before init, which may create the run and then fail
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or _PROJECT,
            name=run.name,
            id=id_,
            resume="allow",
            dir=str(run.folder),
            config=dict(settings),
            settings=wandb.Settings(quiet=True, console="off"),
        )
        # Steps that W&B knows already come again after a crash, with the same values; W&B would complain of each.
        self._first_step = int(self._run.step)
        self.where = f"wandb sync {run.folder}/wandb/offline-run-*" if self._run.offline else str(self._run.url)

    def log(self, step: int, row: Mapping[str, float]) -> None:
        if step >= self._first_step:
            self._run.log(dict(row), step=step)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class TrackioTracker:
    """A run of trackio, which keeps it where TRACKIO_DIR says. Its name is kept in ``run.json``."""

    def __init__(self, run: Run, settings: Mapping[str, Any]) -> None:
        self._trackio = trackio = import_module("trackio")
        known = _known(run, "trackio")
        project = os.environ.get("TRACKIO_PROJECT") or _PROJECT
        self._run = trackio.init(
            project=project,
            name=known or run.name,
            config=dict(settings),
            # "never" finds another name where somebody else's run has this one.
            resume="allow" if known else "never",
        )
        _keep(run, "trackio", self._run.name)
        self.where = f"trackio show --project {project}"

    def log(self, step: int, row: Mapping[str, float]) -> None:
        self._run.log(dict(row), step=step)

    def close(self, failed: bool) -> None:
        self._trackio.finish()  # the run's own finish() lets trackio finish it again, on standard output, at exit


_MAKERS: Mapping[str, Callable[[Run, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
    "trackio": TrackioTracker,
}
_NEEDED = {"tensorboard": ("tensorboard.summary", "Writer"), "wandb": ("wandb", "init"), "trackio": ("trackio", "init")}
"""What must be importable. The attribute, too: a folder called ``wandb`` can be imported as well."""
TRACKERS = tuple(_MAKERS)
"""Names of the trackers that there are."""


def check_trackers(names: Sequence[str]) -> None:
    """Whether the trackers that are asked for can be used here.

    Raises:
        UsageError: packages are missing; all of them are named.
    """
    missing = {name: why for name in names if (why := _why_not(*_NEEDED[name]))}
    if missing:
        raise UsageError(
            f"--report-to {','.join(missing)}: not usable here ({'; '.join(missing.values())}); "
            f"pip install {' '.join(missing)}, or leave it out: metrics.jsonl is always written"
        )


def _why_not(module: str, attribute: str) -> str:
    """Why it cannot be imported; empty where it can."""
    try:
        return "" if hasattr(import_module(module), attribute) else f"{module} has no {attribute}"
    except Exception as error:  # noqa: BLE001 - a package that does not fit others fails in its own way
        return " ".join(str(error).split())[:200] or type(error).__name__


class Trackers:
    """The trackers of a stage. A tracker that fails is left out from then on, with one warning."""

    def __init__(self, prefix: str, say: Callable[[str], None]) -> None:
        self._prefix, self._say = prefix, say
        self._open: dict[str, Tracker] = {}

    def open(self, name: str, run: Run, settings: Mapping[str, Any]) -> None:
        """Adds a tracker and says where to look at it."""
        with self._forgiven(name):
            self._open[name] = _MAKERS[name](run, settings)
            self._say(f"metrics also go to {name}: {self._open[name].where}")

    def log(self, row: Mapping[str, Any]) -> None:
        """Hands on the metrics of a row of ``metrics.jsonl``."""
        metrics = metrics_of(self._prefix, row)
        for name, tracker in list(self._open.items()):
            with self._forgiven(name):
                tracker.log(int(row["step"]), metrics)

    def close(self, failed: bool) -> None:
        for name, tracker in list(self._open.items()):
            with self._forgiven(name):
                tracker.close(failed)
        self._open.clear()

    @contextmanager
    def _forgiven(self, name: str) -> Iterator[None]:
        """The boundary to a tracker's code: it may fail, and it may not print where ``--json`` prints."""
        try:
            with redirect_stdout(sys.stderr):
                yield
        except Exception as error:  # noqa: BLE001 - whatever it is, a run is worth more than its copy
            self._open.pop(name, None)
            reason = " ".join(str(error).split()) or type(error).__name__
            self._say(f"warning: {name} gets no more metrics, the run goes on (metrics.jsonl has them): {reason[:200]}")


@contextmanager
def open_trackers(
    names: Sequence[str], run: Run, prefix: str, settings: Mapping[str, Any], say: Callable[[str], None]
) -> Iterator[Trackers]:
    """The trackers of a stage, closed at its end, however it ends.

    Args:
        prefix: stands before the names of metrics: ``rl`` makes ``rl/kl``.
        settings: shown by trackers beside the metrics.
    """
    trackers = Trackers(prefix, say)
    failed = True
    try:
        for name in names if run.writes else ():
            trackers.open(name, run, settings)
        yield trackers
        failed = False
    finally:
        trackers.close(failed)


def metrics_of(prefix: str, row: Mapping[str, Any]) -> dict[str, float]:
    """A row's numbers under the names that trackers show: ``rl/kl``, ``warmup/loss``, ``val/accuracy``."""
    return {
        f"val/{key.removeprefix('val_')}" if key.startswith("val_") else f"{prefix}/{key}": float(value)
        for key, value in row.items()
        if key not in _NOT_METRICS and isinstance(value, int | float) and not isinstance(value, bool)
    }


class MetricsLog:
    """``metrics.jsonl`` of a run; what it has written goes to the trackers."""

    def __init__(self, run: Run, trackers: Trackers | None = None) -> None:
        self._file: JsonlWriter = run.metrics()
        self._trackers = trackers

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends one row, which has a ``step``."""
        self._file.write(row)
        if self._trackers is not None:
            self._trackers.log(row)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _known(run: Run, tracker: str) -> str | None:
    found = run.record().get("trackers", {}).get(tracker)
    return None if found is None else str(found)


def _keep(run: Run, tracker: str, name: str) -> None:
    run.update_record(trackers={**run.record().get("trackers", {}), tracker: name})
