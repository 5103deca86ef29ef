"""Hostile and broken programs: each is stopped, leaves nothing behind, and the next program still runs right."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reftcli.sandbox.interface import RunLimits
from reftcli.sandbox.pool import Pool
from reftcli.sandbox.worker.lockdown import filter_rules, waiting_rules

SRC = Path(__file__).resolve().parents[2] / "src"
TIMEOUT_S = 0.3
ENDED = "ended"  # no value, however it came to that
ANY = "any"  # what it comes to is its own affair: only that it harms nobody counts

_LIFT = "import sys\nsys.set_int_max_str_digits(0)\n"
_FRAMES = "import sys\ndef frames():\n f = sys._getframe()\n while f:\n  yield f\n  f = f.f_back\n"


def forges(payload: str, then: str = "os._exit(0)") -> str:
    """A program that writes its own result and goes on with ``then``."""
    return f"import os\ndef solution():\n os.write(3, {payload.encode()!r})\n {then}"


def machine_code(text: str) -> str:
    """A program that runs instructions of x86_64. Elsewhere they are illegal ones, which end it as well."""
    return (
        "import ctypes\ndef solution():\n c = ctypes.CDLL(None)\n c.mmap.restype = ctypes.c_void_p\n"
        " p = c.mmap(None, ctypes.c_size_t(4096), 7, 0x22, -1, ctypes.c_long(0))\n"
        f" code = bytes.fromhex('{text}')\n ctypes.memmove(p, code, len(code))\n"
        " assert ctypes.CFUNCTYPE(ctypes.c_long)(p)() >= 0"
    )


def returns(definition: str, value: str) -> str:
    """A program that returns an object of a class of its own."""
    return f"{definition}\ndef solution():\n return {value}"


LOOPS: dict[str, tuple[str, str]] = {  # name: (program, how it must end)
    "endless loop": ("def solution():\n while True: pass", "timeout"),
    "endless loop that swallows": (
        "def solution():\n while True:\n  try:\n   while True: pass\n  except BaseException: pass",
        "timeout",
    ),
    "endless loop that no error leaves": (
        "def solution():\n while True:\n  try: raise SystemExit\n  finally: continue",
        "timeout",
    ),
    "endless loop in C": ("def solution():\n return sum(iter(int, 1))", "timeout"),
    "endless loop at import": ("while True: pass", "timeout"),
    "endless loop in machine code": (machine_code("ebfe"), ENDED),
    "endless generator": ("import itertools\ndef solution():\n return max(itertools.count())", "timeout"),
    "endless conversion": (
        "class A(int):\n def __int__(s):\n  while True: pass\ndef solution():\n return A()",
        "timeout",
    ),
    "endless destructor": (
        "class A:\n def __del__(s):\n  while True: pass\ndef solution():\n A()\n return 1",
        "timeout",
    ),
    "endless close of a generator": (
        "def g():\n while True:\n  try: yield 1\n  finally:\n   while True: pass\n"
        "def solution():\n for _ in g(): return 1",
        "timeout",
    ),
    "endless finalizer at exit": (
        "import atexit, weakref\nclass A: pass\na = A()\ndef spin(*x):\n while True: pass\n"
        "atexit.register(spin)\nweakref.finalize(a, spin)\ndef solution():\n return 1",
        "ok",
    ),
    "work between refused sleeps": (
        "import time\ndef solution():\n while True:\n  try: time.sleep(0.01)\n  except OSError: sum(range(999))",
        "timeout",
    ),
    "regex backtracking": ("import re\ndef solution():\n return re.match('(a+)+$', 'a' * 64 + 'b')", "timeout"),
    "regex backtracking of a full match": (
        "import re\ndef solution():\n return re.fullmatch('(x+x+)+y', 'x' * 64)",
        "timeout",
    ),
    "slow sympy": ("import sympy\ndef solution():\n return sympy.factorint(2 ** 521 * 3 ** 301 + 7)", "timeout"),
    "slow numpy": (
        "import numpy as np\ndef solution():\n while True: np.linalg.svd(np.ones((300, 300)))",
        ENDED,  # numpy need not be installed
    ),
    "factorial": ("import math\ndef solution():\n return math.factorial(10 ** 8)", "timeout"),
    "binomial": ("import math\ndef solution():\n return math.comb(10 ** 8, 5 * 10 ** 7)", "timeout"),
    "product of everything": (
        "import itertools\ndef solution():\n return sum(1 for _ in itertools.product(range(99), repeat=9))",
        "timeout",
    ),
    "hash collisions": (
        "def solution():\n return len(dict.fromkeys(n * (2 ** 61 - 1) for n in range(1, 99999)))",
        "timeout",
    ),
    "fractions that grow": (
        "from fractions import Fraction\ndef solution():\n x = Fraction(1, 3)\n"
        " for _ in range(40): x = x * x + Fraction(1, 7)\n return x",
        "timeout",
    ),
    "slow decimal": (
        "from decimal import Decimal, getcontext\ngetcontext().prec = 10 ** 6\ndef solution():\n"
        " return Decimal(2).exp()",
        "timeout",
    ),
    "sort whose key never ends": ("def solution():\n return sorted([1], key=lambda x: sum(iter(int, 1)))", "timeout"),
    "sort whose key sorts": (
        "def solution():\n a = list(range(9))\n a.sort(key=lambda x: a.sort(key=id) or a.append(x))",
        "error",
    ),
}
WAITS: dict[str, tuple[str, str]] = {
    "sleep": ("import time\ndef solution():\n time.sleep(60)\n return 1", "error"),
    "deadlock": (
        "import _thread\ndef solution():\n l = _thread.allocate_lock()\n l.acquire()\n l.acquire()",
        "killed",
    ),
    "slow waiting": (
        "import _thread\ndef solution():\n l = _thread.allocate_lock()\n while True: l.acquire(timeout=0.02)",
        "killed",
    ),
    "wait for an event": ("import threading\ndef solution():\n return threading.Event().wait(60)", "killed"),
    "wait for a queue": ("import queue\ndef solution():\n return queue.Queue().get()", "killed"),
    "select": ("import select\ndef solution():\n return len(select.select([], [], [], 60))", "error"),
    "poll": ("import select\ndef solution():\n return len(select.poll().poll(60000))", "error"),
    "epoll": ("import select\ndef solution():\n return len(select.epoll().poll(60))", "error"),
    "sigwait": ("import _signal\ndef solution():\n return _signal.sigwait([1])", "error"),
    "pause": ("import _signal\ndef solution():\n _signal.pause()\n return 1", "ok"),
    "read input": ("def solution():\n return input()", "error"),
    "read its own result": ("import os\ndef solution():\n return os.read(3, 1)", "error"),
    "stop itself": ("import os\ndef solution():\n os.kill(os.getpid(), 19)\n return 1", "error"),
    "stop its thread": (
        "import _signal, _thread\ndef solution():\n _signal.pthread_kill(_thread.get_ident(), 19)\n return 1",
        "error",
    ),
    "stop the worker": ("import os\ndef solution():\n os.kill(os.getppid(), 19)\n return 1", "error"),
}
MEMORY: dict[str, tuple[str, str]] = {
    "huge power": ("def solution():\n return 10 ** 10 ** 10", ENDED),
    "huge shift": ("def solution():\n return 1 << (1 << 40)", "memory"),
    "huge text": ("def solution():\n return 'a' * (1 << 40)", "memory"),
    "huge number to read": ("def solution():\n return int('9' * 10 ** 7)", "error"),
    "huge number to read, limit lifted": (_LIFT + "def solution():\n return int('9' * 10 ** 7)", "timeout"),
    "huge number to write": ("def solution():\n return str(10 ** 10 ** 6)", "error"),
    "huge number to write, limit lifted": (_LIFT + "def solution():\n return str(7 ** 10 ** 7)", "timeout"),
    "huge number to return": ("def solution():\n return 1 << 10 ** 8", "ok"),
    "huge format": ("def solution():\n return '%0999999999d' % 1", "memory"),
    "huge list": ("def solution():\n return list(range(10 ** 12))", "memory"),
    "huge tuple": ("def solution():\n return (0,) * 10 ** 10", "memory"),
    "huge decimal": (
        "import decimal\ndecimal.getcontext().prec = decimal.MAX_PREC\ndef solution():\n"
        " return decimal.Decimal(2).sqrt()",
        ENDED,
    ),
    "huge array": ("import numpy\ndef solution():\n return numpy.ones(1 << 40)", ENDED),
    "all permutations": ("import itertools\ndef solution():\n return list(itertools.permutations(range(12)))", ENDED),
    "growing list": ("def solution():\n a = []\n while True: a.append(bytearray(1 << 20))", ENDED),
    "growing list that swallows": (
        "def solution():\n a = []\n while True:\n  try: a.append(bytearray(1 << 20))\n  except MemoryError: pass",
        "timeout",
    ),
    "growing text": ("def solution():\n s = 'ab'\n while True: s += s", ENDED),
    "growing through ctypes": (
        "import ctypes\ndef solution():\n c = ctypes.CDLL(None)\n c.malloc.restype = ctypes.c_void_p\n"
        " while True: ctypes.memset(c.malloc(1 << 20), 1, 1 << 20)",
        ENDED,
    ),
    "normal form that grows": (
        "import unicodedata\ndef solution():\n return unicodedata.normalize('NFKC', '\\ufdfa' * 10 ** 7)",
        ENDED,
    ),
    "decompression bomb": (
        "import zlib\ndef solution():\n return zlib.decompress(zlib.compress(b'0' * (200 << 20)))",
        ENDED,
    ),
}
STACKS: dict[str, tuple[str, str]] = {
    "deep recursion": ("def solution():\n return solution()", "error"),
    "deeper recursion": ("import sys\nsys.setrecursionlimit(1 << 30)\ndef solution():\n return solution()", ENDED),
    "C stack": (
        "import sys\nsys.setrecursionlimit(1 << 30)\nclass A:\n def __repr__(s): return repr([s])\n"
        "def solution():\n return repr(A())",
        ENDED,
    ),
    "deep data": ("def solution():\n a = []\n for _ in range(100000): a = [a]\n return repr(a)", "error"),
    "deep data to copy": (
        "import copy\ndef solution():\n a = []\n for _ in range(9999): a = [a]\n return copy.deepcopy(a)",
        "error",
    ),
    "deep iterators": (
        "def solution():\n i = iter([1])\n for _ in range(300000): i = filter(None, i)\n return list(i)",
        ENDED,
    ),
    "deep classinfo": (
        "def solution():\n t = int\n for _ in range(100000): t = (t,)\n return isinstance('', t)",
        ENDED,
    ),
    "parser bomb": ("def solution():\n return " + "(" * 5000 + "1" + ")" * 5000, ENDED),
    "operator bomb": ("def solution():\n return " + "-" * 100_000 + "1", ENDED),
    "attribute bomb": ("def solution():\n return eval('x' + '.x' * 200000)", ENDED),
    "compiler bomb": ("def solution():\n return eval('lambda:' * 90 + '+'.join('1' * 50000))", ANY),
    "many branches": (
        "def solution(x=1):\n while True:\n  if x == 0: pass\n"
        + "".join(f"  elif x == {n}: y = 1\n" for n in range(2, 1400)),
        ENDED,
    ),
    "null byte": ("def solution():\n return 1\0", "error"),
    "surrogate": ("def solution():\n return '\ud800'", ENDED),
    "surrogate at run time": ("def solution():\n return chr(0xd800)", "ok"),
    "surrogate in a message": ("def solution():\n raise ValueError(chr(0xdfff))", "error"),
}
PROCESSES: dict[str, tuple[str, str]] = {
    "fork": ("import os\ndef solution():\n return os.fork()", "error"),
    "fork bomb": ("import os\ndef solution():\n while True:\n  try: os.fork()\n  except OSError: pass", "timeout"),
    "fork with a terminal": ("import os\ndef solution():\n return os.forkpty()[0]", "error"),
    "daemon": (
        "import os\ndef solution():\n if os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n   while True: pass\n"
        "  os._exit(0)\n return 1",
        "error",
    ),
    "session": ("import os\ndef solution():\n return os.setsid()", "error"),
    "thread": ("import _thread\ndef solution():\n return _thread.start_new_thread(print, ())", "error"),
    "daemon thread": (
        "import threading\ndef solution():\n threading.Thread(target=print, daemon=True).start()\n return 1",
        "error",
    ),
    "exec": ("import os\ndef solution():\n os.execv('/bin/sh', ['sh', '-c', 'true'])", "error"),
    "spawn": ("import os\ndef solution():\n return os.posix_spawn('/bin/true', ['true'], {})", "error"),
    "shell": ("import os\ndef solution():\n return os.system('rm {canary}') != 0", "ok"),
    "shell through ctypes": (
        "import ctypes\ndef solution():\n return ctypes.CDLL(None).system(b'rm {canary}') != 0",
        "ok",
    ),
    "subprocess": ("import subprocess\ndef solution():\n return subprocess.call(['rm', '{canary}'])", "error"),
    "multiprocessing": ("import multiprocessing\ndef solution():\n multiprocessing.Process().start()", "error"),
    "kill the parent": ("import os\ndef solution():\n os.kill(os.getppid(), 9)\n return 1", "error"),
    "kill all": ("import os\ndef solution():\n os.kill(-1, 9)\n return 1", "error"),
    "kill the group": ("import os\ndef solution():\n os.killpg(0, 9)\n return 1", "error"),
    "ignore signals": ("import _signal as s\ndef solution():\n s.signal(27, s.SIG_IGN)\n return 1", "error"),
    "block signals": ("import _signal as s\ndef solution():\n s.pthread_sigmask(0, [27])\n return 1", "error"),
    "longer timer": ("import _signal as s\ndef solution():\n s.setitimer(2, 99)\n return 1", "error"),
    "raise limits": ("import resource as r\ndef solution():\n r.setrlimit(r.RLIMIT_CPU, (99, 99))\n return 1", "error"),
    "raise priority": ("import os\ndef solution():\n os.setpriority(0, 0, -20)\n return 1", "error"),
    "os._exit": ("import os\ndef solution():\n os._exit(0)", "error"),
    "os._exit with a failure": ("import os\ndef solution():\n os._exit(77)", ENDED),
    "exit": ("def solution():\n raise SystemExit(0)", "error"),
    "sys.exit": ("import sys\nsys.exit(0)", "error"),
    "abort": ("import os\ndef solution():\n os.abort()", ENDED),
    "segfault": ("import ctypes\ndef solution():\n ctypes.string_at(0)", ENDED),
    "illegal instruction": (machine_code("0f0b"), "killed"),
    "32-bit system call": (machine_code("b814000000cd80c3"), "killed"),
    "socket in machine code": (machine_code("bf02000000be01000000ba00000000b8290000000f05c3"), ENDED),
}
FILES: dict[str, tuple[str, str]] = {
    "write a file": ("def solution():\n open('{canary}', 'w').write('x')\n return 1", "error"),
    "make a file": ("def solution():\n open('{canary}2', 'x').write('x')\n return 1", "error"),
    "fill the disk": (
        "def solution():\n f = open('/dev/shm/x', 'wb')\n while True: f.write(b'x' * (1 << 20))",
        "error",
    ),
    "unlink a file": ("import os\ndef solution():\n os.unlink('{canary}')\n return 1", "error"),
    "empty a file": ("import os\ndef solution():\n os.truncate('{canary}', 0)\n return 1", "error"),
    "rename a file": ("import os\ndef solution():\n os.rename('{canary}', '{canary}2')\n return 1", "error"),
    "rights of a file": ("import os\ndef solution():\n os.chmod('{canary}', 0)\n return 1", "error"),
    "link": ("import os\ndef solution():\n os.symlink('/', '{canary}2')\n return 1", "error"),
    "make a folder": ("import os\ndef solution():\n os.mkdir('{canary}2')\n return 1", "error"),
    "read a file": ("def solution():\n return open('/etc/passwd').read()", "error"),
    "read a file through ctypes": (
        "import ctypes\ndef solution():\n c = ctypes.CDLL(None)\n c.fopen.restype = ctypes.c_void_p\n"
        " return 1 / (c.fopen(b'/etc/passwd', b'r') or 0)",
        "error",
    ),
    "read the environment": ("def solution():\n return open('/proc/self/environ').read()", "error"),
    "read its own memory": ("def solution():\n return open('/proc/self/mem', 'rb').read(1)", "error"),
    "read the parent's memory": (
        "import os\ndef solution():\n return open(f'/proc/{os.getppid()}/mem').read(1)",
        "error",
    ),
    "read arguments of others": ("def solution():\n return open('/proc/1/cmdline').read()", "error"),
    "list descriptors": ("import os\ndef solution():\n return str(os.listdir('/proc/self/fd'))", "error"),
    "list a folder": ("import os\ndef solution():\n return len(os.listdir('/'))", "error"),
    "change the folder": ("import os\ndef solution():\n os.chdir('/tmp')\n return 1", "error"),
    "import from a folder": (
        "import sys\nsys.path.insert(0, '/usr/lib/python3')\ndef solution():\n import turtle\n return 1",
        "error",
    ),
    "load a library": ("import ctypes\ndef solution():\n ctypes.CDLL('libanl.so.1')\n return 1", "error"),
    "use an inherited descriptor": (
        "import os\ndef solution():\n n = 0\n for fd in range(4, 256):\n  try: os.write(fd, b'x'); n += 1\n"
        "  except OSError: pass\n return 1 // n",
        "error",
    ),
    "copy a descriptor": ("import os\ndef solution():\n return os.dup(3)", "error"),
    "pipe": ("import os\ndef solution():\n return os.pipe()[0]", "error"),
    "TCP": ("import _socket as s\ndef solution():\n s.socket(2, 1).connect(('127.0.0.1', {port}))\n return 1", "error"),
    "TCP by version 6": ("import _socket as s\ndef solution():\n s.socket(10, 1)\n return 1", "error"),
    "UDP": (
        "import _socket as s\ndef solution():\n s.socket(2, 2).sendto(b'x', ('127.0.0.1', {port}))\n return 1",
        "error",
    ),
    "local socket": ("import _socket as s\ndef solution():\n s.socketpair()\n return 1", "error"),
    "name of a host": ("import _socket as s\ndef solution():\n return len(s.getaddrinfo('localhost', 80))", "error"),
    "the worker's own socket": (
        _FRAMES + "def solution():\n for f in frames():\n  worker = f.f_locals.get('self')\n"
        "  if worker: worker._channel.send(b'x')\n return 1",
        "error",
    ),
}
OUTPUT: dict[str, tuple[str, str]] = {
    "gigabytes of print": ("def solution():\n while True: print('x' * 10 ** 6)", "timeout"),
    "gigabytes of errors": ("import sys\ndef solution():\n while True: sys.stderr.write('x' * 10 ** 6)", "timeout"),
    "print of a surrogate": ("def solution():\n print(chr(0xd800), 'x' * 10 ** 7)\n return 1", ANY),
    "huge result": ("def solution():\n return {'a': 'b' * (1 << 20)}.__repr__() * 40", "ok"),
    "huge nested result": (
        "def solution():\n a = ['b' * 4096] * 64\n for _ in range(3): a = [a] * 64\n return a",
        "ok",
    ),
    "result within itself": ("def solution():\n a = []\n a.append(a)\n return a", "ok"),
    "write past the result": ("import os\ndef solution():\n while True: os.write(3, b'x' * 65536)", "error"),
    "write past the result, slowly": (
        "import os\ndef solution():\n for _ in range(70000): os.write(3, b' ')\n return 1",
        ENDED,
    ),
    "garbage for a result": (forges("[" * 60_000), "error"),
    "bytes that are no text": ("import os\ndef solution():\n os.write(3, b'\\xff' * 9)\n os._exit(0)", "error"),
    "pickle for a result": ("import os\ndef solution():\n os.write(3, b'\\x80\\x04.')\n os._exit(0)", "error"),
    "half a result": (forges('{"ok": {"t": "in'), "error"),
    "wrong tags for a result": (forges('{"ok": {"t": "rational", "v": ["1", "0"]}}'), "error"),
    "a number that is too long": (forges('{"ok": {"t": "int", "v": "' + "f" * 60_000 + '"}}'), "error"),
    "a frame of the worker": (forges('\0\0\0\x20[[0, "done", "{}", 0]]'), "error"),
    "lines of a shared process": (forges('done 0 {"ok": {"t": "int", "v": "0x7"}}\n' * 128), "error"),
    "two results": (forges('{"ok": {"t": "int", "v": "0x7"}}', "return 7"), "error"),
    "forged result": (forges('{"ok": {"t": "int", "v": "0x7"}}'), "ok"),  # it may return any value anyway
    "forged result, then an endless loop": (forges('{"ok": {"t": "int", "v": "0x7"}}', "while True: pass"), "timeout"),
    "forged result, closed, then an endless loop": (
        forges('{"ok": {"t": "int", "v": "0x7"}}', "os.close(3)\n while True: pass"),
        "ok",
    ),
    "closed result": ("import os\ndef solution():\n os.close(3)\n while True: pass", ENDED),
    "all descriptors closed": ("import os\ndef solution():\n os.closerange(0, 9)\n return 1", ENDED),
}
VALUES: dict[str, tuple[str, str]] = {
    "integer that lies": (
        returns(
            "class A(int):\n bit_length = __eq__ = __index__ = __str__ = __repr__ = __hash__ = lambda *a: 1 / 0",
            "A(5)",
        ),
        "ok",
    ),
    "integer that is another": (returns("class A(int):\n __int__ = lambda s: A(7)", "A(5)"), ANY),
    "integer by name only": (returns("class A:\n __class__ = int", "A()"), "error"),
    "truth by name only": (returns("class A:\n __class__ = bool", "A()"), "ok"),
    "float that lies": (returns("class A(float):\n __repr__ = __float__ = lambda s: 'x' * 10 ** 9", "A(5)"), "ok"),
    "complex that lies": (returns("class A(complex):\n real = imag = property(lambda s: [])", "A(5)"), "error"),
    "text that lies": (
        returns("class A(str):\n __str__ = __len__ = __getitem__ = __iter__ = lambda *a: 1 / 0", "A('5')"),
        ANY,
    ),
    "list that lies": (
        returns("class A(list):\n def __iter__(s):\n  while True: yield s\n __len__ = lambda s: -1", "A()"),
        "ok",
    ),
    "fraction by name only": (
        returns("class A:\n __module__ = 'fractions'\n numerator = 1\n denominator = 0", "A()"),
        "error",
    ),
    "fraction that never ends": (
        returns("class A:\n __module__ = 'fractions'\n numerator = property(lambda s: sum(iter(int, 1)))", "A()"),
        "timeout",
    ),
    "decimal by name only": (
        returns("class A:\n __module__ = 'decimal'\n __str__ = lambda s: 'x' * 10 ** 6", "A()"),
        "error",
    ),
    "decimal that is no number": ("from decimal import Decimal\ndef solution():\n return Decimal('sNaN')", "error"),
    "array that is its own item": (
        returns("class A:\n __module__ = 'numpy'\n ndim = 0\n item = lambda s: s", "A()"),
        "error",
    ),
    "expression by name only": (
        returns(
            "class A:\n __module__ = 'sympy'\n is_Rational = is_finite = True\n numerator = denominator = 'x'", "A()"
        ),
        "error",
    ),
    "type whose name lies": (
        returns("class M(type):\n __name__ = property(lambda s: [1])\nclass A(metaclass=M): pass", "A()"),
        "error",
    ),
    "type whose module never ends": (
        returns(
            "class M(type):\n __module__ = property(lambda s: sum(iter(int, 1)))\nclass A(metaclass=M): pass", "A()"
        ),
        ANY,
    ),
    "type that is every type": (
        returns("class M(type):\n __instancecheck__ = __eq__ = lambda *a: True\nclass A(metaclass=M): pass", "A()"),
        ANY,
    ),
    "generator": ("def solution():\n yield 1", "ok"),
    "module": ("import sys\ndef solution():\n return sys", "ok"),
    "text that is a command": ('def solution():\n return \'__import__("os").system("rm {canary}")\'', "ok"),
    "pickle that is a command": (
        "class A:\n def __reduce__(s): return __import__('os').system, ('rm {canary}',)\ndef solution():\n return A()",
        "ok",
    ),
    "message that raises": ("class E(Exception):\n def __str__(s): raise s\ndef solution():\n raise E", "error"),
    "message that exits": (
        "class E(Exception):\n def __str__(s): raise SystemExit\ndef solution():\n raise E",
        "error",
    ),
    "message that never ends": (
        "class E(Exception):\n def __str__(s): return sum(iter(int, 1))\ndef solution():\n raise E",
        "timeout",
    ),
    "message that is no text": (
        "class S(str):\n def __getitem__(s, k): return {1: s}\nclass E(Exception):\n def __str__(s): return S('x')\n"
        "def solution():\n raise E",
        ENDED,
    ),
    "error whose name lies": (
        "class M(type):\n __name__ = property(lambda s: 1 / 0)\nclass E(Exception, metaclass=M): pass\n"
        "def solution():\n raise E",
        "error",
    ),
    "error with a long name": ("def solution():\n raise type('E' * 10 ** 6, (Exception,), {})('x' * 10 ** 7)", "error"),
    "error beyond all": ("def solution():\n raise BaseException", "error"),
    "interrupt": ("def solution():\n raise KeyboardInterrupt", "error"),
    "error that compares": (
        "class A:\n def __eq__(s, o): raise SystemExit\ndef solution():\n raise KeyError(A())",
        "error",
    ),
    "errors in errors": (
        "def solution():\n e = ValueError()\n for _ in range(99999): e = ExceptionGroup('x', [e])\n raise e",
        ENDED,
    ),
}
STATE: dict[str, tuple[str, str]] = {
    "patched json": ("import json\njson.dumps = None\ndef solution():\n return 1", "ok"),
    "patched json inside": (
        "import json\njson.encoder.c_make_encoder = json._default_encoder = None\nsolution = int",
        ANY,
    ),
    "patched builtins": ("import builtins\nbuiltins.isinstance = lambda *a: True\ndef solution():\n return 2", ENDED),
    "no builtins": ("import builtins\nbuiltins.__dict__.clear()\ndef solution():\n return 1", ENDED),
    "patched math": ("import math\nmath.floor = lambda x: 99\ndef solution():\n return math.floor(1.5)", "ok"),
    "patched sympy": (
        "import sympy\nsympy.Integer = sympy.Rational = sympy.solve = None\ndef solution():\n return 1",
        "ok",
    ),
    "patched import": ("import builtins\nbuiltins.__import__ = None\ndef solution():\n import math", "error"),
    "no modules": ("import sys\nsys.modules.clear()\ndef solution():\n return 1", ANY),
    "patched write": ("import os\nos.write = lambda *a: 0\ndef solution():\n return 1", "timeout"),
    "patched exit": ("import os\nos._exit = lambda *a: None\ndef solution():\n return 1", ANY),
    "patched worker": (
        "import sys\nfor m in [m for n, m in sys.modules.items() if n.startswith('worker')]:\n"
        " for n in list(vars(m)): setattr(m, n, None)\ndef solution():\n return 1",
        ENDED,
    ),
    "goes on as the worker": (
        _FRAMES + "import os\nclass P:\n poll = unregister = register = lambda *a: []\ndef solution():\n"
        " os._exit = os.close = lambda *a: None\n for f in frames():\n  w = f.f_locals.get('self')\n"
        "  if w: w._poll = P(); w._start_children = w._stop_stuck_children = lambda: None\n return 1",
        "timeout",
    ),
    "frames are changed": (
        _FRAMES + "def solution():\n for f in frames(): f.f_globals.clear()\n return 1",
        ENDED,
    ),
    "all subclasses": (
        "def solution():\n for c in object.__subclasses__():\n"
        "  if c.__name__ == '_wrap_close': return c.__init__.__globals__['system']('rm {canary}') // 256\n",
        ANY,
    ),
    "all objects": (
        "import gc\ndef solution():\n for o in gc.get_objects():\n  if type(o) in (dict, list): o.clear()\n return 1",
        ANY,
    ),
    "small integers": (
        "import ctypes\ndef solution():\n for n in range(-5, 257): ctypes.memset(id(n) + 24, 7, 4)\n return 1",
        ANY,
    ),
    "all its memory": (
        "import ctypes\ndef solution():\n ctypes.memset(id(type) & ~0xffff, 0, 1 << 30)\n return 1",
        ENDED,
    ),
    "trace": ("import sys\ndef solution():\n sys.settrace(lambda *a: sum(iter(int, 1)))\n return int(input)", ENDED),
    "profile": ("import sys\ndef solution():\n sys.setprofile(lambda *a: sum(iter(int, 1)))\n return 1", "timeout"),
    "audit hook": ("import sys\ndef hook(*a): raise ValueError\nsys.addaudithook(hook)\nimport re2", "error"),
    "exception hook": (
        "import sys\nsys.excepthook = sys.unraisablehook = lambda *a: sum(iter(int, 1))\ndef solution():\n return x",
        "error",
    ),
    "collector": (
        "import gc\ngc.enable()\ngc.set_threshold(1)\ngc.callbacks.append(lambda *a: [].x)\ndef solution():\n return 1",
        ANY,
    ),
    "no recursion left": ("import sys\ndef solution():\n sys.setrecursionlimit(9)\n return 1", "error"),
    "no output left": ("import sys\nsys.stdout = sys.stderr = None\ndef solution():\n print(1)\n return 1", "ok"),
    "its own name": ("__name__ = __builtins__ = solution = print", ANY),
}

# Name: (number on x86_64, on aarch64 or None where it has none, arguments).
SYSTEM_CALLS: dict[str, tuple[int, int | None, str]] = {
    "open": (2, None, "b'/etc/passwd', 0"),
    "openat": (257, 56, "-100, b'/etc/passwd', 0"),
    "openat2": (437, 437, "-100, b'/etc/passwd', bytes(24), 24"),
    "unlinkat": (263, 35, "-100, b'{canary}', 0"),
    "memfd_create": (319, 279, "b'x', 0"),
    "memfd_secret": (447, 447, "0"),
    "socket": (41, 198, "2, 1, 0"),
    "io_uring_setup": (425, 425, "8, bytes(120)"),
    "clone": (56, 220, "17, 0, 0, 0, 0"),
    "clone3": (435, 435, "bytes(64), 64"),
    "vfork": (58, None, ""),
    "execve": (59, 221, "b'/bin/true', 0, 0"),
    "execveat": (322, 281, "-100, b'/bin/true', 0, 0, 0"),
    "ptrace": (101, 117, "0, 0, 0, 0"),
    "process_vm_readv": (310, 270, "1, 0, 0, 0, 0, 0"),
    "process_vm_writev": (311, 271, "1, 0, 0, 0, 0, 0"),
    "kill": (62, 129, "-1, 9"),
    "tkill": (200, 130, "1, 9"),
    "tgkill": (234, 131, "1, 1, 9"),
    "pidfd_open": (434, 434, "1, 0"),
    "rt_sigqueueinfo": (129, 138, "1, 9, bytes(128)"),
    "rt_sigaction": (13, 134, "27, bytes(32), 0, 8"),
    "rt_sigprocmask": (14, 135, "0, b'\\xff' * 8, 0, 8"),
    "rt_sigreturn": (15, 139, ""),
    "rt_sigsuspend": (130, 133, "bytes(8), 8"),
    "setitimer": (38, 103, "2, bytes(32), 0"),
    "timer_create": (222, 107, "0, 0, bytes(8)"),
    "prctl": (157, 167, "1, 0, 0, 0, 0"),
    "setrlimit": (160, 164, "0, b'\\xff' * 16"),
    "prlimit64": (302, 261, "0, 0, b'\\xff' * 16, 0"),
    "sched_setaffinity": (203, 122, "0, 8, b'\\xff' * 8"),
    "sched_yield": (24, 124, ""),
    "setpriority": (141, 140, "0, 0, -20"),
    "setresuid": (117, 147, "0, 0, 0"),
    "capset": (126, 91, "bytes(8), bytes(24)"),
    "unshare": (272, 97, "0x10000000"),
    "setns": (308, 268, "3, 0"),
    "mount": (165, 40, "b'x', b'/', b'tmpfs', 0, 0"),
    "chroot": (161, 51, "b'/'"),
    "keyctl": (250, 219, "0, -3, 1"),
    "add_key": (248, 217, "b'user', b'x', b'y', 1, -3"),
    "bpf": (321, 280, "0, bytes(64), 64"),
    "seccomp": (317, 277, "0, 0, 0"),
    "userfaultfd": (323, 282, "1"),
    "perf_event_open": (298, 241, "bytes(112), 0, -1, -1, 0"),
    "shmget": (29, 194, "0, 4096, 0o1666"),
    "msgget": (68, 186, "0, 0o1666"),
    "nanosleep": (35, 101, "b'\\x09' + bytes(15), 0"),
    "pselect6": (270, 72, "0, 0, 0, 0, 0, 0"),
    "dup": (32, 23, "3"),
    "fcntl": (72, 25, "3, 0, 9"),
    "ioctl": (16, 29, "3, 0x541b, bytes(8)"),
    "sendfile": (40, 71, "3, 0, 0, 9"),
    "futex_waitv": (449, 449, "bytes(24), 1, 0, 0, 0"),
    "reboot": (169, 142, "0, 0, 0, 0"),
    "no such call": (2000, 2000, ""),
}


def system_call(number: int, arguments: str) -> str:
    """A program that ends well if the call is made, and badly if it is refused."""
    return (
        "import ctypes\ndef solution():\n c = ctypes.CDLL(None, use_errno=True)\n"
        f" if c.syscall({number}, {arguments}) == -1 and ctypes.get_errno() == 1: raise PermissionError\n return 1"
    )


def system_calls() -> dict[str, tuple[str, str]]:
    arm = os.uname().machine == "aarch64"
    calls = {name: (row[1] if arm else row[0], row[2]) for name, row in SYSTEM_CALLS.items()}
    attacks = {name: (system_call(number, words), "error") for name, (number, words) in calls.items() if number}
    futex, wait = (98 if arm else 202), "ctypes.byref(ctypes.c_int(0)), {}, 0, 0, 0, -1"
    for how, operation in {"wait": 0, "private wait": 128, "wait by another clock": 393, "lock": 6}.items():
        attacks[f"futex {how}"] = (system_call(futex, wait.format(operation)), "killed")
    attacks["futex wake"] = (system_call(futex, wait.format(129)), "ok")
    if not arm:
        attacks["x32 getpid"] = (system_call(0x40000000 + 39, ""), "killed")
    return {f"system call {name}": attack for name, attack in attacks.items()}


ATTACKS = {
    **LOOPS, **WAITS, **MEMORY, **STACKS, **PROCESSES, **FILES, **OUTPUT, **VALUES, **STATE, **system_calls(),
}  # fmt: skip


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2, RunLimits(timeout_s=TIMEOUT_S)) as pool:
        # The start of the workers is not what is timed below.
        pool.run([f"{line}\ndef solution():\n return {n}" for line in ("", "import sympy") for n in range(4)])
        yield pool


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.socket() as server, socket.socket(type=socket.SOCK_DGRAM) as mailbox:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        server.setblocking(False)
        number = server.getsockname()[1]
        mailbox.bind(("127.0.0.1", number))
        mailbox.setblocking(False)
        yield number
        with pytest.raises(BlockingIOError):
            server.accept()
        with pytest.raises(BlockingIOError):
            mailbox.recv(1)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that anybody may change, which nobody does."""
    path = tmp_path / "canary"
    path.write_text("alive")
    tmp_path.chmod(0o777)
    path.chmod(0o666)
    yield path
    assert path.read_text() == "alive"
    assert path.stat().st_mode & 0o777 == 0o666
    assert sorted(os.listdir(tmp_path)) == ["canary"]


def source_of(name: str, canary: Path, port: int) -> str:
    return ATTACKS[name][0].replace("{canary}", str(canary)).replace("{port}", str(port))


def agrees(status: str, ending: str) -> bool:
    return ending == ANY or (status != "ok" if ending == ENDED else status == ending)


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
    assert len(ATTACKS) >= 250


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(name: str, pool: Pool, canary: Path, port: int) -> None:
    before = descendants()
    started = time.monotonic()
    (outcome,) = pool.run([source_of(name, canary, port)])
    elapsed = time.monotonic() - started
    assert agrees(outcome.status, ATTACKS[name][1]), outcome
    assert outcome.cpu_s < 2 * TIMEOUT_S + 0.5, outcome
    assert elapsed < 10 * TIMEOUT_S + 1, elapsed
    sane = pool.run([f"import math, json\ndef solution():\n return math.floor({len(name)}.5) + {n}" for n in range(4)])
    assert [after.value for after in sane] == [len(name) + n for n in range(4)]
    assert descendants() == before  # the same workers, too


@pytest.fixture
def readable_source() -> Iterator[Path]:
    """A copy of the source that every user can read: a checkout may stand in a folder that only its owner enters."""
    folder = Path(tempfile.mkdtemp())
    shutil.copytree(SRC, folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    yield folder / "src"
    shutil.rmtree(folder)


def test_every_attack_by_an_unprivileged_user(readable_source: Path, canary: Path, port: int) -> None:
    """What holds must not rest on the step down from root, nor on a right that only root's worker has."""
    if os.geteuid() != 0:
        pytest.skip("this test drops from root; all the others have run unprivileged already")
    script = (
        "import importlib.util, json, sys\nfrom reftcli.sandbox.interface import RunLimits\n"
        "from reftcli.sandbox.pool import Pool\nattacks = json.load(sys.stdin)\n"
        "if not importlib.util.find_spec('sympy'):\n"
        "    attacks = {name: source for name, source in attacks.items() if 'sympy' not in source}\n"
        f"with Pool(2, RunLimits(timeout_s={TIMEOUT_S})) as pool:\n"
        "    statuses = [outcome.status for outcome in pool.run([*attacks.values(), 'def solution(): return 6'])]\n"
        "    json.dump([pool.protections().level, dict(zip([*attacks, 'sane'], statuses))], sys.stdout)\n"
    )
    attacks = json.dumps({name: source_of(name, canary, port) for name in ATTACKS})
    libraries = importlib.util.find_spec("sympy")
    paths = [readable_source] + [Path(libraries.origin).parents[1]] * (libraries is not None and bool(libraries.origin))
    for interpreter in (sys.executable, "/usr/bin/python3.11", "/usr/bin/python3.12", "/usr/bin/python3.13"):
        try:
            done = subprocess.run(
                [interpreter, "-c", script],
                user=65534,
                group=65534,
                extra_groups=[],
                cwd="/",
                env={"PYTHONPATH": os.pathsep.join(map(str, paths))},
                input=attacks,
                capture_output=True,
                check=False,
                text=True,
            )
        except OSError:
            continue
        assert done.returncode == 0, done.stderr
        level, statuses = json.loads(done.stdout)
        assert level in ("full", "filter")
        assert statuses.pop("sane") == "ok"
        assert len(statuses) >= 250
        assert [name for name, status in statuses.items() if not agrees(status, ATTACKS[name][1])] == []
        return
    pytest.skip("no interpreter that other users can run")


BENIGN = {  # programs of unusual shape; each returns 5
    "blank lines": "\n\n\n\ndef solution():\n\n\n    x = 5\n\n    return x\n\n\n",
    "helpers": "def helper(x):\n    return x + 1\n\ndef solution():\n    return helper(helper(3))",
    "imports of its own": "import os.path, re, sys\nfrom typing import List, Optional\ndef solution() -> Optional[int]:\n"
    "    return len(re.findall('a', 'aaaaa'))",
    "prints": "import sys\ndef solution():\n    print('x' * 9999)\n    print('y', file=sys.stderr, flush=True)\n    return 5",
    "dangerous words in a text": "def solution():\n    s = 'sys.exit(0); os._exit(1); while True: pass'\n    return len(s[:5])",
    "class": "class Box:\n    side = 5\n    def get(self): return self.side\ndef solution():\n    return Box().get()",
    "data class": "from dataclasses import dataclass, field\n@dataclass(order=True)\nclass P:\n    x: int\n"
    "    y: list = field(default_factory=list)\ndef solution():\n    return max(P(5), P(3)).x",
    "recursion": "def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\ndef solution():\n    return fib(5)",
    "cached recursion": "from functools import lru_cache\n@lru_cache(maxsize=None)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\n"
    "def solution():\n    return f(300) - 295",
    "generators": "def count():\n    yield from range(6)\ndef solution():\n    return max(count())",
    "try": "def solution():\n    try:\n        return 1 / 0\n    except ZeroDivisionError as e:\n        return 5\n    finally:\n        print('so')",
    "numpy, if it is there": "try:\n    import numpy as np\nexcept ImportError:\n    np = None\ndef solution():\n"
    "    return int(np.array([[1, 2], [3, 4]]).trace()) if np else 5",
    "numpy solves": "try:\n    import numpy as np\nexcept ImportError:\n    np = None\ndef solution():\n"
    "    return round(float(np.linalg.solve([[2.0, 1.0], [1.0, 3.0]], [15.0, 20.0])[0])) if np else 5",
    "sympy": "from sympy import symbols, Eq, solve\nx, y = symbols('x y')\ndef solution():\n    return solve([Eq(x + y, 8), Eq(x - y, 2)], [x, y])[x]",
    "sympy solves by numbers": "import sympy\ndef solution():\n    x = sympy.Symbol('x')\n    return round(float(sympy.nsolve(x ** 2 - 25, 4)))",
    "fractions": "from fractions import Fraction\ndef solution():\n    return sum([Fraction(5, 3)] * 3)",
    "decimal": "from decimal import Decimal, getcontext, ROUND_HALF_UP\ngetcontext().prec = 50\ndef solution():\n"
    "    return Decimal('4.5').quantize(Decimal('1'), rounding=ROUND_HALF_UP)",
    "statistics": "import statistics\ndef solution():\n    return statistics.median([1, 5, 9]) + statistics.pstdev([2, 2])",
    "dates": "from datetime import datetime, timedelta\ndef solution():\n"
    "    return (datetime.strptime('2024-03-03', '%Y-%m-%d') - timedelta(days=2) - datetime(2024, 2, 25)).days",
    "iterators": "from itertools import *\ndef solution():\n    return len(list(combinations(range(5), 4)))",
    "containers": "from collections import Counter, defaultdict, deque, namedtuple, OrderedDict\nP = namedtuple('P', 'x')\n"
    "def solution():\n    d = defaultdict(list)\n    d[1].append(P(5))\n    return d[1][0].x",
    "f-strings": "def solution():\n    x = 5\n    return int(f'{x:>{3}}' + f'{x!r}'[:0])",
    "nested functions": "def solution():\n    n = 0\n    def up():\n        nonlocal n\n        n += 5\n    up()\n    return n",
    "global variables": "total = 0\ndef add(x):\n    global total\n    total += x\ndef solution():\n    add(2)\n    add(3)\n    return total",
    "lambda and sets": "double = lambda x: 2 * x\ndef solution():\n    return len({double(n) % 10 for n in range(99)})",
    "tabs": "def solution():\n\tif True:\n\t\treturn 5\n",
    "division of huge numbers": "def solution():\n    return len(str(10**60000 // 10**30000 // 10**29996))",
    "line ends of Windows": "def solution():\r\n    x = 2\r\n    return x + 3\r\n",
    "line ends of old": "def solution():\r    return 5\r",
    "byte order mark": "\ufeffdef solution():\n    return 5",
    "coding line": "# -*- coding: latin-1 -*-\ndef solution():\n    return len('äöüäö')",
    "identifiers of other scripts": "def solution():\n    größe, число, 数 = 2, 2, 1\n    return größe + число + 数",
    "comments after the return": "def solution():\n    return 5\n    # so the answer is 5\n# the end",
    "main block": "def solution():\n    return 5\nif __name__ == '__main__':\n    print(solution())",
    "called at once": "def solution():\n    return 5\nprint(solution())",
    "script without a function": "x = 2\ny = 3\nsolution = lambda: x + y",
    "reads input that is not there": "import sys\ndata = sys.stdin.read().split()\ndef solution():\n    return 5 + len(data)",
    "documented": 'def solution():\n    """How many? It\'s \\"five\\"."""\n    return 5',
    "annotations of the future": "from __future__ import annotations\ndef solution(x: Nothing = 5) -> Nowhere:\n    return x",
    "match": "def solution():\n    match (1, [4]):\n        case (a, [b]) if a < b: return a + b\n    return 0",
    "semicolons and continuations": "def solution(): x = 2; y = \\\n  3; return (x\n + y)",
    "swallowed exit": "def solution():\n    try: raise SystemExit\n    except SystemExit: return 5",
    "locks that are free": "import threading\ndef solution():\n    with threading.Lock(): return 5",
    "warnings": "import warnings\ndef solution():\n    warnings.warn('old')\n    return 5 if 5 is 5 else 0",
}


def test_programs_of_unusual_shape_succeed(pool: Pool) -> None:
    assert len(BENIGN) >= 40
    outcomes = dict(zip(BENIGN, pool.run(list(BENIGN.values())), strict=True))
    assert {name: outcome for name, outcome in outcomes.items() if outcome.value != 5} == {}


def test_hidden_truths_are_out_of_reach(pool: Pool) -> None:
    programs = {
        "environment": "import os\ndef solution():\n return len(os.environ)",
        "process environment": "import ctypes\ndef solution():\n c = ctypes.CDLL(None)\n"
        " c.getenv.restype = ctypes.c_char_p\n return str(c.getenv(b'PATH'))",
        "arguments": "import sys\ndef solution():\n return str(sys.argv)",
        "frames": "import sys\ndef solution():\n f, n, k = sys._getframe(), [], 'self'\n while f:\n"
        "  n.append(str(f.f_locals)[:999])\n  if k in f.f_locals: n.append(f'{len(f.f_locals[k]._queue)} queued')\n"
        "  f = f.f_back\n return ''.join(n)",
        "objects": "import gc\ndef solution():\n todo, seen = gc.get_objects(), set()\n"
        " while todo:\n  o = todo.pop()\n  if id(o) in seen: continue\n  seen.add(id(o))\n"
        "  if isinstance(o, (str, bytes, bytearray)) and (chr(110) + 'eedle') in str(o): return str(o)\n"
        "  todo += gc.get_referents(o)\n return f'{len(seen) > 1000}'",
        "neighbour": "class Needle: 'needle'\ndef solution():\n return 1",
    }
    outcomes = dict(zip(programs, pool.run(list(programs.values())), strict=True))
    assert outcomes["environment"].value == 0
    assert outcomes["process environment"].value == "None"
    assert outcomes["arguments"].value == "['-c']"
    assert "0 queued" in str(outcomes["frames"].value)
    assert "getenv" not in str(outcomes["frames"].value)
    assert outcomes["objects"].value == "True", outcomes["objects"]


def test_a_forged_result_touches_no_other_program(pool: Pool) -> None:
    forger = forges('{"ok": {"t": "int", "v": "0x7"}}')
    honest = [f"class Alone: pass\ndef solution():\n return {n}" for n in range(20)]
    outcomes = pool.run([source for n, one in enumerate(honest) for source in (f"{forger} # {n}", one)])
    assert [outcome.value for outcome in outcomes[::2]] == [7] * 20
    assert [outcome.value for outcome in outcomes[1::2]] == list(range(20))


def test_descriptors_of_this_process_are_not_inherited(tmp_path: Path) -> None:
    secret = os.open(tmp_path / "secret", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(secret, True)
    look = (  # closing says whether it was open; fstat is a system call that is refused under some versions of glibc
        "import os\ndef solution():\n n = 0\n for fd in range(4, 256):\n"
        "  try: os.close(fd); n += 1\n  except OSError: pass\n return n"
    )
    try:
        with Pool(1) as pool:
            (outcome,) = pool.run([look])
    finally:
        os.close(secret)
    assert outcome.value == 0


def verdict(rules: list[tuple[int, int, int, int]], architecture: int, number: int, second: int = 0) -> int:
    """What the kernel would make of a system call: an interpreter of the few instructions that filters are made of."""
    data = {0: number, 4: architecture, 24: second}
    position = accumulator = 0
    while True:
        code, if_true, if_false, operand = rules[position]
        position += 1
        if code == 0x06:
            return operand
        if code == 0x20:
            accumulator = data[operand]
        elif code == 0x54:
            accumulator &= operand
        else:
            holds = {0x15: accumulator == operand, 0x35: accumulator >= operand}[code]
            position += if_true if holds else if_false


@pytest.mark.parametrize(
    ("machine", "architecture", "write", "fork", "futex"),
    [("x86_64", 0xC000003E, 1, 56, 202), ("aarch64", 0xC00000B7, 64, 220, 98)],
)
def test_verdicts_of_the_filters(machine: str, architecture: int, write: int, fork: int, futex: int) -> None:
    allow, refuse, kill = 0x7FFF0000, 0x00050001, 0x80000000
    rules, waiting = filter_rules(machine), waiting_rules(machine)
    assert rules is not None
    assert verdict(rules, architecture, write) == allow
    assert verdict(rules, architecture, fork) == refuse
    assert verdict(rules, architecture, 2000) == refuse
    assert verdict(rules, architecture ^ 1, write) == kill
    assert verdict(rules, architecture, 0x40000000 + write) == (kill if machine == "x86_64" else refuse)
    column = 1 if machine == "aarch64" else 0
    forbidden = {row[column] for row in SYSTEM_CALLS.values()} - {None}
    assert all(verdict(rules, architecture, number or 0) == refuse for number in forbidden)
    operations = range(1024)
    awake = [op for op in operations if verdict(waiting, architecture, futex, op) == allow]
    assert {op & 0x7F for op in awake} == {1}
    assert {1, 129} < set(awake)
    assert verdict(waiting, architecture, write, 0) == allow
