"""What people see: lines and bars on standard error, results on standard output."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichBars

_PLAIN_INTERVAL_S = 15.0
_SPEED_PERIOD_S = 3600.0
"""Rich forgets what is older: with its 30 s, work of a minute a unit would have neither rate nor time left."""
_NUMBERS = (
    ("loss", "loss {:.3g}"),
    ("reward_mean", "reward {:.3f}"),
    ("accuracy", "accuracy {:.3f}"),
    ("kl", "KL {:z.2f}"),
    ("completion_length", "length {:.0f}"),
    ("truncated_rate", "truncated {:.0%}"),
    ("val_accuracy", "val {:.3f}"),
)
"""(key in metrics.jsonl, how it is shown): 80 columns in all, at their longest."""
_SECONDS = tuple((f"seconds_{phase}", f"{phase} {{:.1f}} s") for phase in ("rollout", "grading", "scoring", "update"))


def say(line: str) -> None:
    """One line on standard error."""
    print(line, file=sys.stderr, flush=True)


def print_json(value: Mapping[str, Any]) -> None:
    """The one JSON object of ``--json``."""
    print(json.dumps(value, ensure_ascii=False, default=str), flush=True)


def print_table(table: Any) -> None:
    """A rich table on standard output."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=100)
    console.print(table)


def quiet_libraries() -> None:
    """Their bars and warnings would tear ours; real errors still come through. Called before they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    import torch
    from transformers.utils import logging

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed warns that it found no GPU

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if os.environ.get("WANDB_MODE") == "offline":
        with redirect_stdout(sys.stderr):
            import transformers.integrations.integration_utils  # noqa: F401 - prints that it is so, once


class TerminalProgress:
    """Bars with rate, time left and numbers on a terminal; elsewhere a line every quarter of a minute."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self._console: Console = console or Console(stderr=True)
        self._bars: RichBars | None = None
        self._open = 0

    def say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def task(self, title: str, total: int, unit: str) -> Any:
        return self._bar(title, total, unit) if self._console.is_terminal else self._lines(title, total, unit)

    @contextmanager
    def _bar(self, title: str, total: int, unit: str) -> Iterator[_BarTask]:
        if self._bars is None:
            self._bars = _new_bars(self._console)
        if self._open == 0:
            self._bars.start()
        self._open += 1
        task_id = self._bars.add_task(title, total=total, unit=unit, values={})
        try:
            yield _BarTask(self._bars, task_id)
        finally:
            self._bars.update(task_id, visible=False)
            self._open -= 1
            if self._open == 0:
                self._bars.stop()
                self._bars = None

    @contextmanager
    def _lines(self, title: str, total: int, unit: str) -> Iterator[_LineTask]:
        yield _LineTask(self.say, title, total, unit)


def _new_bars(console: Console) -> RichBars:
    from rich.console import RenderableType
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Status(ProgressColumn):
        """Units done, rate and time left: what must stay readable on a narrow terminal."""

        def render(self, task: Task) -> Text:
            done, total = int(task.completed), int(task.total or 0)
            return Text(_status(done, total, str(task.fields["unit"]), task.speed or 0.0))

    class Bars(Progress):
        """A line for each task, and its numbers in lines of their own below."""

        def get_renderables(self) -> Iterator[RenderableType]:
            for task in self.tasks:
                if task.visible:
                    yield self.make_tasks_table([task])
                    for line in _shown(task.fields["values"]):
                        yield Text(line, no_wrap=True, overflow="ellipsis")

    return Bars(
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=10),
        Status(table_column=Column(no_wrap=True)),
        console=console,
        transient=True,
        speed_estimate_period=_SPEED_PERIOD_S,
    )


def _status(done: int, total: int, unit: str, per_second: float) -> str:
    if per_second <= 0:
        return f"{done}/{total} {unit}s"
    rate = f"{per_second:.{0 if per_second >= 10 else 1}f}/s" if per_second >= 1 else f"{1 / per_second:.1f} s each"
    return f"{done}/{total} {unit}s, {rate}, {_duration((total - done) / per_second)} left"


def _shown(values: Mapping[str, float]) -> list[str]:
    """The numbers, then the seconds, each in a line where there are any."""
    lines = [
        "  ".join(text.format(values[key]) for key, text in shown if isinstance(values.get(key), int | float))
        for shown in (_NUMBERS, _SECONDS)
    ]
    return [line for line in lines if line]


class _BarTask:
    def __init__(self, bars: RichBars, task_id: Any) -> None:
        self._bars, self._task_id = bars, task_id
        self._values: dict[str, float] = {}

    def advance(self, units: int = 1) -> None:
        self._bars.advance(self._task_id, units)

    def show(self, values: Mapping[str, float]) -> None:
        self._values |= values
        self._bars.update(self._task_id, values=dict(self._values), refresh=True)


class _LineTask:
    """For logs: progress as lines, not too many."""

    def __init__(self, say: Any, title: str, total: int, unit: str) -> None:
        self._say, self._title, self._total, self._unit = say, title, total, unit
        self._done = 0
        self._done_before: int | None = None
        self._spoke = False
        self._started = self._last = time.monotonic()
        self._values: dict[str, float] = {}

    def advance(self, units: int = 1) -> None:
        self._done += units
        now = time.monotonic()
        if self._done_before is None:
            # What is reported first was done before, or at the start of the clock: it says nothing about the rate.
            self._done_before, self._started = self._done, now
        if now - self._last < _PLAIN_INTERVAL_S and not (self._done >= self._total and self._spoke):
            return
        self._last, self._spoke = now, True
        rate = (self._done - self._done_before) / max(now - self._started, 1e-9)
        status = _status(self._done, self._total, self._unit, rate)
        self._say("  ".join([f"{self._title}: {status}", *_shown(self._values)]))

    def show(self, values: Mapping[str, float]) -> None:
        self._values |= values


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
