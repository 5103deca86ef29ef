"""DeepSpeed's ZeRO on two CPU processes: the same training as one process, to the bit after a crash, on two machines.

DeepSpeed compiles an operation the first time, which takes one to two minutes.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.launch.launching import (
    Started,
    assert_same_training,
    change,
    norm,
    reft,
    rows,
    send,
    trained_by_one_process,
    weights,
)

pytestmark = pytest.mark.slow

PROFILES = ["zero1", "zero2", "zero3"]

EVALUATES = """
import sys
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
assert not any(name.startswith(("module.", "policy.", "_orig")) for name in model.state_dict())
print(sum(parameter.numel() for parameter in model.parameters()))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_by_one_process(tmp_path_factory.mktemp("profiles"))


def two(profile: str) -> tuple[str, ...]:
    return ("--launch", profile, "--processes", "2")


def accuracy(folder: Path, model: Path) -> float:
    """Greedy, measured by a fresh process on one core."""
    done = reft(folder, "eval", model, "--recipe", "recipe.yaml", "--json")
    return float(done.json["accuracy"])


@pytest.mark.parametrize("profile", [*PROFILES, "zero3-offload"])
def test_ppo_is_the_same_update(folder: Path, profile: str) -> None:
    runs, name = folder / "runs", f"rl-{profile}"
    reft(folder, "rl", "warmup", *two(profile), "--name", name)
    assert_same_training(runs, name, "rl", runs / "warmup" / "final")
    for model in (runs / name / "final", runs / name / "checkpoints" / "step-4" / "model"):
        loads = [subprocess.run([sys.executable, "-c", EVALUATES, m], capture_output=True, text=True, check=True)
                 for m in (model, runs / "rl" / "final")]  # fmt: skip
        assert loads[0].stdout == loads[1].stdout
        assert accuracy(folder, model) == accuracy(folder, runs / "rl" / "final")


@pytest.mark.parametrize("profile", PROFILES)
def test_the_warmup_has_the_same_losses(folder: Path, profile: str) -> None:
    name = f"warmup-{profile}"
    reft(folder, "warmup", "--recipe", "recipe.yaml", *two(profile), "--name", name)
    assert_same_training(folder / "runs", name, "warmup", start=None)
    assert accuracy(folder, folder / "runs" / name / "final") == accuracy(folder, folder / "runs" / "warmup" / "final")


@pytest.mark.parametrize("profile", ["zero2", "zero3", "zero3-offload"])
def test_a_resumed_run_ends_at_the_same_bits(folder: Path, profile: str) -> None:
    whole, killed = f"whole-{profile}", f"killed-{profile}"
    settings = ("--set", "rl.updates=8", "--set", "rl.checkpoint_every=2", "--set", "rl.lr_schedule=linear")
    reft(folder, "rl", "warmup", *two(profile), "--name", whole, *settings)
    started = Started(folder, "rl", "warmup", *two(profile), "--name", killed, *settings)
    started.wait_for_rows(killed, 5)
    send(started.process.pid, signal.SIGKILL)
    started.ended()
    reft(folder, "rl", "--resume", *two(profile), "--name", killed)
    for kept in ("final", "best"):
        one, other = (weights(folder / "runs" / run / kept) for run in (whole, killed))
        assert all(bool((one[name] == other[name]).all()) for name in one)


def test_optimizer_states_of_other_engines_are_refused(folder: Path) -> None:
    started = Started(folder, "rl", "warmup", *two("zero2"), "--name", "moved", "--set", "rl.updates=100")
    started.wait_for_rows("moved", 2)
    send(started.process.pid, signal.SIGINT)
    assert started.ended().code == 130
    for launch in ((), two("multi"), two("zero3")):
        done = Started(folder, "rl", "--resume", "--name", "moved", *launch).ended()
        assert done.code == 1
        assert "--launch and --processes that the run had" in done.err


def test_a_warmup_refuses_optimizer_states_of_other_engines_too(folder: Path) -> None:
    long = ("--set", "warmup.schedule_epochs=60", "--recipe", "recipe.yaml")
    started = Started(folder, "warmup", *long, *two("zero2"), "--name", "warm-moved")
    started.wait_for_rows("warm-moved", 3)
    send(started.process.pid, signal.SIGINT)
    assert started.ended().code == 130
    done = Started(folder, "warmup", "--resume", "--name", "warm-moved").ended()
    assert done.code == 1
    assert "written by deepspeed zero2 on 2 processes" in done.err
    other = Started(folder, "warmup", "--resume", "--name", "warm-moved", *two("zero3")).ended()
    assert (other.code, "cannot go on under deepspeed zero3" in other.err) == (1, True), other.err
    again = Started(folder, "warmup", "--resume", "--name", "warm-moved", *two("zero2"))
    again.wait_for_rows("warm-moved", max(row["step"] for row in rows(folder / "runs" / "warm-moved")) + 2)
    send(again.process.pid, signal.SIGINT)
    assert again.ended().code == 130


def test_processes_of_ddp_may_change_between_save_and_resume(folder: Path) -> None:
    started = Started(folder, "rl", "warmup", *two("multi"), "--name", "fewer", "--set", "rl.updates=30")
    started.wait_for_rows("fewer", 3)
    send(started.process.pid, signal.SIGINT)
    assert started.ended().code == 130
    reft(folder, "rl", "--resume", "--name", "fewer")
    assert [row["step"] for row in rows(folder / "runs" / "fewer") if "kl" in row] == list(range(1, 31))


@pytest.mark.parametrize("profile", PROFILES)
def test_bf16_keeps_fp32_masters_that_move_at_the_papers_rate(folder: Path, profile: str) -> None:
    runs = folder / "runs"
    settings = ("--set", "rl.learning_rate=3e-7", "--set", "rl.updates=6")
    if not (runs / "slow-fp32").exists():
        reft(folder, "rl", "warmup", "--name", "slow-fp32", *settings)
    name = f"slow-{profile}"
    reft(folder, "rl", "warmup", *two(profile), "--name", name, *settings, "--set", "model.precision=bf16")
    moved, expected = (norm(change(runs / run / "final", runs / "warmup" / "final")) for run in (name, "slow-fp32"))
    assert moved == pytest.approx(expected, rel=0.1)
    assert moved > 1e-4


def test_zero3_scores_in_chunks_though_processes_have_different_numbers_of_them(folder: Path) -> None:
    settings = ("--set", "rl.logprob_chunk=8", "--set", "rl.rollout_logprobs=recomputed", "--set", "rl.verify_every=1")
    reft(folder, "rl", "warmup", "--name", "chunks-one", *settings)
    reft(folder, "rl", "warmup", *two("zero3"), "--name", "chunks", *settings, "--rank-timeout", 60)
    assert_same_training(folder / "runs", "chunks", "chunks-one", folder / "runs" / "warmup" / "final")


def test_lora_in_bf16_saves_the_exact_weights_that_it_does_not_train(folder: Path) -> None:
    """DeepSpeed keeps frozen weights in bf16 only; before the first update nothing has changed."""
    settings = ("--set", "model.precision=bf16", "--set", "rl.lora_rank=4", "--set", "rl.learning_rate=1e-12")
    reft(folder, "rl", "warmup", *two("zero2"), "--name", "lora", *settings, "--set", "rl.updates=1")
    found, start = (weights(folder / "runs" / run / "final") for run in ("lora", "warmup"))
    assert all(float((found[name] - start[name]).abs().max()) < 1e-6 for name in start)


def test_two_machines_train_one_run(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [
        Started(
            folder,
            "rl",
            "warmup",
            *two("zero2"),
            "--machines",
            2,
            "--machine-rank",
            rank,
            "--main-address",
            f"127.0.0.1:{port}",
            "--name",
            "machines",
        )
        for rank in (0, 1)
    ]
    assert [started.ended().code for started in both] == [0, 0]
    assert_same_training(folder / "runs", "machines", "rl", folder / "runs" / "warmup" / "final")
    record: Any = json.loads((folder / "runs" / "machines" / "run.json").read_text())
    assert record["world_size"] == 2


def test_a_stalled_rank_is_named(folder: Path) -> None:
    started = Started(
        folder, "rl", "warmup", *two("multi"), "--name", "stalled", "--set", "rl.updates=100", "--rank-timeout", 5
    )
    started.wait_for_rows("stalled", 2)
    send(started.workers()[-1], signal.SIGSTOP)
    done = started.ended()
    assert done.code == 1
    assert "rank 1 did not come within 5 s" in done.err
    assert "rank 1 (process" in done.err
    assert "was at: " in done.err
