"""Takes every power away from a process that is about to run an unread program.

Three layers, each sufficient against what it covers: seccomp with an allow-list of system calls (nothing that opens a
path, a socket or a process, sends a signal, waits or changes a handler), Landlock with no rule at all (no file system,
no TCP, no signals outwards), and resource limits. Built by hand with ctypes: no extra package is needed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable

# Numbers from the kernel's arch/*/syscall tables. What sleeps, yields or changes handlers is left out on purpose: a
# program has nothing to wait for, and must neither outlive the CPU timer nor dodge its ticks. That goes for
# rt_sigreturn too, which with a forged frame blocks every signal; no handler runs in a child, so none has to return.
_X86_64 = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12,
    "mremap": 25, "madvise": 28, "getpid": 39, "uname": 63, "gettimeofday": 96, "getrusage": 98, "sysinfo": 99,
    "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "gettid": 186, "futex": 202,
    "sched_getaffinity": 204, "clock_gettime": 228, "clock_getres": 229, "exit_group": 231, "getrandom": 318,
}  # fmt: skip
_AARCH64 = {
    "close": 57, "lseek": 62, "read": 63, "write": 64, "fstat": 80, "exit_group": 94, "futex": 98, "clock_gettime": 113,
    "clock_getres": 114, "sched_getaffinity": 123, "times": 153, "uname": 160, "getrusage": 165, "gettimeofday": 169,
    "getpid": 172, "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177, "gettid": 178, "sysinfo": 179,
    "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233, "getrandom": 278,
}  # fmt: skip
_ARCHITECTURES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 1, 4, 38, 22
_SECCOMP_MODE_FILTER = 2
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_NOBODY = 65534

Rule = tuple[int, int, int, int]
"""One BPF instruction: code, jump if true, jump if false, operand."""
_LOAD, _EQUAL, _AT_LEAST, _AND, _GIVE = 0x20, 0x15, 0x35, 0x54, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
_FUTEX_WAKE = 1


class _FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]

    @classmethod
    def of(cls, rules: list[Rule]) -> _FilterProgram:
        return cls(len(rules), b"".join(struct.pack("HBBI", *rule) for rule in rules))


def filter_rules(machine: str) -> list[Rule] | None:
    """The seccomp filter for ``machine`` (as ``uname -m`` names it), or None where no table is known for it."""
    if machine not in _ARCHITECTURES:
        return None
    architecture, table = _ARCHITECTURES[machine]
    rules: list[Rule] = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_GIVE, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":  # the x32 interface reaches the same calls under numbers with this bit set
        rules += [(_AT_LEAST, 0, 1, 0x40000000), (_GIVE, 0, 0, _KILL)]
    numbers = sorted(table.values())
    rules += [(_EQUAL, len(numbers) - i, 0, number) for i, number in enumerate(numbers)]
    return [*rules, (_GIVE, 0, 0, _REFUSE), (_GIVE, 0, 0, _ALLOW)]


def waiting_rules(machine: str) -> list[Rule]:
    """A second filter, which leaves nothing of futex but waking up others, the one thing that libraries do when alone.

    Who waits uses no CPU time, so no timer would end it. Killed, not refused: glibc would abort, or try for ever.
    """
    _, table = _ARCHITECTURES[machine]
    return [
        (_LOAD, 0, 0, 0),
        (_EQUAL, 0, 4, table["futex"]),
        (_LOAD, 0, 0, 24),  # the lower half of the second argument
        (_AND, 0, 0, 0x7F),  # without the flags for private memory and for the clock
        (_EQUAL, 1, 0, _FUTEX_WAKE),
        (_GIVE, 0, 0, _KILL),
        (_GIVE, 0, 0, _ALLOW),
    ]


class Lockdown:
    """The layers this machine offers, prepared once in the worker and put on in each child."""

    def __init__(self, memory_mb: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._memory_mb = memory_mb
        self._address_space = 0
        machine = os.uname().machine
        rules = filter_rules(machine)
        self._filters: list[_FilterProgram] = []
        if rules is not None:  # the second one ends the right to install any
            self._filters = [_FilterProgram.of(waiting_rules(machine)), _FilterProgram.of(rules)]
        self.landlock_abi, self._ruleset = self._make_ruleset()

    def _make_ruleset(self) -> tuple[int, int]:
        """(ABI version, descriptor) of a ruleset that handles every right the kernel knows and grants none; (0, -1)."""
        abi = int(self._libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, 1))
        if abi < 1:
            return 0, -1
        files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
        size = 24 if abi >= 6 else 16 if abi >= 4 else 8
        attributes = struct.pack("QQQ", files, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)[:size]
        descriptor = int(self._libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, size, 0))
        return (abi, descriptor) if descriptor >= 0 else (0, -1)

    def settle(self) -> None:
        """To be called in the worker when everything is imported: what its children inherit for free."""
        with open("/proc/self/statm") as statm:
            in_use = int(statm.read().split()[0]) * resource.getpagesize()
        self._address_space = in_use + (self._memory_mb << 20)
        try:  # when memory runs out, the kernel should take a program and not the trainer
            with open("/proc/self/oom_score_adj", "w") as score:
                score.write("800")
        except OSError:
            pass
        if os.geteuid() == 0:
            _step_down_from_root()
        self._libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        self._libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)

    def put_on(self, result_fd: int, cpu_s: float) -> int:
        """In a fresh child: gives up everything for good and returns the one descriptor that is left, for the result.

        ``cpu_s`` is the CPU time that it may use from here on. Raises OSError where the filter cannot be installed; the
        child must then end without running anything.
        """
        self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for kind, value in (
            (resource.RLIMIT_CPU, int(cpu_s) + 1),
            (resource.RLIMIT_AS, self._address_space),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_NPROC, 0),
        ):
            hard = resource.getrlimit(kind)[1]
            lowered = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (lowered, lowered))
        if self._ruleset >= 0 and self._libc.syscall(_LANDLOCK_RESTRICT_SELF, self._ruleset, 0):
            raise OSError(ctypes.get_errno(), "Landlock")
        os.dup2(result_fd, 3)
        os.closerange(4, 1024)
        resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))
        signal.setitimer(signal.ITIMER_PROF, cpu_s)  # RLIMIT_CPU counts in whole seconds only
        if not self._filters:
            raise OSError(errno.ENOSYS, "seccomp")
        for rules in self._filters:
            if self._libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(rules), 0, 0):
                raise OSError(ctypes.get_errno(), "seccomp")
        return 3

    def escapes(self) -> list[str]:
        """What a locked-down child can still do that it must not: tried for real, in a child, not read from a table.

        An empty list is the only good answer; ``["seccomp"]`` means that the filter cannot be installed at all. Where
        Landlock cannot be put on (there may be 16 nested layers of it, and a container may have used them up), it is
        done without from here on.
        """
        said = self._said_by_a_child()
        if not said and self._ruleset >= 0:
            self.landlock_abi, self._ruleset = 0, -1
            said = self._said_by_a_child()
        return ["seccomp"] if not said else [] if said == "none" else said.split()

    def _said_by_a_child(self) -> str:
        """What `_attempts` found, or nothing if the lockdown failed."""
        read_fd, write_fd = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                left = self.put_on(write_fd, 1.0)
                os.write(left, (" ".join(_attempts()) or "none").encode())
            except OSError:
                pass
            finally:
                os._exit(0)
        os.close(write_fd)
        said = os.read(read_fd, 4096).decode()
        os.close(read_fd)
        os.waitpid(child, 0)
        return said


def _attempts() -> list[str]:
    def socket_pair() -> None:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    attempts: dict[str, Callable[[], object]] = {
        "open": lambda: os.open("/", os.O_RDONLY),
        "socket": socket_pair,
        "fork": os.fork,
        "signal": lambda: os.kill(os.getppid(), 0),
        "exec": lambda: os.execv("/bin/true", ["true"]),
    }
    succeeded = []
    for name, attempt in attempts.items():
        try:
            attempt()
            succeeded.append(name)
        except OSError:
            continue
    return succeeded


def _step_down_from_root() -> None:
    """A root worker goes on as nobody. Where a container forbids even that it stays root; the filter still holds."""
    try:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    except OSError:
        pass
