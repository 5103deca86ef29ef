"""What a worker tells the command that started it: a small file each, in a folder that they share."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """``code`` and ``message`` are set when the worker has ended with an error that it understood."""

    rank: int
    pid: int
    run_folder: str | None = None
    doing: str = "starting"
    """What it was last seen at."""
    since: float = 0.0
    """Unix time at which that began."""
    code: int | None = None
    message: str = ""
    unexpected: bool = False
    """The error is none of ours: perhaps only the echo of another rank's end."""
    ended: float = 0.0


class Reporter:
    """Writes the report of one worker. Each file is replaced whole, so a reader never sees half of one."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._file = folder / f"rank-{rank}.json"
        self._report = WorkerReport(rank, os.getpid(), since=time.time())
        self._write()

    def runs_in(self, run_folder: Path) -> None:
        """Says which run this is."""
        self._report = replace(self._report, run_folder=str(run_folder.absolute()))
        self._write()

    def is_at(self, doing: str) -> None:
        """Says what it does now."""
        self._report = replace(self._report, doing=doing, since=time.time())
        self._write()

    def ends(self, code: int, message: str, *, unexpected: bool) -> None:
        """Says why it ends. The first reason counts: later ones are its consequences."""
        if self._report.code is None:
            self._report = replace(self._report, code=code, message=message, unexpected=unexpected, ended=time.time())
            self._write()

    def _write(self) -> None:
        aside = self._file.with_suffix(f".{os.getpid()}.partial")
        try:
            aside.write_text(json.dumps(asdict(self._report)), encoding="utf-8")
            os.replace(aside, self._file)
        except OSError:
            return  # a full /tmp must not end a training run


def read_reports(folder: Path) -> list[WorkerReport]:
    """The reports so far, by rank."""
    reports = [WorkerReport(**json.loads(file.read_text(encoding="utf-8"))) for file in folder.glob("rank-*.json")]
    return sorted(reports, key=lambda report: report.rank)
