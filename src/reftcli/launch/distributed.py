"""Ranks by torch.distributed, as accelerate sets it up."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import InitProcessGroupKwargs

from reftcli.errors import RuntimeFailure, UsageError
from reftcli.launch.profiles import zero_stage
from reftcli.launch.request import LaunchRequest
from reftcli.launch.worker import PROCESSES_VARIABLE, current_worker
from reftcli.models.precision import under_deepspeed
from reftcli.runs.ranks import ALONE, Alone, Ranks

T = TypeVar("T")


class _Reported:
    """What a worker tells the command that started it."""

    def runs_in(self, folder: Path) -> None:
        worker = current_worker()
        if worker is not None and worker.reporter is not None:
            worker.reporter.runs_in(folder)

    def is_at(self, what: str) -> None:
        worker = current_worker()
        if worker is not None and worker.reporter is not None:
            worker.reporter.is_at(what)


class OneWorker(_Reported, Alone):
    """A process that a launcher started, and that has no others."""


class TorchRanks(_Reported):
    """`Ranks` over a gloo group: what is told is small, and waiting for it must name who does not come.

    Args:
        timeout_s: how long the others wait for one of them.
    """

    def __init__(self, timeout_s: float) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self._timeout = timedelta(seconds=timeout_s)
        self._group: Any = dist.new_group(backend="gloo", timeout=self._timeout)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        self._meet()
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=self._group)
        return values

    def from_main(self, value: T) -> T:
        self._meet()
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._group)
        return values[0]

    def _meet(self) -> None:
        """Waits for everybody.

        Raises:
            RuntimeFailure: somebody did not come in time, or has ended.
        """
        started = time.monotonic()
        try:
            dist.monitored_barrier(group=self._group, timeout=self._timeout, wait_all_ranks=True)
        except RuntimeError as error:
            waited = time.monotonic() - started
            raise RuntimeFailure(_who_is_missing(str(error), waited, self._timeout.total_seconds())) from error


def _who_is_missing(message: str, waited: float, timeout: float) -> str:
    """Gloo's message in our words. Who ends is missed at once, who stalls when the time is over."""
    found = re.search(r"[Rr]anks? ([\d, ]+) failed to pass", message)
    who = f"rank {found[1].strip()}" if found else "another rank"
    if waited < 0.9 * timeout:
        return f"{who} ended"
    return f"{who} did not come within {waited:.0f} s (--rank-timeout): it has stalled"


def open_ranks(request: LaunchRequest) -> Ranks:
    """Joins the other processes, if there are any; checks that they are as many as were asked for.

    Raises:
        UsageError: they are not.
    """
    worker = current_worker()
    if worker is None:
        return ALONE
    with _silence() if under_deepspeed() else nullcontext():
        state = PartialState(
            **_device(), **InitProcessGroupKwargs(timeout=timedelta(seconds=request.rank_timeout_s)).to_kwargs()
        )
    expected = request.processes or int(os.environ.get(PROCESSES_VARIABLE, worker.count))
    if state.num_processes != expected or worker.count != state.num_processes:
        raise UsageError(
            f"{expected} processes were asked for, but {state.num_processes} run: check --processes and the launcher"
        )
    if zero_stage(request.profile or "") and not under_deepspeed():
        raise UsageError(
            f"--launch {request.profile}: the launcher that started these processes did not configure DeepSpeed; leave "
            "out --launch, or let reft start them"
        )
    return TorchRanks(request.rank_timeout_s) if dist.is_initialized() else OneWorker()


@contextmanager
def _silence() -> Iterator[None]:
    """DeepSpeed tries out at import what it could compile, and the compilers speak; shown only if it fails."""
    with tempfile.TemporaryFile() as said:
        kept = {number: os.dup(number) for number in (1, 2)}
        for number in kept:
            os.dup2(said.fileno(), number)
        try:
            with redirect_stdout(sys.stderr):  # its logger keeps what is standard output now
                yield
        except BaseException:  # whatever it is, it goes on: what was said before it must be seen
            said.seek(0)
            os.write(kept[2], said.read())
            raise
        finally:
            for number, descriptor in kept.items():
                os.dup2(descriptor, number)
                os.close(descriptor)


def _device() -> dict[str, Any]:
    """See `device_arguments`: accelerate without GPUs leaves out DeepSpeed, or believes to be alone."""
    if torch.cuda.is_available():
        return {}
    return {"backend": "gloo"} if under_deepspeed() else {"cpu": True}
