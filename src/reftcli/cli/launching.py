"""Commands on many processes: this process starts them, or it is one of them, or it works alone."""

from __future__ import annotations

from collections.abc import Sequence

from reftcli.launch.request import LaunchRequest
from reftcli.launch.worker import alone_on_one_gpu, current_worker
from reftcli.recipe.batches import BatchStage, check_shares
from reftcli.recipe.schema import Recipe
from reftcli.runs.progress import Progress, SilentProgress
from reftcli.runs.ranks import ALONE, Ranks


def launched(request: LaunchRequest, arguments: Sequence[str], precision: str, resumed: str | None = None) -> bool:
    """Starts the workers that were asked for and waits for them; False where this process is to do the work.

    Args:
        arguments: of this command; the workers get the same.
        resumed: name of the run that goes on, where the command found it itself: all workers must go on with it.
    """
    if current_worker() is not None:
        return False
    if not request.starts_workers:
        request.check_alone()
        return False
    from reftcli.launch.launcher import start_workers

    start_workers(request, [*arguments, *(["--name", resumed] if resumed else [])], precision)
    return True


def ranks_of(request: LaunchRequest) -> Ranks:
    """The processes that this one works with.

    Raises:
        UsageError: they are not as many as were asked for.
    """
    worker = current_worker()
    if worker is None or worker.count == 1:
        alone_on_one_gpu()
    if worker is None:
        return ALONE
    from reftcli.launch.distributed import open_ranks

    return open_ranks(request)


def profile_of(request: LaunchRequest) -> str:
    """For the record: what was asked for, or that somebody else's launcher decided."""
    worker = current_worker()
    return "external" if worker is not None and worker.reporter is None else request.profile or "single"


def check_launch(request: LaunchRequest, recipe: Recipe | None = None, stage: BatchStage | None = None) -> None:
    """What can be known of a launch without starting it. A stage that trains has batches to share.

    Raises:
        UsageError: one process is not what was asked for, or batches cannot be shared by so many.
    """
    if current_worker() is not None:
        return
    if not request.starts_workers:
        request.check_alone()
    elif request.processes is not None and recipe is not None and stage is not None:
        check_shares(recipe, stage, request.processes)


def progress_of(ranks: Ranks) -> Progress:
    """Bars and lines of the main process; the others draw nothing."""
    if not ranks.is_main:
        return SilentProgress()
    from reftcli.cli.console import TerminalProgress

    return TerminalProgress()
