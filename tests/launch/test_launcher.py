"""What is refused before anything starts, what accelerate is told, and which of many reports is the reason."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reftcli.errors import ExitCode, UsageError
from reftcli.launch.endings import Failure, why_it_ended
from reftcli.launch.launcher import Hardware, start_workers
from reftcli.launch.profiles import PROFILES, accelerate_config, deepspeed_config, zero_stage
from reftcli.launch.reports import Reporter, WorkerReport, read_reports
from reftcli.launch.request import LaunchRequest
from reftcli.launch.worker import alone_on_one_gpu
from reftcli.recipe.batches import check_shares, micro_batches
from reftcli.recipe.schema import Recipe

NO_GPU, FOUR_GPUS = Hardware(gpus=0, bf16=False), Hardware(gpus=4, bf16=True)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"profile": "zero4"}, "neither a profile"),
        ({"profile": "multi", "machines": 2, "processes": 2}, "--main-address"),
        ({"profile": "multi", "machines": 2, "machine_rank": 2, "main_address": "a:1"}, "--machine-rank 2"),
        ({"profile": "multi", "machines": 2, "processes": 3, "main_address": "a:1"}, "multiple of --machines"),
        ({"profile": "multi", "main_address": "host"}, "HOST:PORT"),
        ({"profile": "multi", "main_address": "host:99999"}, "HOST:PORT"),
    ],
)
def test_flags_that_mean_nothing(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        LaunchRequest(**flags)


@pytest.mark.parametrize("flags", [{"processes": 2}, {"profile": "single", "processes": 2}, {"machines": 2}])
def test_never_silently_one_process(flags: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="needs --launch"):
        LaunchRequest(**{"main_address": "a:1", **flags}).check_alone()


@pytest.mark.parametrize(
    ("flags", "hardware", "words"),
    [
        ({"profile": "multi"}, NO_GPU, "no GPU here to count"),
        ({"profile": "zero2", "processes": 5}, FOUR_GPUS, "5 on this machine, which has 4 GPUs"),
        ({"profile": "multi", "processes": 1}, NO_GPU, "two processes or more"),
    ],
)
def test_processes_that_cannot_be_had(flags: dict[str, Any], hardware: Hardware, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        start_workers(LaunchRequest(**flags), ["rl"], "auto", hardware)


@pytest.mark.parametrize(("visible", "left"), [(None, "0"), ("3,1", "3"), ("2", "2"), ("", "")])
def test_one_process_sees_one_gpu(monkeypatch: pytest.MonkeyPatch, visible: str | None, left: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    alone_on_one_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == left


def test_addresses_of_ipv6_hosts() -> None:
    assert LaunchRequest("multi", main_address="[::1]:29500").address == ("::1", 29500)


@pytest.mark.parametrize("profile", PROFILES)
def test_deepspeed_keeps_what_is_summed_in_fp32(profile: Any) -> None:
    config = deepspeed_config(profile, bf16=True)
    assert config["data_types"]["grad_accum_dtype"] == "fp32"
    assert config["zero_optimization"]["stage"] == zero_stage(profile)
    assert ("offload_param" in config["zero_optimization"]) == (profile == "zero3-offload")


def test_accelerate_is_not_told_multi_cpu_which_starts_one_process() -> None:
    config = accelerate_config(
        "multi", processes=2, machines=1, machine_rank=0, main_address=None, cpu=True, deepspeed_file=None
    )
    assert config["distributed_type"] == "MULTI_GPU"
    assert config["use_cpu"] is True


def test_reports_survive_a_reader_at_any_time(tmp_path: Path) -> None:
    reporter = Reporter(tmp_path, 1)
    reporter.is_at("update 3, grading")
    reporter.ends(4, "first", unexpected=False)
    reporter.ends(1, "its consequence", unexpected=True)
    (report,) = read_reports(tmp_path)
    assert (report.rank, report.doing, report.code, report.message) == (1, "update 3, grading", 4, "first")


RUNNING = WorkerReport(0, 100, doing="update 7, rollout", since=50.0)


def ended(rank: int, code: int, message: str, at: float, unexpected: bool = False) -> WorkerReport:
    return replace(RUNNING, rank=rank, pid=100 + rank, code=code, message=message, ended=at, unexpected=unexpected)


def test_all_went_well() -> None:
    assert why_it_ended([RUNNING], []) is None


def test_the_killed_rank_is_the_reason_and_not_who_misses_it() -> None:
    reports = [ended(0, 1, "rank 1 ended", 60.0), replace(RUNNING, rank=1)]
    error = why_it_ended(reports, [Failure(0, 100, 1), Failure(1, 101, -signal.SIGKILL)])
    assert error is not None
    assert error.exit_code == ExitCode.RUNTIME
    assert "rank 1 (process 101) was ended by SIGKILL" in str(error)
    assert "update 7, rollout" in str(error)


def test_who_was_ended_by_the_launcher_is_not_the_reason() -> None:
    reports = [RUNNING, ended(1, 4, "file.jsonl:3: no gold", 60.0)]
    error = why_it_ended(reports, [Failure(1, 101, 4), Failure(0, 100, -signal.SIGTERM)])
    assert error is not None
    assert (error.exit_code, str(error)) == (ExitCode.BAD_DATA, "file.jsonl:3: no gold")


def test_an_error_of_ours_goes_before_echoes_from_libraries() -> None:
    reports = [ended(0, 1, "connection closed", 59.0, unexpected=True), ended(1, 1, "the disk is full", 60.0)]
    assert str(why_it_ended(reports, [Failure(0, 100, 1)])) == "rank 1: the disk is full"


@pytest.mark.parametrize("code", [ExitCode.USAGE, ExitCode.BAD_DATA])
def test_what_is_wrong_for_all_has_no_rank_though_one_alone_could_say_it(code: ExitCode) -> None:
    reports = [RUNNING, replace(RUNNING, rank=1), ended(2, code, "rl.batch_size 16 and 3 processes", 60.0)]
    error = why_it_ended(reports, [Failure(2, 102, code), Failure(0, 100, -signal.SIGTERM)])
    assert error is not None
    assert (error.exit_code, str(error)) == (code, "rl.batch_size 16 and 3 processes")


def test_what_all_say_has_no_rank() -> None:
    reports = [ended(0, 2, "no such model", 60.0), ended(1, 2, "no such model", 60.1)]
    assert str(why_it_ended(reports, [Failure(0, 100, 2)])) == "no such model"


def test_a_stalled_rank_is_named_with_what_it_was_doing() -> None:
    reports = [
        ended(0, 1, "rank 1 did not come within 30 s (--rank-timeout): it has stalled", 90.0),
        replace(RUNNING, rank=1, pid=101, doing="update 7, grading", since=40.0),
    ]
    said = str(why_it_ended(reports, [Failure(0, 100, 1), Failure(1, 101, -signal.SIGKILL)]))
    assert "rank 1 (process 101) was at: update 7, grading, for 50 s" in said


def test_the_stalled_rank_is_the_one_that_was_missed_though_the_other_reported_earlier() -> None:
    reports = [
        replace(ended(0, 1, "rank 2 did not come within 30 s (--rank-timeout): it has stalled", 90.0), since=10.0),
        replace(RUNNING, rank=1, pid=101, doing="update 7, grading", since=20.0),
        replace(RUNNING, rank=2, pid=102, doing="update 7, scoring", since=40.0),
    ]
    assert "rank 2 (process 102) was at: update 7, scoring, for 50 s" in str(why_it_ended(reports, []))


@pytest.mark.parametrize(
    ("batch", "micro", "processes", "expected"),
    [(48, None, 1, (48, 1)), (48, 8, 1, (8, 6)), (48, 8, 4, (6, 2)), (48, 100, 2, (24, 1)), (14, 4, 2, (1, 7))],
)
def test_micro_batches_make_exactly_the_batch(
    batch: int, micro: int | None, processes: int, expected: tuple[int, int]
) -> None:
    found = micro_batches(batch, micro, processes)
    assert found == expected
    assert found[0] * found[1] * processes == batch


def test_batches_that_cannot_be_shared() -> None:
    recipe = Recipe.model_validate({"rl": {"batch_size": 32, "mini_batch_size": 4}, "warmup": {"batch_size": 48}})
    check_shares(recipe, "rl", 4)
    check_shares(recipe, "warmup", 48)
    with pytest.raises(UsageError, match="mini_batch_size 4 cannot be shared evenly by 8"):
        check_shares(recipe, "rl", 8)
