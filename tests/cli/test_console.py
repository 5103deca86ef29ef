"""What a person sees of a long run: a live view in 80 columns on a terminal, plain lines in a log."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import pytest
from rich.console import Console

from reftcli.cli import console as console_module
from reftcli.cli.console import TerminalProgress, _shown, _status

ROW = {
    "reward_mean": 0.5123,
    "accuracy": 0.43,
    "kl": 0.2134,
    "completion_length": 84.4,
    "truncated_rate": 0.031,
    "entropy": 0.7,
    "seconds": 6.0,
    "seconds_rollout": 1.23,
    "seconds_grading": 0.31,
    "seconds_scoring": 0.84,
    "seconds_update": 3.62,
}
LONGEST = {
    **ROW,
    "kl": -10.004,
    "completion_length": 1023.7,
    "truncated_rate": 1.0,
    "val_accuracy": 0.41,
    "seconds_rollout": 123.4,
    "seconds_grading": 123.4,
    "seconds_update": 1234.5,
}
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_the_numbers_and_the_seconds_are_two_lines() -> None:
    assert _shown(ROW) == [
        "reward 0.512  accuracy 0.430  KL 0.21  length 84  truncated 3%",
        "rollout 1.2 s  grading 0.3 s  scoring 0.8 s  update 3.6 s",
    ]
    assert _shown({"loss": 0.5, "lr": 1e-5}) == ["loss 0.5"]
    assert _shown({"kl": -0.001}) == ["KL 0.00"]
    assert _shown({}) == []
    assert all(len(line) <= 79 for line in _shown(LONGEST))


@pytest.mark.parametrize(
    ("done", "per_second", "expected"),
    [
        (0, 0.0, "0/300 updates"),
        (30, 2.0, "30/300 updates, 2.0/s, 2:15 left"),
        (30, 123.4, "30/300 updates, 123/s, 0:02 left"),
        (12, 0.08, "12/300 updates, 12.5 s each, 1:00:00 left"),
    ],
)
def test_rate_and_time_left(done: int, per_second: float, expected: str) -> None:
    assert _status(done, 300, "update", per_second) == expected


@pytest.mark.parametrize("row", [ROW, LONGEST])
def test_a_terminal_of_80_columns_shows_everything(row: dict[str, float]) -> None:
    screen = io.StringIO()
    progress = TerminalProgress(Console(file=screen, force_terminal=True, width=80, color_system=None))
    with progress.task("rl", 300, "update") as task:
        task.advance(0)
        task.advance()
        task.show({"val_accuracy": 0.41})
        task.show(row)
    lines = [ESCAPE.sub("", line).strip("\r") for line in screen.getvalue().split("\n")]
    assert all(len(line.rstrip()) <= 80 for line in lines)
    shown = "\n".join(lines)
    assert "1/300 updates" in shown
    for text in _shown({**row, "val_accuracy": 0.41}):
        assert text in shown


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_a_log_gets_a_line_per_update_without_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(console_module, "time", clock)
    log = io.StringIO()
    progress = TerminalProgress(Console(file=log, force_terminal=False, width=80))
    with progress.task("rl", 104, "update") as task:
        task.advance(100)  # a resumed run: what was done before says nothing about the rate
        for _ in range(4):
            clock.now += 20.0
            task.show(ROW)
            task.advance()
            task.show({"val_accuracy": 0.41})
    lines = log.getvalue().splitlines()
    assert len(lines) == 4
    assert "\x1b" not in log.getvalue()
    assert "\r" not in log.getvalue()
    assert lines[0] == (
        "rl: 101/104 updates, 20.0 s each, 1:00 left  reward 0.512  accuracy 0.430  KL 0.21  length 84  truncated 3%  "
        "rollout 1.2 s  grading 0.3 s  scoring 0.8 s  update 3.6 s"
    )
    assert lines[3].startswith("rl: 104/104 updates, 20.0 s each, 0:00 left")
    assert "val 0.410" in lines[3]


def test_fast_work_does_not_flood_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(console_module, "time", clock)
    log = io.StringIO()
    with TerminalProgress(Console(file=log, force_terminal=False)).task("warm-up", 100, "step") as task:
        for _ in range(100):
            clock.now += 0.4
            task.show({"loss": 0.5})
            task.advance()
    assert [line.split()[1] for line in log.getvalue().splitlines()] == ["38/100", "76/100", "100/100"]


def test_standard_output_stays_clean_where_wandb_is_offline() -> None:
    """Transformers prints that it is when the module of its own trackers is imported."""
    script = (
        "from reftcli.cli.console import quiet_libraries as q; q(); import transformers.integrations.integration_utils"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout == ""
    assert "WANDB offline" in done.stderr
