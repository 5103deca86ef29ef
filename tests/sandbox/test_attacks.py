"""Hostile and broken programs: each is stopped, leaves nothing behind, and the next program still runs right."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reftcli.sandbox.interface import RunLimits
from reftcli.sandbox.pool import Pool

TIMEOUT_S = 0.4
ENDED = "ended"  # no value, however it came to that

ATTACKS: dict[str, tuple[str, str]] = {  # name: (body of the program, how it must end)
    "endless loop": ("def solution():\n while True: pass", "timeout"),
    "endless loop that swallows": (
        "def solution():\n while True:\n  try:\n   while True: pass\n  except BaseException: pass",
        "timeout",
    ),
    "endless loop in C": ("def solution():\n return sum(iter(int, 1))", "timeout"),
    "endless loop at import": ("while True: pass", "timeout"),
    "endless generator": ("import itertools\ndef solution():\n return max(itertools.count())", "timeout"),
    "endless conversion": (
        "class A(int):\n def __int__(s):\n  while True: pass\ndef solution():\n return A()",
        "timeout",
    ),
    "sleep": ("import time\ndef solution():\n time.sleep(60)\n return 1", "error"),
    "deadlock": (
        "import _thread\ndef solution():\n l = _thread.allocate_lock()\n l.acquire()\n l.acquire()",
        "timeout",
    ),
    "slow waiting": (
        "import _thread\ndef solution():\n l = _thread.allocate_lock()\n while True: l.acquire(timeout=0.02)",
        "timeout",
    ),
    "huge power": ("def solution():\n return 10 ** 10 ** 10", ENDED),
    "huge shift": ("def solution():\n return 1 << (1 << 40)", "memory"),
    "huge text": ("def solution():\n return 'a' * (1 << 40)", "memory"),
    "growing list": ("def solution():\n a = []\n while True: a.append(bytearray(1 << 20))", ENDED),
    "growing list that swallows": (
        "def solution():\n a = []\n while True:\n  try: a.append(bytearray(1 << 20))\n  except MemoryError: pass",
        "timeout",
    ),
    "regex backtracking": ("import re\ndef solution():\n return re.match('(a+)+$', 'a' * 64 + 'b')", "timeout"),
    "slow sympy": ("import sympy\ndef solution():\n return sympy.factorint(2 ** 521 * 3 ** 301 + 7)", "timeout"),
    "deep recursion": ("def solution():\n return solution()", "error"),
    "deeper recursion": ("import sys\nsys.setrecursionlimit(1 << 30)\ndef solution():\n return solution()", ENDED),
    "C stack": (
        "import sys\nsys.setrecursionlimit(1 << 30)\nclass A:\n def __repr__(s): return repr([s])\n"
        "def solution():\n return repr(A())",
        ENDED,
    ),
    "deep data": ("def solution():\n a = []\n for _ in range(100000): a = [a]\n return repr(a)", "error"),
    "parser bomb": ("def solution():\n return " + "(" * 5000 + "1" + ")" * 5000, ENDED),
    "operator bomb": ("def solution():\n return " + "-" * 100_000 + "1", ENDED),
    "null byte": ("def solution():\n return 1\0", "error"),
    "surrogate": ("def solution():\n return '\ud800'", ENDED),
    "fork": ("import os\ndef solution():\n return os.fork()", "error"),
    "fork bomb": ("import os\ndef solution():\n while True:\n  try: os.fork()\n  except OSError: pass", "timeout"),
    "thread": ("import _thread\ndef solution():\n return _thread.start_new_thread(print, ())", "error"),
    "exec": ("import os\ndef solution():\n os.execv('/bin/sh', ['sh', '-c', 'true'])", "error"),
    "shell": ("import os\ndef solution():\n return os.system('rm {canary}') != 0", "ok"),
    "kill the parent": ("import os\ndef solution():\n os.kill(os.getppid(), 9)\n return 1", "error"),
    "kill all": ("import os\ndef solution():\n os.kill(-1, 9)\n return 1", "error"),
    "stop itself": ("import os\ndef solution():\n os.kill(os.getpid(), 19)\n return 1", "error"),
    "ignore signals": ("import _signal as s\ndef solution():\n s.signal(27, s.SIG_IGN)\n return 1", "error"),
    "longer timer": ("import _signal as s\ndef solution():\n s.setitimer(2, 99)\n return 1", "error"),
    "raise limits": ("import resource as r\ndef solution():\n r.setrlimit(r.RLIMIT_CPU, (99, 99))\n return 1", "error"),
    "os._exit": ("import os\ndef solution():\n os._exit(0)", "error"),
    "exit": ("def solution():\n raise SystemExit(0)", "error"),
    "sys.exit": ("import sys\nsys.exit(0)", "error"),
    "abort": ("import os\ndef solution():\n os.abort()", ENDED),
    "segfault": ("import ctypes\ndef solution():\n ctypes.string_at(0)", ENDED),
    "write a file": ("def solution():\n open('{canary}', 'w').write('x')\n return 1", "error"),
    "unlink a file": ("import os\ndef solution():\n os.unlink('{canary}')\n return 1", "error"),
    "read a file": ("def solution():\n return open('/etc/passwd').read()", "error"),
    "read the parent's memory": (
        "import os\ndef solution():\n return open(f'/proc/{os.getppid()}/mem').read(1)",
        "error",
    ),
    "list a folder": ("import os\ndef solution():\n return len(os.listdir('/'))", "error"),
    "TCP": ("import _socket as s\ndef solution():\n s.socket(2, 1).connect(('127.0.0.1', {port}))\n return 1", "error"),
    "UDP": (
        "import _socket as s\ndef solution():\n s.socket(2, 2).sendto(b'x', ('127.0.0.1', {port}))\n return 1",
        "error",
    ),
    "pipe": ("import os\ndef solution():\n return os.pipe()[0]", "error"),
    "read input": ("def solution():\n return input()", "error"),
    "huge result": ("def solution():\n return {'a': 'b' * (1 << 20)}.__repr__() * 40", "ok"),
    "write past the result": (
        "import os\ndef solution():\n while True: os.write(3, b'x' * 65536)",
        "error",
    ),
    "garbage for a result": ("import os\ndef solution():\n os.write(3, b'[' * 60000)\n os._exit(0)", "error"),
    "pickle for a result": ("import os\ndef solution():\n os.write(3, b'\\x80\\x04.')\n os._exit(0)", "error"),
    "wrong tags for a result": (
        'import os\ndef solution():\n os.write(3, b\'{"ok": {"t": "rational", "v": ["1", "0"]}}\')\n os._exit(0)',
        "error",
    ),
    "closed result": ("import os\ndef solution():\n os.close(3)\n while True: pass", ENDED),
    "repr that raises": ("class E(Exception):\n def __str__(s): raise s\ndef solution():\n raise E", "error"),
    "patched json": ("import json\njson.dumps = None\ndef solution():\n return 1", "ok"),
    "patched builtins": ("import builtins\nbuiltins.isinstance = lambda *a: True\ndef solution():\n return 2", ENDED),
    "patched math": ("import math\nmath.floor = lambda x: 99\ndef solution():\n return math.floor(1.5)", "ok"),
}


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2, RunLimits(timeout_s=TIMEOUT_S)) as pool:
        # The start of the workers is not what is timed below.
        pool.run([f"{line}\ndef solution():\n return {n}" for line in ("", "import sympy") for n in range(4)])
        yield pool


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        server.setblocking(False)
        yield server.getsockname()[1]
        with pytest.raises(BlockingIOError):
            server.accept()


def descendants() -> set[int]:
    """Living processes below this one, without the zombies of other tests."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                parents[int(entry.name)] = int(parent)
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def test_there_are_enough_attacks() -> None:
    assert len(ATTACKS) >= 55


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(name: str, pool: Pool, tmp_path: Path, port: int) -> None:
    canary = tmp_path / "canary"
    canary.write_text("alive")
    tmp_path.chmod(0o777)
    canary.chmod(0o666)
    body, ending = ATTACKS[name]
    before = descendants()
    started = time.monotonic()
    (outcome,) = pool.run([body.replace("{canary}", str(canary)).replace("{port}", str(port))])
    elapsed = time.monotonic() - started
    if ending == ENDED:
        assert outcome.status != "ok", outcome
    else:
        assert outcome.status == ending, outcome
    assert outcome.cpu_s < 2 * TIMEOUT_S + 0.5, outcome
    assert elapsed < 10 * TIMEOUT_S + 1, elapsed
    sane = pool.run([f"import math, json\ndef solution():\n return math.floor({len(name)}.5) + {n}" for n in range(4)])
    assert [after.value for after in sane] == [len(name) + n for n in range(4)]
    assert canary.read_text() == "alive"
    assert sorted(os.listdir(tmp_path)) == ["canary"]
    assert descendants() == before


def test_hidden_truths_are_out_of_reach(pool: Pool) -> None:
    programs = {
        "environment": "import os\ndef solution():\n return len(os.environ)",
        "process environment": "import ctypes\ndef solution():\n c = ctypes.CDLL(None)\n"
        " c.getenv.restype = ctypes.c_char_p\n return str(c.getenv(b'PATH'))",
        "arguments": "import sys\ndef solution():\n return str(sys.argv)",
        "frames": "import sys\ndef solution():\n f, n, k = sys._getframe(), [], 'self'\n while f:\n"
        "  n.append(str(f.f_locals)[:999])\n  if k in f.f_locals: n.append(f'{len(f.f_locals[k]._queue)} queued')\n"
        "  f = f.f_back\n return ''.join(n)",
    }
    outcomes = dict(zip(programs, pool.run(list(programs.values())), strict=True))
    assert outcomes["environment"].value == 0
    assert outcomes["process environment"].value == "None"
    assert outcomes["arguments"].value == "['-c']"
    assert "0 queued" in str(outcomes["frames"].value)
    assert "getenv" not in str(outcomes["frames"].value)


def test_descriptors_of_this_process_are_not_inherited(tmp_path: Path) -> None:
    secret = os.open(tmp_path / "secret", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(secret, True)
    look = (
        "import os\ndef solution():\n n = 0\n for fd in range(4, 256):\n"
        "  try: os.fstat(fd); n += 1\n  except OSError: pass\n return n"
    )
    try:
        with Pool(1) as pool:
            (outcome,) = pool.run([look])
    finally:
        os.close(secret)
    assert outcome.value == 0
