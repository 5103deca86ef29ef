"""Trackers, with stand-ins for the packages, and TensorBoard itself where it is installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from reftcli.errors import UsageError
from reftcli.runs.files import read_jsonl
from reftcli.runs.folder import Run, create_run
from reftcli.runs.trackers import TRACKERS, MetricsLog, check_trackers, metrics_of, open_trackers

ROWS = ({"step": 1, "time": 7.5, "kl": 0.5, "warning": "kl"}, {"step": 1, "time": 8.0, "val_accuracy": 0.25})


class Recorder:
    """Stands in for what a tracker's package makes: a W&B run, a trackio run, a TensorBoard writer."""

    url = "https://tracker.test/1"
    step = 0
    offline = False

    def __init__(self, given: dict[str, Any], fails_at: int | None = None) -> None:
        self.given, self.fails_at = given, fails_at
        self.name = f"{given['name']}-made" if given.get("resume") == "never" else given.get("name")
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.ended: list[dict[str, Any]] = []

    def log(self, row: dict[str, float], step: int) -> None:
        if step == self.fails_at:
            raise ConnectionError("the network\nis away")
        self.logged.append((step, row))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.log({name: value}, step)

    def flush(self) -> None:
        return None

    def finish(self, **given: Any) -> None:
        self.ended.append(given)

    def close(self) -> None:
        self.ended.append({})


class Packages:
    """Stand-ins for all three packages; ``made`` in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[Recorder] = []
        self.fails_at: int | None = None
        self.error: Exception | None = None
        for name, attributes in {
            "wandb": {"init": self._init, "Settings": SimpleNamespace},
            "trackio": {"init": self._init, "finish": self._finish},
            "tensorboard": {},
            "tensorboard.summary": {"Writer": lambda folder: self._init(folder=folder)},
        }.items():
            module = ModuleType(name)
            vars(module).update(attributes)
            monkeypatch.setitem(sys.modules, name, module)
        for variable in ("WANDB_PROJECT", "TRACKIO_PROJECT"):
            monkeypatch.delenv(variable, raising=False)

    def _init(self, **given: Any) -> Recorder:
        print("* hello from a tracker")
        if self.error is not None:
            raise self.error
        self.made.append(Recorder(given, self.fails_at))
        return self.made[-1]

    def _finish(self) -> None:
        self.made[-1].finish()


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Packages:
    return Packages(monkeypatch)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path, stage="rl", name="mine", recipe_yaml="", record={})


def track(run: Run, *names: str, rows: Any = ROWS) -> list[str]:
    """A stage that writes rows; returns what was said."""
    said: list[str] = []
    with open_trackers(names, run, "rl", {"seed": 1}, said.append) as trackers, MetricsLog(run, trackers) as metrics:
        for row in rows:
            metrics.write(row)
    return said


@pytest.mark.parametrize(
    ("prefix", "row", "expected"),
    [
        ("rl", {"step": 3, "time": 1.5, "kl": 0.5, "seconds_rollout": 2}, {"rl/kl": 0.5, "rl/seconds_rollout": 2.0}),
        ("warmup", {"step": 3, "loss": 0.1, "grad_norm": None}, {"warmup/loss": 0.1}),
        ("rl", {"step": 0, "val_accuracy": 0.5, "val_n": 8}, {"val/accuracy": 0.5, "val/n": 8.0}),
        ("rl", {"step": 3, "warning": "kl", "message": "KL is ..."}, {}),
        ("rl", {"step": 3, "flag": True}, {}),
    ],
)
def test_names(prefix: str, row: dict[str, Any], expected: dict[str, float]) -> None:
    assert metrics_of(prefix, row) == expected


@pytest.mark.parametrize("name", TRACKERS)
def test_every_tracker_is_given_the_numbers_and_is_closed(
    name: str, run: Run, packages: Packages, capsys: pytest.CaptureFixture[str]
) -> None:
    check_trackers([name])
    (said,) = track(run, name)
    assert said.startswith(f"metrics also go to {name}: ")
    (made,) = packages.made
    assert made.logged == [(1, {"rl/kl": 0.5}), (1, {"val/accuracy": 0.25})]
    assert len(made.ended) == 1
    assert read_jsonl(run.metrics_file) == list(ROWS)
    assert capsys.readouterr().out == "", "standard output belongs to --json"


def test_tensorboard_writes_below_the_runs_folder(run: Run, packages: Packages) -> None:
    track(run, "tensorboard")
    assert packages.made[0].given == {"folder": str(run.folder / "tensorboard")}


def test_wandb_goes_on_with_the_same_run_and_skips_what_it_knows(
    run: Run, packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    track(run, "wandb")
    monkeypatch.setattr(Recorder, "step", 5)
    track(run, "wandb", rows=[{"step": step, "kl": 0.1 * step} for step in (4, 5, 6)])
    first, second = packages.made
    assert first.given["id"] == second.given["id"] == run.record()["trackers"]["wandb"]
    assert {first.given["resume"], second.given["resume"]} == {"allow"}
    assert (first.given["project"], first.given["name"], first.given["config"]) == ("reft", "mine", {"seed": 1})
    assert first.given["dir"] == str(run.folder)
    assert [step for step, _ in second.logged] == [5, 6]


def test_wandb_offline_says_how_its_files_are_sent(
    run: Run, packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recorder, "offline", True)
    assert track(run, "wandb") == [f"metrics also go to wandb: wandb sync {run.folder}/wandb/offline-run-*"]


def test_wandb_is_told_how_it_ended(run: Run, packages: Packages) -> None:
    track(run, "wandb")
    with pytest.raises(KeyboardInterrupt), open_trackers(["wandb"], run, "rl", {}, print):
        raise KeyboardInterrupt
    assert [made.ended for made in packages.made] == [[{"exit_code": 0}], [{"exit_code": 1}]]


def test_trackio_goes_on_under_the_name_it_gave(run: Run, packages: Packages) -> None:
    track(run, "trackio")
    track(run, "trackio")
    first, second = ((made.given["name"], made.given["resume"]) for made in packages.made)
    assert (first, second) == (("mine", "never"), ("mine-made", "allow"))


def test_projects_have_the_name_that_the_environment_gives(
    run: Run, packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "sums")
    monkeypatch.setenv("TRACKIO_PROJECT", "more sums")
    track(run, "wandb", "trackio")
    assert [made.given["project"] for made in packages.made] == ["sums", "more sums"]


@pytest.mark.parametrize("name", TRACKERS)
def test_one_that_fails_costs_one_warning_and_the_others_go_on(name: str, run: Run, packages: Packages) -> None:
    packages.fails_at = 2
    rows = [{"step": step, "kl": 0.5} for step in (1, 2, 3)]
    said = track(run, name, rows=rows)
    assert said[1:] == [
        f"warning: {name} gets no more metrics, the run goes on (metrics.jsonl has them): the network is away"
    ]
    assert [step for step, _ in packages.made[0].logged] == [1]
    assert read_jsonl(run.metrics_file) == rows


def test_one_that_cannot_start_costs_one_warning(run: Run, packages: Packages) -> None:
    packages.error = RuntimeError("not logged in")
    (said,) = track(run, "wandb")
    assert said.startswith("warning: wandb gets no more metrics")
    assert said.endswith("not logged in")
    assert read_jsonl(run.metrics_file) == list(ROWS)


def test_a_missing_package_is_one_line_that_names_it(monkeypatch: pytest.MonkeyPatch, packages: Packages) -> None:
    check_trackers(())
    check_trackers(TRACKERS)
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "trackio", ModuleType("trackio"))  # a folder of that name is importable, too
    with pytest.raises(
        UsageError, match=r"--report-to wandb,trackio: .*has no init\); pip install wandb trackio"
    ) as at:
        check_trackers(TRACKERS)
    assert "\n" not in str(at.value)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_itself_reads_the_metrics(run: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    track(run, "tensorboard")
    track(run, "tensorboard", rows=[{"step": 2, "kl": 0.75}])
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    found = [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors("rl/kl")]
    assert found == [(1, 0.5), (2, 0.75)]
