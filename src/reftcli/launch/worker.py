"""Being one process of several, whoever started them: `reft --launch`, ``accelerate launch`` or ``torchrun``."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from reftcli.launch.reports import Reporter

FOLDER_VARIABLE = "REFT_WORKERS_FOLDER"
"""Where workers that `reft --launch` started leave their reports."""
PROCESSES_VARIABLE = "REFT_PROCESSES"
"""How many it meant to start."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Worker:
    """This process among the others. ``reporter`` is there where `reft --launch` started it."""

    rank: int
    count: int
    reporter: Reporter | None


_worker: Worker | None = None


def current_worker() -> Worker | None:
    """None: this process works alone."""
    return _worker


def become_worker() -> None:
    """Called first of all. Only rank 0 speaks; what ends a worker goes to the command that started it."""
    global _worker  # noqa: PLW0603 - what a process is, it is once
    named = [os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR")]
    # Accelerate starts one process without these; it must know what it is, or it would start workers in its turn.
    rank, count = (0, 1) if any(value is None for value in named) else (int(named[0] or 0), int(named[1] or 1))
    folder = os.environ.get(FOLDER_VARIABLE)
    if count == 1 and folder is None:
        return
    reporter = None if folder is None else Reporter(Path(folder), rank)
    _worker = Worker(rank, count, reporter)
    if reporter is not None:
        _end_with_parent()
        if os.getsid(0) != os.getpid():  # where accelerate starts one process: a terminal's Ctrl-C would come twice
            os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _keep_standard_output(speaks=rank == 0)
    if rank:
        logging.disable(logging.CRITICAL)


def alone_on_one_gpu() -> None:
    """Hides all GPUs but the first, before torch looks: Trainer would spread one process over all that it sees.

    Its batches would then be as many times larger as there are GPUs, and nobody would be told.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = "0" if visible is None else visible.split(",")[0]


def end_worker(code: int) -> None:
    """Ends this process, if it is one of several: the others are waited for, so that none misses another at its end.

    What the libraries of communication do when an interpreter ends is a race that ends some processes with SIGABRT.
    """
    if _worker is None:
        return
    distributed = sys.modules.get("torch.distributed")
    if code == 0 and distributed is not None and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_with_parent() -> None:
    """Workers have a session of their own: without this, a killed command would leave them running."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _keep_standard_output(*, speaks: bool) -> None:
    """Standard output holds results only: what libraries write there (gloo does, from C++) goes to standard error."""
    sys.stdout.flush()
    if speaks:
        sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as we live
