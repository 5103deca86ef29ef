"""The worker's event loop: forks a locked-down child for each job, watches it, sends back what became of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from . import program
from .lockdown import Lockdown

_QUICK_S = 0.05
"""A child that is still running after this long no longer holds back the next one."""
_SHARED_CPU_S = 0.1
"""CPU time of a child that runs several programs. What it cannot finish runs again, the one that stopped it alone."""
_LOCKDOWN_FAILED = 77

Result = tuple[int, str, str, float]
"""Number of the program, how it ended, what it wrote, CPU seconds."""


@dataclass(slots=True)
class _Job:
    """Programs for one child: a single one, or several that may turn out to be able to share it."""

    numbers: list[int]
    sources: list[str]
    shared: bool
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
        self._demoted_nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)

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
            shared, numbers, sources = json.loads(self._incoming[4 : 4 + length])
            self._queue.append(_Job(numbers, sources, shared))
            del self._incoming[: 4 + length]
        return bool(data)

    def _start_children(self) -> None:
        quick_since = time.monotonic() - _QUICK_S
        quick = any(child.started > quick_since for child in self._children.values())
        if self._queue and not quick and len(self._children) < self._at_once:
            self._start_child(self._queue.popleft())

    def _start_child(self, job: _Job) -> None:
        read_fd, write_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._be_child(job, write_fd)
        os.close(write_fd)
        self._children[read_fd] = _Child(pid, job, time.monotonic())
        self._poll.register(read_fd, select.POLLIN)

    def _be_child(self, job: _Job, write_fd: int) -> None:
        """Never returns: nothing of the worker may run in a process that has run a program."""
        try:
            cpu_s = min(_SHARED_CPU_S, self._timeout_s) if job.shared else self._timeout_s
            left = self._lockdown.put_on(write_fd, cpu_s)
        except BaseException:  # noqa: BLE001 - whatever went wrong, nothing may run here
            os._exit(_LOCKDOWN_FAILED)
        for others in (self._queue, self._children, self._incoming):  # a program walks frames and finds its neighbours
            others.clear()
        try:
            if job.shared:
                program.run_shared(job.sources, lambda lines: _write_all(left, lines))
            else:
                _write_all(left, program.run_alone(job.sources[0]))
        finally:
            os._exit(0)

    def _read_result(self, descriptor: int) -> None:
        child = self._children[descriptor]
        data = os.read(descriptor, 1 << 17)
        child.output += data
        if not data:
            self._finish(descriptor)
        elif len(child.output) > self._result_bytes * len(child.job.numbers):
            self._finish(descriptor, "oversize")

    def _finish(self, descriptor: int, outcome: str | None = None) -> None:
        """Ends a child for good and reports it. Its end of the pipe may be closed while it still runs."""
        child = self._children.pop(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        _, status, usage = os.wait4(child.pid, 0)
        if child.job.shared:
            self._report_shared(child, ended_well=outcome is None and status == 0)
            return
        cpu_s = usage.ru_utime + usage.ru_stime
        if outcome == "stuck" and child.job.tries == 0:
            child.job.tries = 1
            self._queue.append(child.job)
            return
        payload = child.output.decode("utf-8", "replace") if outcome is None else ""
        how = outcome or self._how_it_ended(status, cpu_s, payload)
        self.send([(child.job.numbers[0], how, payload, round(cpu_s, 4))])

    def _report_shared(self, child: _Child, *, ended_well: bool) -> None:
        """The complete lines, one for each program; who ended the process goes alone, and the rest goes round again."""
        *lines, _ = child.output.split(b"\n")
        numbers, sources = child.job.numbers, child.job.sources
        results: list[Result] = []
        for number, line in zip(numbers, lines, strict=False):
            how, cpu_s, payload = _read_line(bytes(line))
            results.append((number, how, payload, cpu_s))
        if not ended_well or not results:
            lost = numbers[len(results) : len(results) + 1]
            results += [(number, "alone", "", 0.0) for number in lost]
        rest = slice(len(results), None)
        if numbers[rest]:
            self._queue.appendleft(_Job(numbers[rest], sources[rest], shared=True))
        self.send(results)

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
                os.setpriority(os.PRIO_PROCESS, child.pid, self._demoted_nice)
            if _waited_s(child.pid, elapsed) > self._timeout_s / 2 or elapsed > 60 + 30 * self._timeout_s:
                self._finish(descriptor, "stuck")


def _read_line(line: bytes) -> tuple[str, float, str]:
    """How, CPU seconds and payload. What is not such a line makes the program run again, alone."""
    how, _, rest = line.decode("utf-8", "replace").partition(" ")
    cpu_s, _, payload = rest.partition(" ")
    if how in ("done", "endless") and re.fullmatch(r"\d{1,4}(\.\d{1,6})?", cpu_s):
        return how, float(cpu_s), payload
    return "alone", 0.0, ""


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _waited_s(pid: int, elapsed_s: float) -> float:
    """Seconds the process spent neither running nor ready to run. 0 where the kernel keeps no such account.

    The filter leaves a program nothing to wait for: this is for what is done to it from outside, a stop for example.
    """
    try:
        with open(f"/proc/{pid}/schedstat") as schedstat:
            ran_ns, queued_ns, _ = (int(word) for word in schedstat.read().split())
    except (OSError, ValueError):
        return 0.0
    return elapsed_s - (ran_ns + queued_ns) / 1e9
