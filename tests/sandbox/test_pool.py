"""The pool: order, duplicates, slow neighbours, lost workers, threads, forks and ends."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reftcli.errors import RuntimeFailure
from reftcli.sandbox import pool as pool_module
from reftcli.sandbox.interface import Outcome, RunLimits, Status
from reftcli.sandbox.level import Level, Protections
from reftcli.sandbox.pool import Pool, default_workers

SRC = Path(__file__).resolve().parents[2] / "src"
FOREVER = "def solution():\n x = 1\n while x: x = x % 7 + 1"


def returns(value: object) -> str:
    return f"def solution():\n    return {value!r}"


def test_outcomes_come_in_order_and_equal_programs_run_once() -> None:
    with Pool(2) as pool:
        outcomes = pool.run([returns(n % 50) for n in range(200)])
        assert [outcome.value for outcome in outcomes] == [n % 50 for n in range(200)]
        assert outcomes[0] is outcomes[50]
        assert pool.run([]) == []


def test_slow_programs_hold_nobody_up() -> None:
    with Pool(1, RunLimits(timeout_s=0.5)) as pool:
        started = time.monotonic()
        outcomes = pool.run([f"{FOREVER} # {n}" for n in range(3)] + [returns(n) for n in range(30)])
        elapsed = time.monotonic() - started
    assert [outcome.status for outcome in outcomes] == [Status.TIMEOUT] * 3 + [Status.OK] * 30
    assert elapsed < 12


def test_a_program_that_needs_less_than_the_limit_is_never_stopped_because_others_run() -> None:
    busy = "import time\ndef solution():\n    while time.process_time() < 0.2: pass\n    return {}"
    with Pool(1, RunLimits(timeout_s=0.4)) as pool:
        outcomes = pool.run([busy.format(n) for n in range(8)])  # eight at once on one or two cores
    assert [outcome.value for outcome in outcomes] == list(range(8))


def test_nothing_starts_before_it_is_needed_and_a_closed_pool_starts_again() -> None:
    pool = Pool(2)
    assert pool.workers(science=False) == []
    assert pool.run([returns(1)])[0].value == 1
    assert len(pool.workers(science=False)) == 1
    assert pool.workers(science=True) == []
    pool.close()
    assert pool.workers(science=False) == []
    assert pool.run([returns(2)])[0].value == 2
    pool.close()


def test_a_lost_worker_is_replaced_and_its_programs_run_again() -> None:
    with Pool(1, RunLimits(timeout_s=1.0)) as pool:
        pool.run([returns(0)])
        victim = pool.workers(science=False)[0]
        killer = threading.Timer(0.3, victim._process.kill)
        killer.start()
        outcomes = pool.run([FOREVER, *(returns(n) for n in range(20))])
        killer.join()
        assert victim not in pool.workers(science=False)
    assert [outcome.status for outcome in outcomes] == [Status.TIMEOUT] + [Status.OK] * 20


def test_a_worker_that_is_lost_and_has_been_silent_for_long_is_replaced_once() -> None:
    with Pool(1) as pool:
        pool.run([returns(0)])
        batch = pool_module._Batch(pool, [returns(1)])
        batch._hand_out(False)
        (worker,) = pool.workers(science=False)
        worker.last_heard -= 1e6
        batch._replace(worker)
        batch._replace_silent([worker])
        assert [outcome.value for outcome in batch.run()] == [1]


def test_a_worker_that_cannot_start_is_an_error_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reftcli.sandbox.process._BOOT", "raise SystemError('no luck')")
    with Pool(1) as pool, pytest.raises(RuntimeFailure, match="no luck"):
        pool.run([returns(1)])


def test_threads_share_a_pool() -> None:
    results: dict[int, list[Outcome]] = {}
    with Pool(1) as pool:

        def work(thread: int) -> None:
            results[thread] = pool.run([returns(100 * thread + n) for n in range(20)])

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
        for started in threads:
            started.start()
        for started in threads:
            started.join()
        # The thread that started the worker is gone; the worker must not be.
        assert pool.run([returns(7)])[0].value == 7
    for thread, outcomes in results.items():
        assert [outcome.value for outcome in outcomes] == [100 * thread + n for n in range(20)]


def test_a_fork_of_this_process_gets_workers_of_its_own() -> None:
    with Pool(1) as pool:
        pool.run([returns(1)])
        child = os.fork()
        if child == 0:
            right = pool.run([returns(2)])[0].value == 2
            pool.close()
            os._exit(0 if right else 1)
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert pool.run([returns(3)])[0].value == 3


def test_workers_and_programs_end_with_this_process() -> None:
    script = (
        "from reftcli.sandbox.pool import Pool; pool = Pool(1); pool.run(['def solution(): pass']);"
        "print(pool.workers(False)[0]._process.pid, flush=True);"
        f"pool.run([{FOREVER!r}])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(SRC)}
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and "Z" not in Path(f"/proc/{worker}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_program_that_is_too_long_is_not_run() -> None:
    with Pool(1) as pool:
        (outcome,) = pool.run(["#" * 300_000 + "\n" + returns(1)])
    assert (outcome.status, outcome.error) == (Status.ERROR, "ProgramTooLong")


def test_sets_and_random_numbers_are_the_same_in_every_worker() -> None:
    program = "import random\ndef solution():\n    return str({{'a', 'b', 'c', 'd'}}) + str(random.random() + {} * 0)"
    with Pool(2) as pool:
        outcomes = pool.run([program.format(n) for n in range(40)])
    assert len({outcome.value for outcome in outcomes}) == 1


def test_workers_are_shared_among_the_ranks_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)))
    assert default_workers() == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert default_workers() == 1


def test_protections_in_force_are_tried_and_said_in_words() -> None:
    with Pool(1) as pool:
        protections = pool.protections()
    assert protections.level in (Level.FULL, Level.FILTER)
    assert "system calls filtered" in protections.in_words()


def test_without_a_boundary_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "reftcli.sandbox.process._BOOT",
        "import sys; sys.path.insert(0, sys.argv.pop(1)); from worker import lockdown, main;"
        "lockdown.filter_rules = lambda machine: None; main.main()",
    )
    pool = Pool(1)
    with pytest.raises(RuntimeFailure, match="seccomp is not available"):
        pool.run([returns(1)])
    assert pool.protections().level is Level.NONE
    assert "not run on this machine" in pool.protections().in_words()
    pool.close()


_WORKER_AFTER = "import sys; sys.path.insert(0, sys.argv.pop(1)); from worker import lockdown, main;\n{}\nmain.main()"


def test_waiting_is_stopped_where_the_kernel_keeps_no_account_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    boot = _WORKER_AFTER.format("from worker import loop\nloop._waited_s = lambda *process: 0.0")
    monkeypatch.setattr("reftcli.sandbox.process._BOOT", boot)
    waits = "import threading\ndef solution():\n return threading.Event().wait({})"
    with Pool(1, RunLimits(timeout_s=0.4)) as pool:
        started = time.monotonic()
        outcomes = pool.run([waits.format(""), waits.format(0.01), returns(1)])
        assert time.monotonic() - started < 10
    assert [(outcome.status, outcome.error) for outcome in outcomes[:2]] == [(Status.KILLED, "SIGSYS")] * 2
    assert outcomes[2].value == 1


def test_where_landlock_cannot_be_put_on_the_filter_holds_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pool_module._say_once.cache_clear()
    boot = _WORKER_AFTER.format("lockdown._LANDLOCK_RESTRICT_SELF = 9999")
    monkeypatch.setattr("reftcli.sandbox.process._BOOT", boot)
    with Pool(1) as pool:
        protections = pool.protections()
        outcomes = pool.run([returns(1), "def solution():\n return open('/etc/passwd').read()"])
    assert (protections.level, protections.landlock_abi) == (Level.FILTER, 0)
    assert "Landlock" in protections.in_words()
    assert [outcome.status for outcome in outcomes] == [Status.OK, Status.ERROR]
    with Pool(1) as pool:
        pool.run([returns(1)])
    assert capsys.readouterr().err.count("lower level of protection, filter") == 1, "it is said, and said once"


def test_inside_as_many_layers_of_landlock_as_the_kernel_allows_the_filter_holds_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Pool(1) as pool:
        if pool.protections().level is not Level.FULL:
            pytest.skip("this kernel has no Landlock")
    layers = (  # sixteen rulesets, each of which takes away only the right to make block devices
        "import ctypes, struct\nlibc = ctypes.CDLL(None)\nlibc.prctl(38, 1, 0, 0, 0)\n"
        "ruleset = libc.syscall(444, struct.pack('Q', 1 << 11), 8, 0)\n"
        "assert [libc.syscall(446, ruleset, 0) for _ in range(17)][-2:] == [0, -1]"
    )
    monkeypatch.setattr("reftcli.sandbox.process._BOOT", _WORKER_AFTER.format(layers))
    with Pool(1) as pool:
        assert pool.protections().level is Level.FILTER
        assert pool.run([returns(1)])[0].value == 1


def test_stricter_limits_of_this_process_stay() -> None:
    script = (
        "from reftcli.sandbox.pool import Pool\nwith Pool(1) as pool:\n"
        "    print(pool.run(['def solution():\\n return 5'])[0].value)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        preexec_fn=lambda: [resource.setrlimit(kind, (2, 2)) for kind in (resource.RLIMIT_CPU, resource.RLIMIT_CORE)],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "5\n", done.stderr


def test_long_programs_run_in_a_process_of_low_priority() -> None:
    script = (
        "import os; os.nice(19)\nfrom reftcli.sandbox.pool import Pool\nwith Pool(1) as pool:\n"
        "    print(pool.run(['import time\\nwhile time.process_time() < 0.3: pass\\nsolution = int'])[0].value)"
    )
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert done.stdout == "0\n", done.stderr


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_program_that_somebody_stops_runs_again_and_is_a_timeout_the_second_time() -> None:
    """Nothing that a program does makes it wait; from outside it can be done."""
    if not (Path("/proc/self/schedstat").exists() and Path(f"/proc/self/task/{os.getpid()}/children").exists()):
        pytest.skip("this kernel does not say how long a process waited")
    busy = "import time\nwhile time.process_time() < 0.3: pass\ndef solution():\n return {}"
    for stops, status in ((1, Status.OK), (2, Status.TIMEOUT)):
        with Pool(1, RunLimits(timeout_s=0.5)) as pool:
            pool.run([returns(0)])
            worker = pool.workers(science=False)[0]._process.pid
            outcomes: list[Outcome] = []
            running = threading.Thread(target=lambda: outcomes.extend(pool.run([busy.format(5)])))  # noqa: B023
            running.start()
            stopped: set[int] = set()
            deadline = time.monotonic() + 20
            while len(stopped) < stops and time.monotonic() < deadline:
                time.sleep(0.1)
                for child in set(children_of(worker)) - stopped:
                    os.kill(child, signal.SIGSTOP)
                    stopped.add(child)
            running.join()
        assert (len(stopped), outcomes[0].status) == (stops, status)


def test_a_way_out_is_named() -> None:
    protections = Protections.from_handshake({"escapes": ["open", "fork"], "landlock_abi": 4})
    assert protections.level is Level.NONE
    with pytest.raises(RuntimeFailure, match="still possible: open, fork"):
        protections.require_boundary()
    assert Protections.from_handshake({"escapes": [], "landlock_abi": 0}).level is Level.FILTER


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(RuntimeFailure, match="darwin"):
        Pool(1).run([returns(1)])
    assert Pool(1).protections().level is Level.NONE


def test_the_module_is_light() -> None:
    assert pool_module.__file__ is not None
    script = "import sys; import reftcli.sandbox.pool; print(int(bool({'torch', 'sympy', 'numpy'} & set(sys.modules))))"
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    assert (
        subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False).stdout
        == "0\n"
    )
