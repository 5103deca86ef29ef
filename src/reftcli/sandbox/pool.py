"""The pool: runs batches of unread programs on worker processes, one outcome for each program, in order."""

from __future__ import annotations

import itertools
import math
import os
import re
import select
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from functools import cache

from reftcli.errors import RuntimeFailure
from reftcli.sandbox.decode import read_outcome
from reftcli.sandbox.interface import Outcome, RunLimits, Status
from reftcli.sandbox.level import Level, Protections
from reftcli.sandbox.process import SHARED_AT_ONCE, WorkerProcess, require_posix

_NEEDS_SCIENCE = re.compile(r"sympy|numpy|mpmath")


def default_workers() -> int:
    """One per core that this process may use, shared fairly among the ranks of a launcher on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1") or 1)
    return max(1, min(16, cores // max(1, ranks)))


class Pool:
    """Worker processes behind one method, ``run``. They start at first use and end with this process.

    Programs that name sympy or numpy go to workers that have them loaded; all others go to lean workers, which start
    in 0.1 s instead of about a second and fork several times faster. Safe to use from several threads, one batch at a
    time. Raises RuntimeFailure where programs cannot be contained.
    """

    def __init__(self, workers: int | None = None, limits: RunLimits | None = None) -> None:
        self.limits = limits or RunLimits()
        self._size = workers or default_workers()
        self._lock = threading.Lock()
        self._workers: list[WorkerProcess] = []
        self._owner = os.getpid()
        self._finalizer = weakref.finalize(self, _close_all, self._workers, self._owner)
        self._protections: Protections | None = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def run(self, programs: Sequence[str]) -> list[Outcome]:
        """One outcome for each program, in order. Equal programs run once. Never raises for what a program does."""
        require_posix()
        distinct = list(dict.fromkeys(programs))
        with self._lock:
            self._forget_inherited_workers()
            try:
                outcomes = dict(zip(distinct, _Batch(self, distinct).run(), strict=True))
            except BaseException:
                _close_all(self._workers, self._owner)  # their sockets hold answers to a batch nobody waits for
                raise
        return [outcomes[program] for program in programs]

    def protections(self) -> Protections:
        """What holds programs in on this machine, tried for real by a worker."""
        try:
            if self._protections is None:
                self.run(["def solution():\n    return 1"])
        except RuntimeFailure:
            if self._protections is None:
                return Protections(Level.NONE, escapes=("everything",))
        assert self._protections is not None
        return self._protections

    def close(self) -> None:
        """Ends the workers; the pool starts new ones if it is used again."""
        with self._lock:
            self._forget_inherited_workers()
            _close_all(self._workers, self._owner)

    def start_worker(self, science: bool) -> WorkerProcess:
        worker = WorkerProcess(self.limits, science=science)
        self._workers.append(worker)
        return worker

    def workers(self, science: bool) -> list[WorkerProcess]:
        return [worker for worker in self._workers if worker.science == science]

    @property
    def size(self) -> int:
        """Workers of each of the two sorts, at most."""
        return self._size

    def drop(self, worker: WorkerProcess) -> None:
        self._workers.remove(worker)
        worker.close()

    def check(self, worker: WorkerProcess) -> None:
        """Refuses to go on with a worker that found a way out of its own lockdown."""
        assert worker.handshake is not None
        self._protections = Protections.from_handshake(worker.handshake)
        self._protections.require_boundary()
        if self._protections.level is not Level.FULL:
            _say_once(f"reft: programs run at a lower level of protection, {self._protections.in_words()}")

    def _forget_inherited_workers(self) -> None:
        if os.getpid() != self._owner:
            for worker in self._workers:
                worker.abandon()
            self._workers.clear()
            self._owner = os.getpid()
            self._finalizer.detach()
            self._finalizer = weakref.finalize(self, _close_all, self._workers, self._owner)


@cache
def _say_once(line: str) -> None:
    """On standard error, once in this process: who runs unread programs should know what holds them."""
    print(line, file=sys.stderr, flush=True)


def _close_all(workers: list[WorkerProcess], owner: int) -> None:
    while workers and os.getpid() == owner:
        workers.pop().close()


class _Batch:
    """One call of ``Pool.run``: which programs wait, which are out, what came back."""

    def __init__(self, pool: Pool, programs: Sequence[str]) -> None:
        self._pool = pool
        self._programs = programs
        self._outcomes: list[Outcome | None] = [None] * len(programs)
        self._lost_once: set[int] = set()
        self._left = len(programs)
        self._silence_s = 120 + 60 * pool.limits.timeout_s
        self._sharing: deque[int] = deque()
        self._alone: dict[bool, deque[int]] = {False: deque(), True: deque()}
        for number, source in enumerate(programs):
            if len(source) > pool.limits.source_chars:
                self._settle(number, Outcome(Status.ERROR, error="ProgramTooLong"))
            elif _NEEDS_SCIENCE.search(source):
                self._alone[True].append(number)
            else:
                self._sharing.append(number)

    def run(self) -> list[Outcome]:
        while self._left:
            for science in (False, True):
                self._hand_out(science)
            busy = [worker for science in (False, True) for worker in self._pool.workers(science) if worker.pending]
            writers = [worker for worker in busy if worker.has_to_send]
            readable, writable = _wait_for(busy, writers)
            for worker in writable:
                worker.flush()
            for worker in readable:
                self._collect(worker)
            self._replace_silent(busy)
        return [outcome for outcome in self._outcomes if outcome is not None]

    def _hand_out(self, science: bool) -> None:
        alone, sharing = self._alone[science], deque() if science else self._sharing
        workers = self._pool.workers(science)
        while (alone or sharing) and len(workers) < min(self._pool.size, len(alone) + len(sharing)):
            workers.append(self._pool.start_worker(science))
        for shared, waiting in ((True, sharing), (False, alone)):
            size = min(SHARED_AT_ONCE, math.ceil(len(waiting) / max(1, len(workers)))) if shared else 1
            while waiting:
                worker = max(workers, key=lambda candidate: candidate.free(shared=shared))
                if worker.free(shared=shared) < size:
                    break
                if not worker.pending:
                    worker.last_heard = time.monotonic()
                numbers = [waiting.popleft() for _ in range(min(size, len(waiting)))]
                worker.submit(numbers, [self._programs[number] for number in numbers], shared=shared)

    def _collect(self, worker: WorkerProcess) -> None:
        first = worker.handshake is None
        frames = worker.receive()
        if frames is None:
            self._replace(worker)
            return
        if first and worker.handshake is not None:
            self._pool.check(worker)
        for number, how, payload, cpu_s in itertools.chain.from_iterable(frames):
            if worker.pending.pop(number, None) is None:
                continue
            if how == "alone":
                self._alone[worker.science].append(number)
            else:
                self._settle(number, read_outcome(how, payload, cpu_s))

    def _replace(self, worker: WorkerProcess) -> None:
        """A worker died: its programs go to another one, once."""
        if worker.handshake is None:
            raise RuntimeFailure(f"a sandbox worker could not start: {worker.complaint()}; `reft env` says more")
        lost, worker.pending = list(worker.pending), {}
        for number in lost:
            if number in self._lost_once:
                self._settle(number, Outcome(Status.KILLED, error="WorkerLost"))
            else:
                self._lost_once.add(number)
                self._alone[worker.science].append(number)
        self._pool.drop(worker)

    def _replace_silent(self, workers: Sequence[WorkerProcess]) -> None:
        now = time.monotonic()
        for worker in workers:
            if worker.pending and worker.handshake is not None and now - worker.last_heard > self._silence_s:
                self._replace(worker)

    def _settle(self, number: int, outcome: Outcome) -> None:
        self._outcomes[number] = outcome
        self._left -= 1


def _wait_for(
    readers: Sequence[WorkerProcess], writers: Sequence[WorkerProcess]
) -> tuple[list[WorkerProcess], list[WorkerProcess]]:
    """Workers that can be read and written now, after waiting up to a second. Works above descriptor 1023."""
    poll = select.poll()
    by_descriptor = {worker.socket.fileno(): worker for worker in readers}
    for descriptor, worker in by_descriptor.items():
        poll.register(descriptor, select.POLLIN | (select.POLLOUT if worker in writers else 0))
    readable, writable = [], []
    for descriptor, event in poll.poll(1000):
        if event & select.POLLOUT:
            writable.append(by_descriptor[descriptor])
        if event & ~select.POLLOUT:
            readable.append(by_descriptor[descriptor])
    return readable, writable
