"""The same commands on two processes (gloo): the same numbers, each problem once, one writer, and no hang."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import pytest
from tests.launch.launching import Started, assert_same_training, reft, rows, send

TWO = ("--launch", "multi", "--processes", "2")


def test_rl_makes_the_same_updates(one_process: Path) -> None:
    done = reft(one_process, "rl", "warmup", *TWO, "--name", "rl-multi", "--json")
    runs = one_process / "runs"
    assert done.json["run"] == "rl-multi"
    assert_same_training(runs, "rl-multi", "rl", runs / "warmup" / "final")
    record = json.loads((runs / "rl-multi" / "run.json").read_text())
    assert (record["world_size"], record["launch"], record["status"]) == (2, "multi", "finished")
    drawn = [(runs / run / "samples" / "rollouts.jsonl").read_text() for run in ("rl-multi", "rl")]
    assert drawn[0].splitlines()
    assert [json.loads(row)["completion"] for row in drawn[0].splitlines()] == [
        json.loads(row)["completion"] for row in drawn[1].splitlines()
    ]


def test_warmup_has_the_same_losses(one_process: Path) -> None:
    reft(one_process, "warmup", "--recipe", "recipe.yaml", *TWO, "--name", "warmup-multi")
    assert_same_training(one_process / "runs", "warmup-multi", "warmup", start=None)


@pytest.mark.parametrize("processes", [2, 3])
def test_every_problem_is_evaluated_once(one_process: Path, processes: int) -> None:
    name = f"eval-{processes}"
    done = reft(
        one_process, "eval", "rl", "--majority-vote", 3, "--launch", "multi", "--processes", processes, "--name", name,
        "--json",
    )  # fmt: skip
    samples = [json.loads(row) for row in Path(one_process / done.json["samples_file"]).read_text().splitlines()]
    found = Counter((row["item_id"], row["decoding"], row["sample_index"]) for row in samples)
    assert done.json["n"] == 11
    assert len({item for item, _, _ in found}) == 11
    assert len(found) == 11 * 4
    assert set(found.values()) == {1}


def test_a_killed_rank_ends_the_command_and_resume_finishes(one_process: Path) -> None:
    started = Started(one_process, "rl", "warmup", *TWO, "--name", "killed", "--set", "rl.updates=8")
    started.wait_for_rows("killed", 3)
    send(started.workers()[-1], signal.SIGKILL)
    done = started.ended()
    assert done.code == 1
    assert done.seconds < 30
    (line,) = [line for line in done.err.splitlines() if line.startswith("reft:")]
    assert "rank 1 " in line
    assert "SIGKILL" in line
    assert "--resume" in line
    record = json.loads((one_process / "runs" / "killed" / "run.json").read_text())
    assert record["status"] == "failed"
    assert "SIGKILL" in record["error"]
    reft(one_process, "rl", "--resume", *TWO, "--name", "killed")
    assert [row["step"] for row in rows(one_process / "runs" / "killed") if "kl" in row] == list(range(1, 9))


def test_ctrl_c_stops_all_ranks_at_the_same_update(one_process: Path) -> None:
    started = Started(one_process, "rl", "warmup", *TWO, "--name", "stopped", "--set", "rl.updates=200")
    started.wait_for_rows("stopped", 2)
    send(started.process.pid, signal.SIGINT)
    done = started.ended()
    assert done.code == 130
    assert "--resume" in done.err.splitlines()[-1]
    run = one_process / "runs" / "stopped"
    last = max(row["step"] for row in rows(run))
    assert (run / "checkpoints" / f"step-{last}" / "model" / "config.json").is_file()
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"


def test_a_launch_that_is_refused_leaves_the_run_at_work_alone(one_process: Path) -> None:
    long = Started(one_process, "rl", "warmup", "--name", "busy", "--set", "rl.updates=400")
    long.wait_for_rows("busy", 1)
    done = Started(one_process, "rl", "--resume", "--name", "busy", *TWO).ended()
    assert done.code == 2
    assert "another process is at work on this run" in done.err
    assert json.loads((one_process / "runs" / "busy" / "run.json").read_text())["status"] == "running"
    send(long.process.pid, signal.SIGINT)
    assert long.ended().code == 130
    record = json.loads((one_process / "runs" / "busy" / "run.json").read_text())
    assert (record["status"], record.get("error")) == ("interrupted", None)


def test_an_error_of_all_ranks_is_one_line_with_its_exit_code(one_process: Path) -> None:
    done = Started(one_process, "rl", "warmup", "--launch", "multi", "--processes", 3, "--name", "odd").ended()
    assert done.code == 2
    assert [line for line in done.err.splitlines() if line.startswith("reft:")] == [
        "reft: rl.batch_size 16 cannot be shared evenly by 3 processes; try --set rl.batch_size=15"
    ]
    assert not (one_process / "runs" / "odd").exists()


def test_somebody_elses_launcher_is_joined_and_counted(one_process: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "reftcli")
    few = Started(one_process, "rl", "warmup", "--processes", 4, "--name", "few", launcher=torchrun).ended()
    assert few.code != 0
    assert "4 processes were asked for, but 2 run" in few.err
    done = Started(one_process, "eval", "rl", "--name", "joined", "--json", launcher=torchrun).ended()
    assert done.code == 0, done.err
    assert done.json["n"] == 11
