"""Symbolic equality through math-verify, in a process of its own that is killed when it thinks for too long.

math-verify guards itself with SIGALRM, which works in a main thread only and not inside a long computation in C. It
also finds its answer anywhere in a text; here it is only ever given the extracted answer.
"""

from __future__ import annotations

import importlib.util
import json
import select
import subprocess
import sys
import threading
import weakref
from functools import lru_cache

from reftcli.errors import RuntimeFailure, UsageError

_STARTUP_S = 60.0
_MAX_CHARS = 500
_CHILD = """
import json, sys
from math_verify import parse, verify
def read(text):
    return parse("$" + text + "$", parsing_timeout=None)
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    try:
        a, b = json.loads(line)
        read_a = read(a)
        answer = bool(read_a) if b is None else bool(verify(read_a, read(b), timeout_seconds=None))
    except Exception:  # whatever the text made math-verify raise: what cannot be read equals nothing
        answer = False
    print(json.dumps(answer), flush=True)
"""


class SymbolicJudge:
    """One helper process, started at first use and again after it had to be killed. Safe to use from any thread."""

    def __init__(self, timeout_s: float = 2.0) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise UsageError(
                "answers of kind math need the package math-verify: pip install math-verify (or use --answer number)"
            )
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._ask = lru_cache(maxsize=65536)(self._ask_process)

    def readable(self, text: str) -> bool:
        """Whether ``text`` is mathematics that can be compared with other mathematics."""
        return len(text) <= _MAX_CHARS and self._ask(text, None)

    def equal(self, a: str, b: str) -> bool:
        """Whether two expressions are equal. What cannot be read, or decided within the time limit, is not."""
        return max(len(a), len(b)) <= _MAX_CHARS and self._ask(a, b)

    def close(self) -> None:
        if self._process is not None:
            _end(self._process)
            self._process = None

    def _ask_process(self, a: str, b: str | None) -> bool:
        with self._lock:
            process = self._process or self._start()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps([a, b]) + "\n")
                process.stdin.flush()
                answer = _answer(process, self._timeout_s)
            except BrokenPipeError:
                answer = None
            if answer is None:
                self.close()
            return answer == "true"

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        weakref.finalize(self, _end, self._process)
        if _answer(self._process, _STARTUP_S) is None:
            self.close()
            raise RuntimeFailure("math-verify did not start; try `python -c 'import math_verify'`")
        return self._process


def _answer(process: subprocess.Popen[str], timeout_s: float) -> str | None:
    """The next line, or None where it does not come in time. The helper writes whole lines, one for each question."""
    assert process.stdout is not None
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    if not poll.poll(timeout_s * 1000):
        return None
    return process.stdout.readline().strip() or None


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            try:
                stream.close()
            except OSError:
                continue
