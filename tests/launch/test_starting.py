"""How the launcher is started: what it is told, what it waits for, and that it never starts itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.launch.launching import Started, rows, send

from reftcli.errors import RuntimeFailure, UsageError
from reftcli.launch.launcher import Hardware, start_workers
from reftcli.launch.request import LaunchRequest

NO_GPU = Hardware(gpus=0, bf16=False)
MULTI = "{distributed_type: MULTI_GPU, num_processes: 4, num_machines: 1, use_cpu: true}"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What accelerate's launcher would be started with."""
    found = SimpleNamespace()

    def launch_command(parsed: Any) -> None:
        found.flags, found.environment = parsed, dict(os.environ)

    monkeypatch.setattr("accelerate.commands.launch.launch_command", launch_command)
    return found


def config(folder: Path, text: str) -> str:
    path = folder / "accelerate.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_flags_say_more_than_somebodys_configuration(tmp_path: Path, told: SimpleNamespace) -> None:
    request = LaunchRequest(config(tmp_path, MULTI), 8, 2, 1, "127.0.0.1:29511", rank_timeout_s=77)
    start_workers(request, ["rl"], "auto", NO_GPU)
    flags = told.flags
    assert (flags.num_processes, flags.num_machines, flags.machine_rank) == (8, 2, 1)
    assert (flags.main_process_ip, str(flags.main_process_port)) == ("127.0.0.1", "29511")
    assert flags.rdzv_conf == "timeout=77"
    assert told.environment["REFT_PROCESSES"] == "8"


def test_without_flags_the_configuration_counts(tmp_path: Path, told: SimpleNamespace) -> None:
    start_workers(LaunchRequest(config(tmp_path, MULTI)), ["rl"], "auto", NO_GPU)
    assert (told.flags.num_machines, told.flags.rdzv_conf) == (None, "")
    assert told.environment["REFT_PROCESSES"] == "4"


def test_threads_are_a_share_of_the_cores_that_the_job_may_use(
    told: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    start_workers(LaunchRequest("multi", 2), ["rl"], "auto", NO_GPU)
    assert told.environment["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_processes: [", "cannot be read"),
        ("\0", "cannot be read"),
        ("[1, 2]", "not an accelerate configuration"),
        ("", "not an accelerate configuration"),
        ("num_processes: many", "num_processes 'many'"),
        ("num_processes: 0", "num_processes 0"),
        ("{num_processes: 2, num_machines: -1}", "num_machines -1"),
    ],
)
def test_configurations_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        start_workers(LaunchRequest(config(tmp_path, text)), ["rl"], "auto", NO_GPU)
    assert "\n" not in str(caught.value)


def test_a_first_machine_that_nobody_knows() -> None:
    request = LaunchRequest("multi", 2, 2, 1, "no-such-machine.invalid:29500")
    with pytest.raises(UsageError, match=r"--main-address no-such-machine\.invalid:29500: "):
        start_workers(request, ["rl"], "auto", NO_GPU)


def test_a_port_in_use_is_told_in_our_flags() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeFailure, match=f"port {port} of this machine is in use: give another"):
            start_workers(LaunchRequest("multi", 2, 2, 0, f"127.0.0.1:{port}"), ["rl"], "auto", NO_GPU)


ONE = "{compute_environment: LOCAL_MACHINE, distributed_type: 'NO', num_processes: 1, use_cpu: true}"


def test_a_configuration_of_one_process_starts_one(one_process: Path) -> None:
    """Accelerate starts it without the variables of a worker: it once took itself for the command, and started on."""
    (one_process / "one.yaml").write_text(ONE, encoding="utf-8")
    done = Started(one_process, "eval", "rl", "--launch", "one.yaml", "--name", "by-one", "--json").ended()
    assert done.code == 0, done.err
    assert done.json["n"] == 11


def test_ctrl_c_at_a_terminal_reaches_one_process_once(one_process: Path) -> None:
    """It goes to the whole group; the worker must not take what the launcher forwards for the second time."""
    (one_process / "one.yaml").write_text(ONE, encoding="utf-8")
    program = (
        "import os, runpy, sys; os.setsid(); sys.argv[0] = 'reft'; runpy.run_module('reftcli', run_name='__main__')"
    )
    arguments = ("rl", "warmup", "--launch", "one.yaml", "--name", "group", "--set", "rl.updates=500")
    started = Started(one_process, *arguments, launcher=("-c", program))
    started.wait_for_rows("group", 2)
    os.killpg(started.process.pid, signal.SIGINT)
    done = started.ended()
    assert done.code == 130, done.err
    last = max(row["step"] for row in rows(one_process / "runs" / "group"))
    assert (one_process / "runs" / "group" / "checkpoints" / f"step-{last}").is_dir()


def test_a_configuration_that_comes_to_fewer_processes_than_it_says(one_process: Path) -> None:
    (one_process / "cpus.yaml").write_text(ONE.replace("'NO'", "MULTI_CPU").replace("1,", "2,"), encoding="utf-8")
    done = Started(one_process, "eval", "rl", "--launch", "cpus.yaml", "--name", "by-two").ended()
    assert done.code == 2, done.err
    assert "2 processes were asked for, but 1 run" in done.err


def waiting_for_another(folder: Path, *more: object) -> Started:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    two = ("--launch", "multi", "--processes", 2, "--machines", 2, "--machine-rank", 0, "--main-address", address)
    return Started(folder, "rl", "warmup", *two, "--name", "lonely", *more)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_waiting_for_another_machine_can_be_stopped(one_process: Path, number: signal.Signals) -> None:
    started = waiting_for_another(one_process)
    assert started.process.stderr is not None
    assert "waiting for 2 machines at 127.0.0.1:" in started.process.stderr.readline()
    time.sleep(3)  # by then it waits inside C++; before, the signal must end it, too
    since = time.monotonic()
    send(started.process.pid, number)
    done = started.ended()
    assert done.code == 130, done.err
    assert "interrupted" in done.err
    assert time.monotonic() - since < 15


def test_another_machine_that_does_not_come_is_an_error_after_the_timeout(one_process: Path) -> None:
    done = waiting_for_another(one_process, "--rank-timeout", 4).ended()
    assert done.code == 1
    (line,) = [line for line in done.err.splitlines() if line.startswith("reft:")]
    assert "2 machines did not come together at 127.0.0.1:" in line
    assert "4 s (--rank-timeout)" in line


def test_a_zero_profile_under_a_launcher_without_deepspeed_is_refused(one_process: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "reftcli")
    done = Started(one_process, "rl", "warmup", "--launch", "zero2", "--name", "not", launcher=torchrun).ended()
    assert "--launch zero2: the launcher that started these processes did not configure DeepSpeed" in done.err
    assert not (one_process / "runs" / "not").exists()


def test_what_the_record_says_of_somebody_elses_launcher(one_process: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "reftcli")
    few = ("--set", "rl.updates=1")
    done = Started(one_process, "rl", "warmup", *few, "--name", "external", launcher=torchrun).ended()
    assert done.code == 0, done.err
    record = json.loads((one_process / "runs" / "external" / "run.json").read_text())
    assert (record["launch"], record["world_size"]) == ("external", 2)


def test_debug_shows_where_a_worker_failed(one_process: Path) -> None:
    large = ("--set", "rl.batch_size=400", "--set", "rl.mini_batch_size=null")
    two = ("--launch", "multi", "--processes", 2)
    done = Started(one_process, "rl", "warmup", *two, *large, "--name", "large", "--debug").ended()
    assert done.code == 4
    assert "reft: 330 training problems do not fill rl.batch_size 400; lower it" in done.err.splitlines()
    assert "training/ppo/trainer.py" in done.err


@pytest.mark.parametrize("command", ["warmup", "rl"])
def test_a_dry_run_refuses_what_the_run_would_refuse(one_process: Path, command: str) -> None:
    start = ("--recipe", "recipe.yaml") if command == "warmup" else ("warmup",)
    done = Started(one_process, command, *start, "--launch", "multi", "--processes", 3, "--dry-run").ended()
    assert done.code == 2
    assert "16 cannot be shared evenly by 3 processes" in done.err
    elsewhere = Started(one_process, "eval", "rl", "--launch", "zero9", "--dry-run").ended()
    assert (elsewhere.code, "neither a profile" in elsewhere.err) == (2, True)
    alone = Started(one_process, command, *start, "--processes", 2, "--dry-run").ended()
    assert (alone.code, "--processes 2 needs --launch" in alone.err) == (2, True)
