"""The worker: reads programs from its socket, forks a child for each, sends back what became of it.

A frame is a 4-byte big-endian length and JSON. In: ``[[id, source], ...]``. Out: first ``{"ready": ...}``, then one
``[id, outcome, payload, cpu_s]`` for each program, in the order in which they end. The worker never looks into a
payload: the child is not trusted, so the other side reads it with care.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from . import program
from .lockdown import Lockdown

_QUICK_S = 0.05
"""A child that is still running after this long no longer holds back the next one."""
_QUICK_AT_ONCE = 1
_LOCKDOWN_FAILED = 77


@dataclass(slots=True)
class _Job:
    id: int
    source: str
    tries: int = 0


@dataclass(slots=True)
class _Child:
    pid: int
    job: _Job
    started: float
    demoted: bool = False
    output: bytearray = field(default_factory=bytearray)


class Worker:
    """One event loop over the socket and the result pipes of the running children."""

    def __init__(self, channel: socket.socket, lockdown: Lockdown, config: dict[str, Any]) -> None:
        self._channel = channel
        self._lockdown = lockdown
        self._timeout_s = float(config["timeout_s"])
        self._result_bytes = int(config["result_bytes"])
        self._at_once = int(config["at_once"])
        self._incoming = bytearray()
        self._queue: deque[_Job] = deque()
        self._children: dict[int, _Child] = {}
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)
        self._parent = os.getppid()

    def serve(self) -> None:
        """Until the other side closes the socket or is gone."""
        while True:
            self._start_children()
            for descriptor, _ in self._poll.poll(50 if self._children else 1000):
                if descriptor != self._channel.fileno():
                    self._read_result(descriptor)
                elif not self._read_jobs():
                    return
            if self._children:
                self._stop_stuck_children()
            elif os.getppid() != self._parent:  # a fork of the parent may hold the socket open for ever
                return

    def send(self, message: object) -> None:
        data = json.dumps(message).encode()
        self._channel.sendall(struct.pack(">I", len(data)) + data)

    def _read_jobs(self) -> bool:
        data = self._channel.recv(1 << 20)
        self._incoming += data
        while len(self._incoming) >= 4:
            (length,) = struct.unpack(">I", self._incoming[:4])
            if len(self._incoming) < 4 + length:
                break
            for number, source in json.loads(self._incoming[4 : 4 + length]):
                self._queue.append(_Job(number, source))
            del self._incoming[: 4 + length]
        return bool(data)

    def _start_children(self) -> None:
        quick_since = time.monotonic() - _QUICK_S
        quick = sum(child.started > quick_since for child in self._children.values())
        while self._queue and quick < _QUICK_AT_ONCE and len(self._children) < self._at_once:
            self._start_child(self._queue.popleft())
            quick += 1

    def _start_child(self, job: _Job) -> None:
        read_fd, write_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._be_child(job.source, write_fd)
        os.close(write_fd)
        self._children[read_fd] = _Child(pid, job, time.monotonic())
        self._poll.register(read_fd, select.POLLIN)

    def _be_child(self, source: str, write_fd: int) -> None:
        """Never returns: nothing of the worker may run in a process that has run a program."""
        try:
            left = self._lockdown.put_on(write_fd)
        except BaseException:  # noqa: BLE001 - whatever went wrong, nothing may run here
            os._exit(_LOCKDOWN_FAILED)
        for others in (self._queue, self._children, self._incoming):  # a program walks frames and finds its neighbours
            others.clear()
        try:
            result = program.run(source)
            while result:
                result = result[os.write(left, result) :]
        finally:
            os._exit(0)

    def _read_result(self, descriptor: int) -> None:
        child = self._children[descriptor]
        data = os.read(descriptor, 1 << 17)
        child.output += data
        if not data:
            self._finish(descriptor)
        elif len(child.output) > self._result_bytes:
            self._finish(descriptor, "oversize")

    def _finish(self, descriptor: int, outcome: str | None = None) -> None:
        """Ends a child for good and reports it. Its end of the pipe may be closed while it still runs."""
        child = self._children.pop(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        _, status, usage = os.wait4(child.pid, 0)
        cpu_s = usage.ru_utime + usage.ru_stime
        if outcome == "stuck" and child.job.tries == 0:
            child.job.tries = 1
            self._queue.append(child.job)
            return
        payload = child.output.decode("utf-8", "replace") if outcome is None else ""
        self.send([child.job.id, outcome or self._how_it_ended(status, cpu_s, payload), payload, round(cpu_s, 4)])

    def _how_it_ended(self, status: int, cpu_s: float, payload: str) -> str:
        if payload and not os.WIFSIGNALED(status):
            return "done"
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number in (signal.SIGPROF, signal.SIGXCPU) or cpu_s >= 0.95 * self._timeout_s:
                return "timeout"
            return "done" if payload and number == signal.SIGKILL else signal.Signals(number).name
        return "unprotected" if os.waitstatus_to_exitcode(status) == _LOCKDOWN_FAILED else "exit"

    def _stop_stuck_children(self) -> None:
        """Ends children that wait instead of computing; a busy machine never makes a child look like that."""
        now = time.monotonic()
        for descriptor, child in list(self._children.items()):
            elapsed = now - child.started
            if elapsed < _QUICK_S:
                continue
            if not child.demoted:  # quick programs go first when cores are short
                child.demoted = True
                os.setpriority(os.PRIO_PROCESS, child.pid, 10)
            if _waited_s(child.pid, elapsed) > self._timeout_s / 2 or elapsed > 60 + 30 * self._timeout_s:
                self._finish(descriptor, "stuck")


def _waited_s(pid: int, elapsed_s: float) -> float:
    """Seconds the process spent neither running nor ready to run. 0 where the kernel keeps no such account."""
    try:
        with open(f"/proc/{pid}/schedstat") as schedstat:
            ran_ns, queued_ns, _ = (int(word) for word in schedstat.read().split())
    except (OSError, ValueError):
        return 0.0
    return elapsed_s - (ran_ns + queued_ns) / 1e9


def _preload(modules: list[str]) -> None:
    """Imports ``modules``; a name ending in ``.*`` brings its submodules, because a child cannot import from disk."""
    for name in modules:
        try:
            module = importlib.import_module(name.removesuffix(".*"))
        except ImportError:
            continue
        if name.endswith(".*"):
            for found in pkgutil.walk_packages(module.__path__, module.__name__ + "."):
                if not {"tests", "benchmarks", "doc"} & set(found.name.split(".")):
                    try:
                        importlib.import_module(found.name)
                    except Exception:  # noqa: BLE001 - optional parts need packages that are not installed
                        continue


def main() -> None:
    """Entry point; ``sys.argv[1]`` is the configuration, file descriptor 0 the socket."""
    config = json.loads(sys.argv[1])
    channel = socket.socket(fileno=os.dup(0))
    os.environ.clear()
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    sys.path[:] = [path for path in sys.path if path != config["drop"]] + config["paths"]
    _preload(config["preload"])
    os.environ.clear()
    sys.path.clear()
    sys.argv[1:] = []
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed(0)
    lockdown = Lockdown(float(config["timeout_s"]), int(config["memory_mb"]))
    lockdown.settle()
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection would touch, and so copy, every page a child shares with the worker
    escapes = lockdown.escapes()
    worker = Worker(channel, lockdown, config)
    worker.send({"ready": True, "escapes": escapes, "landlock_abi": lockdown.landlock_abi})
    if not escapes:
        worker.serve()
