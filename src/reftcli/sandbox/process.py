"""One worker process, seen from this side: started clean, fed and read without ever blocking."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reftcli.errors import RuntimeFailure
from reftcli.sandbox.interface import RunLimits

_HERE = str(Path(__file__).resolve().parent)
_BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from worker.main import main; main()"

# With nothing else set, -s -P is as isolated as -I, which would ignore the seed: sets must not iterate differently
# in every worker, or a verdict would depend on the worker.
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}

PLAIN_MODULES = (  # noqa: SIM905
    "__future__ abc array ast bisect calendar cmath collections.abc contextlib copy dataclasses datetime decimal "
    "enum fractions functools heapq io itertools json logging math numbers operator pprint queue random re "
    "statistics string textwrap threading time timeit traceback types typing unicodedata _pylong _strptime locale "
    "encodings.ascii encodings.latin_1 encodings.idna encodings.utf_16"
).split()
SCIENCE_MODULES = (  # noqa: SIM905
    "numpy numpy.linalg numpy.random numpy.polynomial numpy.fft numpy.ma mpmath sympy sympy.abc sympy.stats "
    "sympy.assumptions.* sympy.codegen sympy.combinatorics.* sympy.concrete.* sympy.core sympy.discrete.* "
    "sympy.integrals.* sympy.logic.algorithms.dpll2 sympy.logic.utilities sympy.matrices.* sympy.ntheory.* "
    "sympy.physics.units sympy.polys.* sympy.series.* sympy.sets.* sympy.simplify.* sympy.vector"
).split()

SHARED_AT_ONCE = 128
"""Programs in one process, at most: as many as keep the cost of a fork small beside theirs."""
SHARED_WINDOW = 2 * SHARED_AT_ONCE
ALONE_WINDOW = 8
"""Programs in flight per worker. It may run all that are alone at once, so that slow ones hold nobody up."""

Frame = Any


class WorkerProcess:
    """A worker with its unanswered programs; closing the socket ends it, and so does the end of this process.

    ``pending`` maps a program's number to whether it was sent to share a process.
    """

    def __init__(self, limits: RunLimits, *, science: bool) -> None:
        self.science = science
        self.pending: dict[int, bool] = {}
        self.last_heard = time.monotonic()
        self.handshake: Mapping[str, Any] | None = None
        self._outgoing = bytearray()
        self._incoming = bytearray()
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        config = {
            "timeout_s": limits.timeout_s,
            "memory_mb": limits.memory_mb,
            "result_bytes": limits.result_bytes,
            "at_once": ALONE_WINDOW,
            "preload": [*PLAIN_MODULES, *(SCIENCE_MODULES if science else [])],
            "paths": _library_paths() if science else [],
            "drop": _HERE,
        }
        self.socket, theirs = socket.socketpair()
        self.socket.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-S", "-B", "-c", _BOOT, _HERE, json.dumps(config)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._complaints,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,  # Ctrl-C at the terminal is for the trainer, which then closes us
            )

    def submit(self, numbers: Sequence[int], sources: Sequence[str], *, shared: bool) -> None:
        """Queues programs that may share a process, or one that has its own; ``flush`` sends them."""
        self.pending.update(dict.fromkeys(numbers, shared))
        data = json.dumps([shared, numbers, sources]).encode()
        self._outgoing += struct.pack(">I", len(data)) + data

    def free(self, *, shared: bool) -> int:
        """How many more programs it can be given without queueing up behind each other."""
        given = sum(is_shared == shared for is_shared in self.pending.values())
        return max(0, (SHARED_WINDOW if shared else ALONE_WINDOW) - given)

    @property
    def has_to_send(self) -> bool:
        return bool(self._outgoing)

    def flush(self) -> None:
        """Sends what fits. A dead worker is noticed by ``receive``."""
        try:
            sent = self.socket.send(memoryview(self._outgoing)[: 1 << 18])
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._outgoing)
        del self._outgoing[:sent]

    def receive(self) -> list[Frame] | None:
        """Complete frames that have arrived; None when the worker is gone."""
        try:
            data = self.socket.recv(1 << 20)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        self.last_heard = time.monotonic()
        self._incoming += data
        frames = []
        while len(self._incoming) >= 4:
            (length,) = struct.unpack(">I", self._incoming[:4])
            if len(self._incoming) < 4 + length:
                break
            frames.append(json.loads(self._incoming[4 : 4 + length]))
            del self._incoming[: 4 + length]
        if frames and self.handshake is None:
            self.handshake = frames.pop(0)
        return frames

    def complaint(self) -> str:
        """Why a worker that never said hello ended, in one line."""
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._complaints.seek(0)
        lines = self._complaints.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"

    def close(self) -> None:
        """Ends the worker and, through the kernel, the programs it runs. A fork of our process only lets go."""
        self.socket.close()
        self._complaints.close()
        self._process.kill()
        self._process.wait()

    def abandon(self) -> None:
        """In a fork of the process that owns the worker: lets go of the descriptors without ending anything."""
        self.socket.close()
        self._process.returncode = 0  # else Popen warns, at its end, about a child that was never ours


def require_posix() -> None:
    """Raises RuntimeFailure where no program can be contained, before anything is started."""
    if sys.platform != "linux":
        raise RuntimeFailure(
            f"programs cannot be run safely on {sys.platform}: P-CoT needs Linux (x86_64 or aarch64) with seccomp; "
            "use --cot ncot here, or a Linux machine or container"
        )


def _library_paths() -> Sequence[str]:
    """Folders that hold the libraries programs may import. ``-S`` hides site-packages, and with it every .pth hook."""
    paths: dict[str, None] = {}
    for name in ("numpy", "sympy", "mpmath"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            paths[os.path.dirname(os.path.dirname(spec.origin))] = None
    return list(paths)
