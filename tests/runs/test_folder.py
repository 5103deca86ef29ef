from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reftcli.errors import Interrupted, RuntimeFailure, UsageError
from reftcli.runs import folder as folder_module
from reftcli.runs.folder import Run, Stage, all_runs, check_name, create_run, latest_finished, open_run


def make(runs_dir: Path, name: str | None = None, stage: Stage = "warmup", **record: Any) -> Run:
    return create_run(runs_dir, stage=stage, name=name, recipe_yaml="seed: 1\n", record=record)


def finished(runs_dir: Path, name: str, started: str, stage: Stage = "warmup", **record: Any) -> Run:
    return make(runs_dir, name, stage, started=started, status="finished", **record)


# Making runs.


def test_a_new_run_has_its_record_and_recipe(tmp_path: Path) -> None:
    run = make(tmp_path / "runs", "mine", dataset="toy", form="ncot")
    record = run.record()
    assert (record["stage"], record["status"], record["dataset"], record["ended"]) == ("warmup", "running", "toy", None)
    assert record["versions"]["python"].startswith("3.")
    assert record["versions"]["reftcli"]
    assert record["hardware"]["cpus"] == os.cpu_count()
    assert run.recipe_file.read_text() == "seed: 1\n"
    assert run.name == "mine"


def test_an_existing_run_is_never_touched(tmp_path: Path) -> None:
    run = make(tmp_path, "mine", dataset="toy")
    before = run.record_file.read_bytes()
    with pytest.raises(UsageError, match=r"mine exists; choose another --name"):
        make(tmp_path, "mine", dataset="other")
    assert run.record_file.read_bytes() == before


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "/abs", "../up", "a/", "é" * 150])
def test_names_that_are_no_folder_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="must be a plain folder name"):
        make(tmp_path / "runs", name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["mine", "with space", "ünï", "a.b", "-x", "x" * 200])
def test_names_that_are(tmp_path: Path, name: str) -> None:
    check_name(tmp_path, name)
    assert make(tmp_path, name).folder == tmp_path / name


def test_made_names_are_free_and_start_with_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(folder_module.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Clock:
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr(folder_module, "datetime", Clock)
    names = [make(tmp_path, None, "rl").name for _ in range(3)]
    assert names == ["rl-20260102-030405", "rl-20260102-030405-2", "rl-20260102-030405-3"]


def test_a_runs_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("keep me")
    with pytest.raises(UsageError, match="is not a folder"):
        make(tmp_path / "runs", "mine")
    assert (tmp_path / "runs").read_text() == "keep me"


# How a run ends.


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (None, "finished", None),
        (Interrupted("stopped"), "interrupted", None),
        (KeyboardInterrupt(), "interrupted", None),
        (RuntimeFailure("the hub is gone"), "failed", "the hub is gone"),
        (ZeroDivisionError("x"), "failed", "ZeroDivisionError('x')"),
        (SystemExit(3), "failed", "SystemExit(3)"),
    ],
)
def test_the_record_says_how_it_ended(
    tmp_path: Path, error: BaseException | None, status: str, reason: str | None
) -> None:
    run = make(tmp_path, "mine")
    with contextlib.nullcontext() if error is None else pytest.raises(type(error)), run.recorded():
        if error is not None:
            raise error
    record = run.record()
    assert (record["status"], record.get("error")) == (status, reason)
    assert record["ended"] >= record["started"]


def test_the_first_error_is_shown_when_the_record_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(tmp_path, "mine")

    def fail(*_: object) -> None:
        raise RuntimeFailure("the disk is full")

    monkeypatch.setattr(folder_module, "write_json", fail)
    with pytest.raises(ZeroDivisionError), run.recorded():
        raise ZeroDivisionError
    with pytest.raises(RuntimeFailure, match="the disk is full"), run.recorded():
        pass


def test_two_processes_do_not_work_on_one_run(tmp_path: Path) -> None:
    run = make(tmp_path, "mine")
    (run.checkpoints / ".step-3.77.partial").mkdir(parents=True)
    before = run.record()
    script = (
        "import sys; from pathlib import Path; from reftcli.runs.folder import Run\n"
        "with Run(Path(sys.argv[1])).recorded(): print('in', flush=True), sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(run.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    (run.checkpoints / ".step-4.78.partial").mkdir()
    with pytest.raises(UsageError, match="another process is at work on this run"), run.recorded():
        pytest.fail("it was let in")
    assert run.record() == before
    assert (run.checkpoints / ".step-4.78.partial").exists(), "the other one may be writing it"
    other.kill()  # the lock goes with its process
    other.communicate()
    with run.recorded():
        assert not list(run.checkpoints.iterdir())


def test_a_run_that_goes_on_forgets_why_it_had_ended(tmp_path: Path) -> None:
    run = make(tmp_path, "mine")
    with pytest.raises(RuntimeFailure), run.recorded():
        raise RuntimeFailure("the disk is full")
    with run.recorded():
        assert (run.record()["status"], run.record()["error"], run.record()["ended"]) == ("running", None, None)
    assert (run.record()["status"], run.record()["error"]) == ("finished", None)


def test_updating_keeps_the_other_fields(tmp_path: Path) -> None:
    run = make(tmp_path, "mine", dataset="toy")
    run.update_record(status="failed", error="x")
    record = run.record()
    assert (record["dataset"], record["status"], record["error"]) == ("toy", "failed", "x")


# Finding runs.


def test_runs_are_listed_oldest_first_whatever_their_names(tmp_path: Path) -> None:
    for name, started in (("b", "2026-01-03"), ("c", "2026-01-01"), ("a", "2026-01-02")):
        finished(tmp_path, name, started)
    (tmp_path / "no-run").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    assert [run.name for run in all_runs(tmp_path)] == ["c", "a", "b"]
    assert all_runs(tmp_path / "absent") == []


def test_runs_of_one_second_are_listed_by_their_files(tmp_path: Path) -> None:
    for name, second in (("x", 20), ("a", 10)):
        run = finished(tmp_path, name, "2026-01-01")
        os.utime(run.record_file, (second, second))
    assert [run.name for run in all_runs(tmp_path)] == ["a", "x"]


def test_latest_finished_picks_by_stage_status_and_fields(tmp_path: Path) -> None:
    finished(tmp_path, "one", "2026-01-01", dataset="toy", form="ncot")
    finished(tmp_path, "two", "2026-01-02", dataset="toy", form="ncot")
    finished(tmp_path, "program", "2026-01-03", dataset="toy", form="pcot")
    finished(tmp_path, "svamp", "2026-01-04", dataset="svamp", form="ncot")
    finished(tmp_path, "rl", "2026-01-05", "rl", dataset="toy", form="ncot")
    for n, status in enumerate(("running", "interrupted", "failed")):
        make(tmp_path, status, started=f"2026-01-1{n}", status=status, dataset="toy", form="ncot")

    def latest(stage: Stage, **wanted: Any) -> str | None:
        run = latest_finished(tmp_path, stage, **wanted)
        return run.name if run else None

    assert latest("warmup", dataset="toy", form="ncot") == "two"
    assert latest("warmup", dataset="toy", form="pcot") == "program"
    assert latest("warmup", dataset="toy") == "program"
    assert latest("warmup") == "svamp"
    assert latest("rl", form="ncot") == "rl"
    assert latest("warmup", dataset="gsm8k") is None
    assert latest("eval") is None


def test_opening_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"it has no run\.json"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UsageError, match="is not a run"):
        open_run(tmp_path).record()


def test_step_folders_are_complete_checkpoints_in_order(tmp_path: Path) -> None:
    run = make(tmp_path, "mine")
    for name in ("step-2", "step-10", ".step-12.99.partial", "step-x", "checkpoint-3"):
        (run.checkpoints / name).mkdir(parents=True)
    (run.checkpoints / "step-7").write_text("a file")
    assert [(step, path.name) for step, path in run.step_folders()] == [(2, "step-2"), (10, "step-10")]


def test_metrics_are_appended(tmp_path: Path) -> None:
    run = make(tmp_path, "mine")
    for step in (1, 2):
        with run.metrics() as metrics:
            metrics.write({"step": step})
    assert [json.loads(line)["step"] for line in run.metrics_file.read_text().splitlines()] == [1, 2]


def test_evaluations_are_numbered_and_never_replaced(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.free_label("test") == "test"
    for label in ("test", "test-2", "test-10"):
        for file in (run.samples_file(label), run.results_file(label)):
            file.parent.mkdir(exist_ok=True)
            file.write_text("{}")
    run.results_file("test-3").write_text("{}")  # no samples beside it: not an evaluation to count again
    run.results_file("testing").write_text("{}")
    assert run.free_label("test") == "test-4"
    assert run.labels("test") == ["test-10", "test-2", "test"]
