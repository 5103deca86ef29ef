"""Why workers ended: the first cause among what they said and how the launcher saw them end."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from reftcli.errors import ExitCode, ReftError, RuntimeFailure
from reftcli.launch.reports import WorkerReport


@dataclass(frozen=True, slots=True)
class Failure:
    """How the launcher saw a worker end. A negative ``exit_code`` is the number of the signal that ended it."""

    rank: int
    pid: int
    exit_code: int


class WorkerFailed(ReftError):
    """What a worker said when it ended, with its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = ExitCode(code)


def why_it_ended(reports: Sequence[WorkerReport], failures: Sequence[Failure]) -> ReftError | None:
    """The first cause, not its echoes: a rank killed from outside, else the earliest error that a worker understood."""
    killed = [failure for failure in failures if failure.exit_code < 0 and failure.exit_code != -signal.SIGTERM]
    if killed and not _gave_up(reports):
        return RuntimeFailure(_killed(killed[0], reports))
    ended = sorted((r for r in reports if r.code is not None), key=lambda r: (r.unexpected, r.ended))
    if ended:
        return _said_by(ended[0], reports)
    if failures:
        return RuntimeFailure(f"rank {failures[0].rank} ended with exit code {failures[0].exit_code}, without a reason")
    return None


def _gave_up(reports: Sequence[WorkerReport]) -> bool:
    """Whether a rank waited for others in vain: who was then killed had stalled before."""
    return any(report.code is not None and "--rank-timeout" in report.message for report in reports)


def _said_by(first: WorkerReport, reports: Sequence[WorkerReport]) -> ReftError:
    """The message of a worker; whose it is, where it is not everybody's; and where those are that it missed.

    Recipe, command line and data are the same for all ranks, and so is what is wrong with them. The launcher ends the
    others before they can say the same.
    """
    failed_alone = first.code == ExitCode.RUNTIME and sum(report.message == first.message for report in reports) == 1
    everybodys = not failed_alone or len(reports) == 1
    said = first.message if everybodys else f"rank {first.rank}: {first.message}"
    if "--rank-timeout" in first.message:
        behind = min(_missed(first, reports), key=lambda report: report.since)
        seconds = first.ended - behind.since
        said += f"; rank {behind.rank} (process {behind.pid}) was at: {behind.doing}, for {seconds:.0f} s"
    return WorkerFailed(said, int(first.code or 0))


def _missed(first: WorkerReport, reports: Sequence[WorkerReport]) -> Sequence[WorkerReport]:
    """Those that a worker waited for in vain, as it said; else all others. Its own report may be the oldest of all."""
    named = re.search(r"rank ([\d, ]+) did not come", first.message)
    numbers = {int(number) for number in re.findall(r"\d+", named[1])} if named else set()
    others = [report for report in reports if report.rank != first.rank] or list(reports)
    return [report for report in others if report.rank in numbers] or others


def _killed(failure: Failure, reports: Sequence[WorkerReport]) -> str:
    name = signal.Signals(-failure.exit_code).name
    report = next((report for report in reports if report.rank == failure.rank), None)
    doing, pid = (report.doing, failure.pid or report.pid) if report else ("starting", failure.pid)
    why = " (often: out of memory; --launch zero3 or a smaller micro-batch needs less)" if name == "SIGKILL" else ""
    return f"rank {failure.rank} (process {pid}) was ended by {name}{why} at: {doing}; go on with --resume"
