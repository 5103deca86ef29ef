"""Symbolic equality through math-verify, in processes of its own that are ended when they think for too long.

math-verify guards itself with SIGALRM, which works in a main thread only and not inside a long computation in C. It
also finds its answer anywhere in a text; here it is only ever given the extracted answer.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from functools import lru_cache

from reftcli.errors import RuntimeFailure, UsageError
from reftcli.grading.dress import plain_text
from reftcli.grading.extraction import BOXED, braced, last_match
from reftcli.grading.number_words import changes_the_number, counts_in_words

_STARTUP_S = 60.0
_GRACE_S = 0.9
"""Beyond its CPU seconds, what a question may take on a busy machine before its worker is ended."""
_MEMORY_BYTES = 1 << 30
_MAX_CHARS = 500

# The helper imports math-verify once, and forks a worker that answers. A worker that uses up its CPU time (SIGPROF ends
# it, inside C code too) or its memory costs a fork, not an import. Limits are set here: a preexec_fn is unsafe in a
# program with threads, as the trainer is one.
_CHILD = """
import json, os, resource, select, signal, sys
from math_verify import parse, verify
LIMIT_S, GRACE_S, MEMORY = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
def read(text):
    return parse("$" + text + "$", parsing_timeout=None)
def answer(a, b):
    try:
        read_a = read(a)
        if b is None:  # a text comes back beside what was read, and alone where nothing was
            return any(not isinstance(part, str) for part in read_a)
        return bool(verify(read_a, read(b), timeout_seconds=None))
    except Exception:  # whatever the text made math-verify raise: what cannot be read equals nothing
        return False
def work(questions, answers):
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for line in questions:
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
        text = json.dumps(answer(*json.loads(line)))
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(text + "\\n")
        answers.flush()
class Worker:
    def __init__(self):
        ours, theirs = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(ours[1]), os.close(theirs[0])
            try:
                work(open(ours[0]), open(theirs[1], "w"))
            finally:
                os._exit(0)
        os.close(ours[0]), os.close(theirs[1])
        self.questions, self.answers = ours[1], theirs[0]
    def ask(self, line):
        os.write(self.questions, line)
        ready = select.select([self.answers, 0], [], [], LIMIT_S + GRACE_S)[0]  # 0: who asked has gone
        return os.read(self.answers, 100) if self.answers in ready else b""
    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.questions), os.close(self.answers)
os.write(1, b'"ready"\\n')
worker = None
for line in sys.stdin.buffer:
    worker = worker or Worker()
    reply = worker.ask(line)
    if not reply:
        worker.end()
        worker = None
    os.write(1, reply or b"null\\n")
if worker:
    worker.end()
"""

_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\d+|[A-Za-z]))")
_POWER = re.compile(r"(?<=[\w)}])\s*\*\*\s*(?=[\w({-])")
_WORDS = re.compile(r"[A-Za-z]{2,}(?: [A-Za-z]{2,})*")
_WORDED = re.compile(r"\\(?:text|mathrm|textbf)\{[^{}]*\}|[A-Za-z]{4,}(?: [A-Za-z]+)*")
_LETTER_IN_BRACKETS = re.compile(r"^\(([A-Za-z])\)$")
_MATH_MARK = re.compile(r"(?<!\\)\$|(?<!\\)\\[()\[\]]")
_WITH_UNIT = re.compile(
    r"(\$[^$]+\$|\\\([^$]+?\\\)|\\boxed\{(?:[^{}]|\{[^{}]*\})+\})"
    r"\s+((?!(?:and|but|then|also|which|vs|aka|wait|because|so)\b)[A-Za-z]+(?: (?!and\b|but\b|then\b)[A-Za-z]+){0,3})"
)
_ABOUT = re.compile(r"\\approx(?![A-Za-z])|≈")
_DECIMAL = re.compile(r"\s*-?\d+(?:\.\d+)?[\s.]*")
_NAME = re.compile(r"([A-Za-z](?:_\{?\w+\}?|\d*))\s*=(?!=)\s*")
_MEMBER = re.compile(r"[A-Za-z]\s*\\in\b\s*")
_SET = re.compile(r"\\\{(?!.*(?::|\\mid|\|)).+\\\}$")
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_PI = re.compile(r"(?<![\\A-Za-z])pi(?![A-Za-z])")


class SymbolicJudge:
    """One helper process, started at first use and again if it was lost. Safe to use from any thread."""

    def __init__(self, timeout_s: float = 2.0) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise UsageError(
                "answers of kind math need the package math-verify: pip install math-verify (or use --answer number)"
            )
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._endless: set[str] = set()
        self._ask = lru_cache(maxsize=65536)(self._ask_process)

    def readable(self, text: str) -> bool:
        """Whether ``text`` is mathematics that can be compared with other mathematics."""
        return len(text) <= _MAX_CHARS and (_is_worded(text) or self._ask(in_latex(text), None))

    def equal(self, a: str, b: str) -> bool:
        """Whether answer ``a`` equals gold answer ``b``. What cannot be read, or decided in time, is not."""
        if max(len(a), len(b)) > _MAX_CHARS:
            return False
        first, second = in_latex(a), in_latex(b)
        about = _ABOUT.split(first)
        if len(about) > 1 and (len(about) > 2 or not _DECIMAL.fullmatch(about[1])):
            return False
        return self._ask(first, second)

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._process is not None:
            _end(self._process)
            self._process = None

    def _ask_process(self, a: str, b: str | None) -> bool:
        with self._lock:
            if a in self._endless:
                return False
            answer = self._answer(a, b) or self._answer(a, b)  # again, where the helper was lost before or meanwhile
            if answer == "null":
                self._endless.add(a)
            return answer == "true"

    def _answer(self, a: str, b: str | None) -> str | None:
        """The helper's line: true, false, or null where a worker was ended; None where the helper itself is gone."""
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps([a, b]) + "\n")
            process.stdin.flush()
            answer = _next_line(process, self._timeout_s + 5)
        except BrokenPipeError:
            answer = None
        if answer is None:
            self._stop()
        return answer

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _CHILD, str(self._timeout_s), str(_GRACE_S), str(_MEMORY_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        weakref.finalize(self, _end, self._process)
        if _next_line(self._process, _STARTUP_S) is None:
            self._stop()
            raise RuntimeFailure("math-verify did not start; try `python -c 'import math_verify'`")
        return self._process


def in_latex(text: str) -> str:
    """What math-verify shall read: all of the text, in one piece, and 2√3, x**2, 2pi in LaTeX.

    Where a part of a text stands in dollar signs or in a box, math-verify reads that part alone, whatever is around it.
    """
    with_unit = _WITH_UNIT.fullmatch(text.strip(" *_`."))
    if with_unit is not None and not (changes_the_number(with_unit[2]) or counts_in_words(with_unit[2])):
        text = with_unit[1]
    for _ in range(text.count("box")):
        opened = last_match(BOXED, text)
        inside = None if opened is None else braced(text, opened.end())
        if opened is None or inside is None:
            break
        text = f"{text[: opened.start()]} {inside} {text[opened.end() + len(inside) + 1 :]}"
    text = _MATH_MARK.sub(" ", text).strip(" *_`.")
    text = _ROOT.sub(lambda root: f"\\sqrt{{{root[1] or root[2]}}}", text)
    return _PI.sub(r"\\pi ", _POWER.sub("^", text))


def same_formula(a: str, b: str) -> bool:
    """Whether two formulas are written alike. Case and ``!`` matter, except in words."""
    if max(len(a), len(b)) > _MAX_CHARS:
        return a.strip() == b.strip()
    first, second = (_LETTER_IN_BRACKETS.sub(r"\1", _plain_formula(text)) for text in (a, b))
    return first == second or (_WORDS.fullmatch(first) is not None and first.casefold() == second.casefold())


def _plain_formula(text: str) -> str:
    return " ".join(plain_text(text).split()).rstrip(" .,;")


def same_shape(a: str, b: str) -> bool:
    """Whether answers that are not written alike may be equal at all, where math-verify takes one for the other.

    A word is a product of letters to it. A point or an interval is neither a set nor a list without brackets, and an
    equation for y is none for x.
    """
    if max(len(a), len(b)) > _MAX_CHARS or _is_worded(a) or _is_worded(b):
        return False
    (kind_a, name_a), (kind_b, name_b) = _shape(a), _shape(b)
    if name_a and name_b and name_a != name_b:
        return False
    return kind_a == kind_b or {kind_a, kind_b} not in ({"tuple", "set"}, {"tuple", "list"}, {"", "set"})


def _is_worded(text: str) -> bool:
    return _WORDED.fullmatch(text.strip(" .$*")) is not None


def _shape(text: str) -> tuple[str, str]:
    """The kind of brackets around a list, and the letter that stands alone before an equals sign."""
    body = _plain_formula(text)
    body = body[member.end() :] if (member := _MEMBER.match(body)) else body
    name = _NAME.match(body)
    body = body[name.end() :] if name else body
    if _SET.match(body):
        kind = "set"
    elif "," not in _GROUPED.sub("", body):
        kind = ""
    else:
        kind = "tuple" if body[0] in "([" and body[-1] in ")]" and "\\cup" not in body else "list"
    return kind, name[1] if name else ""


def _next_line(process: subprocess.Popen[str], timeout_s: float) -> str | None:
    """The next line, or None where it does not come in time. The helper writes whole lines, one for each question."""
    assert process.stdout is not None
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    if not poll.poll(timeout_s * 1000):
        return None
    return process.stdout.readline().strip() or None


def _end(process: subprocess.Popen[str]) -> None:
    """Ends the helper, which first ends its worker and waits for it; if it does not, both are killed."""
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    try:
        process.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
