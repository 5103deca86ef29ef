"""Checkpoints of transformers' Trainer in the shape that all our checkpoints have: ``step-N/model/`` and the rest.

Trainer writes flat folders, file by file, and a crash leaves half of one. So it writes into a hidden working folder,
and what it completed is moved over in one rename.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reftcli.errors import RuntimeFailure
from reftcli.models.precision import under_deepspeed
from reftcli.runs.files import folder_written_aside
from reftcli.runs.folder import Run
from reftcli.runs.ranks import Ranks

_TRAINER_FILES = (
    *("optimizer", "scheduler", "rng_state", "trainer_state", "training_args", "scaler"),
    *("global_step", "latest", "zero_to_fp32"),  # DeepSpeed's
)


def working_folder(run: Run) -> Path:
    """Where Trainer may write."""
    return run.folder / ".trainer"


def adopt_checkpoint(run: Run, step: int, keep: int) -> None:
    """Moves Trainer's ``checkpoint-N`` to ``checkpoints/step-N`` and removes the oldest beyond ``keep``."""
    written = working_folder(run) / f"checkpoint-{step}"
    with folder_written_aside(run.checkpoints / f"step-{step}") as aside:
        (aside / "model").mkdir()
        (aside / "trainer").mkdir()
        for file in written.iterdir():
            room = "trainer" if file.name.startswith(_TRAINER_FILES) else "model"
            os.rename(file, aside / room / file.name)
    shutil.rmtree(written, ignore_errors=True)
    for _, old in run.step_folders()[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def latest_as_trainer_wants(run: Run, ranks: Ranks) -> Iterator[str | None]:
    """The newest checkpoint as the flat folder that ``Trainer.train(resume_from_checkpoint=...)`` reads."""
    steps = run.step_folders()
    if not steps:
        yield None
        return
    step, folder = steps[-1]
    _check_engine(folder, ranks)
    flat = working_folder(run) / f"checkpoint-{step}"
    try:
        if ranks.is_main:
            _link(folder, flat)
        ranks.gather(None)
        yield str(flat)
    finally:
        if ranks.is_main:
            shutil.rmtree(flat, ignore_errors=True)


def _check_engine(folder: Path, ranks: Ranks) -> None:
    """Trainer would go on without the optimizer's state where DeepSpeed divided it among other processes, or none."""
    parts = len(list((folder / "trainer").glob("global_step*/*optim_states.pt")))
    if parts != (ranks.count if under_deepspeed() else 0):
        written = f"by DeepSpeed on {parts} processes" if parts else "without DeepSpeed"
        raise RuntimeFailure(
            f"{folder} was written {written}, and its optimizer state cannot go on otherwise; give the --launch and "
            "--processes that the run had"
        )


def _link(folder: Path, flat: Path) -> None:
    shutil.rmtree(flat, ignore_errors=True)
    flat.mkdir(parents=True)
    for file in (*(folder / "model").iterdir(), *(folder / "trainer").iterdir()):
        (flat / file.name).symlink_to(file.resolve())
