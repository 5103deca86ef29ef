"""Starts the workers of a command through accelerate's launcher, passes signals on, and says why they ended."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from reftcli.errors import ExitCode, ReftError, RuntimeFailure, UsageError
from reftcli.launch.profiles import accelerate_config, deepspeed_config, zero_stage
from reftcli.launch.reports import WorkerReport, read_reports
from reftcli.launch.request import LaunchRequest
from reftcli.launch.worker import FOLDER_VARIABLE, PROCESSES_VARIABLE
from reftcli.runs.folder import Run

_LOUD = ("torch.distributed.elastic.multiprocessing.api", "torch.distributed.run")


@dataclass(frozen=True, slots=True)
class Hardware:
    """What this machine has."""

    gpus: int
    bf16: bool

    @classmethod
    def here(cls) -> Hardware:
        """Asks torch."""
        import torch

        gpus = torch.cuda.device_count()
        return cls(gpus, gpus > 0 and torch.cuda.is_bf16_supported())


def start_workers(
    request: LaunchRequest, arguments: Sequence[str], precision: str, hardware: Hardware | None = None
) -> None:
    """Runs ``reft ARGUMENTS`` once in every process and waits for all of them.

    Args:
        precision: the setting ``model.precision``; "auto" is bf16 where the GPUs have it.

    Raises:
        UsageError: the number of processes cannot be had here.
        ReftError: the workers failed; with the message and the exit code of the one that failed first.
    """
    hardware = hardware or Hardware.here()
    with tempfile.TemporaryDirectory(prefix="reft-launch-") as name:
        folder = Path(name)
        config, processes = _config_file(request, folder, precision, hardware)
        on_this_machine = None if processes is None else processes // request.machines
        failures = _run(config, arguments, folder, processes, on_this_machine, hardware)
        reports = read_reports(folder)
    error = why_it_ended(reports, failures)
    if error is not None:
        _mark_as_failed(reports, error)
        raise error


def _config_file(request: LaunchRequest, folder: Path, precision: str, hardware: Hardware) -> tuple[Path, int | None]:
    """Accelerate's configuration for the request, and the number of processes that it names."""
    if not request.is_own_profile:
        path = Path(str(request.profile))
        named = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if not isinstance(named, dict):
            raise UsageError(f"--launch {path}: not an accelerate configuration")
        return path, request.processes or named.get("num_processes")
    profile: Any = request.profile
    processes = _processes(request, hardware)
    deepspeed_file = None
    if zero_stage(profile):
        bf16 = precision == "bf16" or (precision == "auto" and hardware.bf16)
        deepspeed_file = folder / "deepspeed.json"
        deepspeed_file.write_text(json.dumps(deepspeed_config(profile, bf16=bf16)), encoding="utf-8")
    config = accelerate_config(
        profile,
        processes=processes,
        machines=request.machines,
        machine_rank=request.machine_rank,
        main_address=request.address,
        cpu=hardware.gpus == 0,
        deepspeed_file=None if deepspeed_file is None else str(deepspeed_file),
    )
    path = folder / "accelerate.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path, processes


def _processes(request: LaunchRequest, hardware: Hardware) -> int:
    if request.processes is None and not hardware.gpus:
        raise UsageError(f"--launch {request.profile}: no GPU here to count; say how many processes with --processes N")
    processes = request.processes or hardware.gpus * request.machines
    here = processes // request.machines
    if hardware.gpus and here > hardware.gpus:
        raise UsageError(f"--processes: {here} on this machine, which has {hardware.gpus} GPUs")
    if request.profile == "multi" and processes < 2:
        raise UsageError("--launch multi is for two processes or more; leave it out for one")
    return processes


@dataclass(frozen=True, slots=True)
class Failure:
    """How the launcher saw a worker end. A negative ``exit_code`` is the number of the signal that ended it."""

    rank: int
    pid: int
    exit_code: int


def _run(
    config: Path,
    arguments: Sequence[str],
    folder: Path,
    processes: int | None,
    on_this_machine: int | None,
    hardware: Hardware,
) -> list[Failure]:
    """Accelerate's launcher in this process; returns how workers failed, if they did."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    options = ["--config_file", str(config)]
    if processes is not None:
        options += ["--num_processes", str(processes)]
    parsed = launch_command_parser().parse_args([*options, "--module", "reftcli", *arguments])
    for logger in _LOUD:
        logging.getLogger(logger).disabled = True  # they print a screenful where one line says it
    parsed.signals_to_handle = "SIGQUIT"  # accelerate hands it on to torchrun; the others are ours
    with _environment(folder, processes, on_this_machine, hardware), _signals_to_workers(folder):
        try:
            launch_command(parsed)
        except ChildFailedError as error:
            return [Failure(rank, failure.pid, failure.exitcode) for rank, failure in error.failures.items()]
        except ConnectionError as error:
            raise RuntimeFailure(f"cannot launch: {error}") from error
    return []


@contextmanager
def _environment(
    folder: Path, processes: int | None, on_this_machine: int | None, hardware: Hardware
) -> Iterator[None]:
    """Variables for the launcher and its workers."""
    wanted = {FOLDER_VARIABLE: str(folder)}
    if processes is not None:
        wanted[PROCESSES_VARIABLE] = str(processes)
    if "OMP_NUM_THREADS" not in os.environ:
        wanted["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // (on_this_machine or 1)))
    if not hardware.gpus:
        wanted.setdefault("DS_ACCELERATOR", os.environ.get("DS_ACCELERATOR", "cpu"))
    before: Mapping[str, str] = dict(os.environ)
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _signals_to_workers(folder: Path) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks the workers to finish what they have in hand; the second ends them."""
    asked = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        for report in read_reports(folder):
            _send(report.pid, signal.SIGINT)

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


class WorkerFailed(ReftError):
    """What a worker said when it ended, with its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = ExitCode(code)


def why_it_ended(reports: Sequence[WorkerReport], failures: Sequence[Failure]) -> ReftError | None:
    """The first cause, not its echoes: a rank killed from outside, else the earliest error that a worker understood."""
    killed = [failure for failure in failures if failure.exit_code < 0 and failure.exit_code != -signal.SIGTERM]
    if killed and not _gave_up(reports):
        return RuntimeFailure(_killed(killed[0], reports))
    ended = sorted((r for r in reports if r.code is not None), key=lambda r: (r.unexpected, r.ended))
    if ended:
        return _said_by(ended[0], reports)
    if failures:
        return RuntimeFailure(f"rank {failures[0].rank} ended with exit code {failures[0].exit_code}, without a reason")
    return None


def _gave_up(reports: Sequence[WorkerReport]) -> bool:
    """Whether a rank waited for others in vain: who was then killed had stalled before."""
    return any(report.code is not None and "--rank-timeout" in report.message for report in reports)


def _said_by(first: WorkerReport, reports: Sequence[WorkerReport]) -> ReftError:
    """The message of a worker; whose it is, where it is not everybody's; and where those are that it missed.

    Recipe, command line and data are the same for all ranks, and so is what is wrong with them. The launcher ends the
    others before they can say the same.
    """
    failed_alone = first.code == ExitCode.RUNTIME and sum(report.message == first.message for report in reports) == 1
    everybodys = not failed_alone or len(reports) == 1
    said = first.message if everybodys else f"rank {first.rank}: {first.message}"
    if "--rank-timeout" in first.message:
        behind = min(reports, key=lambda report: report.since)
        seconds = first.ended - behind.since
        said += f"; rank {behind.rank} (process {behind.pid}) was at: {behind.doing}, for {seconds:.0f} s"
    return WorkerFailed(said, int(first.code or 0))


def _killed(failure: Failure, reports: Sequence[WorkerReport]) -> str:
    name = signal.Signals(-failure.exit_code).name
    doing = next((report.doing for report in reports if report.rank == failure.rank), "starting")
    why = " (often: out of memory; --launch zero3 or a smaller micro-batch needs less)" if name == "SIGKILL" else ""
    return f"rank {failure.rank} (process {failure.pid}) was ended by {name}{why} at: {doing}; go on with --resume"


def _mark_as_failed(reports: Sequence[WorkerReport], error: ReftError) -> None:
    """The run's record: its writer was ended before it could say so, or said how it missed another rank."""
    folder = next((report.run_folder for report in reports if report.run_folder), None)
    if folder is None:
        return
    run = Run(Path(folder))
    try:
        status = run.record().get("status")
        if status == "running" or (status == "failed" and error.exit_code == ExitCode.RUNTIME):
            run.update_record(status="failed", error=str(error))
    except ReftError as problem:
        print(f"reft: {problem}", file=sys.stderr)
