"""Starts the workers of a command through accelerate's launcher, and waits for them."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reftcli.errors import ExitCode, ReftError, RuntimeFailure, UsageError
from reftcli.launch.endings import Failure, why_it_ended
from reftcli.launch.profiles import accelerate_config, deepspeed_config, zero_stage
from reftcli.launch.reports import WorkerReport, read_reports
from reftcli.launch.request import LaunchRequest
from reftcli.launch.signals import signals_to_workers
from reftcli.launch.worker import FOLDER_VARIABLE, PROCESSES_VARIABLE
from reftcli.runs.files import locked
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
        config = _config_file(request, folder, precision, hardware)
        with signals_to_workers(folder):
            _check_address(request)
            failures = _run(config, request, arguments, folder, hardware)
        reports = read_reports(folder)
    error = why_it_ended(reports, failures)
    if error is not None:
        _mark_as_failed(reports, error)
        raise error


@dataclass(frozen=True, slots=True)
class Configuration:
    """A file for accelerate. ``processes`` counts those of all machines; None: nobody says how many."""

    file: Path
    processes: int | None
    machines: int

    @property
    def on_this_machine(self) -> int:
        return (self.processes or self.machines) // self.machines


def _config_file(request: LaunchRequest, folder: Path, precision: str, hardware: Hardware) -> Configuration:
    """Accelerate's configuration for the request."""
    if not request.is_own_profile:
        return _named_config(Path(str(request.profile)), request)
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
    return Configuration(path, processes, request.machines)


def _named_config(path: Path, request: LaunchRequest) -> Configuration:
    """Somebody's own file; what the flags say counts more."""
    try:
        named = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise UsageError(f"--launch {path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(named, dict):
        raise UsageError(f"--launch {path}: not an accelerate configuration")
    counts = {"num_processes": request.processes or named.get("num_processes")}
    counts["num_machines"] = request.machines if request.machines > 1 else named.get("num_machines", 1)
    for key, count in counts.items():
        if count is not None and (not isinstance(count, int) or count < 1):
            raise UsageError(f"--launch {path}: {key} {count!r} is no number of them")
    return Configuration(path, counts["num_processes"], counts["num_machines"] or 1)


def _check_address(request: LaunchRequest) -> None:
    """Raises UsageError where the first machine's name means nothing: the launcher would go on trying in silence."""
    if request.machines == 1 or request.address is None:
        return
    try:
        socket.getaddrinfo(*request.address)
    except OSError as error:
        raise UsageError(f"--main-address {request.main_address}: {error.strerror or error}") from error
    seconds = f"at most {request.rank_timeout_s:.0f} s"
    print(f"waiting for {request.machines} machines at {request.main_address}, {seconds}", file=sys.stderr)


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


def _run(
    config: Configuration, request: LaunchRequest, arguments: Sequence[str], folder: Path, hardware: Hardware
) -> list[Failure]:
    """Accelerate's launcher in this process; returns how workers failed, if they did."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    options = _options(config, request)
    parsed = launch_command_parser().parse_args([*options, "--module", "reftcli", *arguments])
    for logger in _LOUD:
        logging.getLogger(logger).disabled = True  # they print a screenful where one line says it
    parsed.signals_to_handle = "SIGQUIT"  # accelerate hands it on to torchrun; the others are ours
    with _environment(folder, config, hardware):
        try:
            launch_command(parsed)
        except ChildFailedError as error:
            return [Failure(rank, failure.pid, failure.exitcode) for rank, failure in error.failures.items()]
        except subprocess.CalledProcessError as error:  # one process, which accelerate starts without torchrun
            return [Failure(0, 0, error.returncode)]
        except ConnectionError as error:
            raise RuntimeFailure(_port_in_use(request, error)) from error
        except DistError as error:
            raise RuntimeFailure(_not_together(request, error)) from error
    return []


def _options(config: Configuration, request: LaunchRequest) -> list[str]:
    """Accelerate's flags. They say more than its file, which may be somebody's own."""
    options = ["--config_file", str(config.file)]
    if config.processes is not None:
        options += ["--num_processes", str(config.processes)]
    if request.machines > 1:
        # The launchers of the machines wait for each other as long as their workers will.
        options += ["--rdzv_conf", f"timeout={request.rank_timeout_s:.0f}"]
        options += ["--num_machines", str(request.machines), "--machine_rank", str(request.machine_rank)]
    if request.address is not None:
        host, port = request.address
        options += ["--main_process_ip", host, "--main_process_port", str(port)]
    return options


def _port_in_use(request: LaunchRequest, error: Exception) -> str:
    if request.address is None:
        return f"cannot launch: {error}"
    return (
        f"port {request.address[1]} of this machine is in use: give another one in --main-address, the same on all "
        "machines"
    )


def _not_together(request: LaunchRequest, error: Exception) -> str:
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if request.machines == 1:
        return f"cannot launch: {first}"
    return (
        f"{request.machines} machines did not come together at {request.main_address} within "
        f"{request.rank_timeout_s:.0f} s (--rank-timeout): {first}"
    )


@contextmanager
def _environment(folder: Path, config: Configuration, hardware: Hardware) -> Iterator[None]:
    """Variables for the launcher and its workers."""
    wanted = {FOLDER_VARIABLE: str(folder)}
    if config.processes is not None:
        wanted[PROCESSES_VARIABLE] = str(config.processes)
    if "OMP_NUM_THREADS" not in os.environ:
        wanted["OMP_NUM_THREADS"] = str(max(1, _cores() // config.on_this_machine))
    if not hardware.gpus:
        wanted.setdefault("DS_ACCELERATOR", os.environ.get("DS_ACCELERATOR", "cpu"))
    before: Mapping[str, str] = dict(os.environ)
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _cores() -> int:
    """Those that this job may use, of a machine that may have more."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _mark_as_failed(reports: Sequence[WorkerReport], error: ReftError) -> None:
    """The run's record: its writer was ended before it could say so, or said how it missed another rank."""
    folder = next((report.run_folder for report in reports if report.run_folder), None)
    if folder is None:
        return
    run = Run(Path(folder))
    try:
        with locked(run.folder) as alone:
            if not alone:  # another command is at work on it, and was why this one ended
                return
            _mark(run, error)
    except ReftError as problem:
        print(f"reft: {problem}", file=sys.stderr)


def _mark(run: Run, error: ReftError) -> None:
    status = run.record().get("status")
    if status == "running" or (status == "failed" and error.exit_code == ExitCode.RUNTIME):
        run.update_record(status="failed", error=str(error))
