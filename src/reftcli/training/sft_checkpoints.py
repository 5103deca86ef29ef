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

from reftcli.runs.files import folder_written_aside, remove_folder
from reftcli.runs.folder import Run
from reftcli.runs.ranks import Ranks
from reftcli.training.engines import engine_identity
from reftcli.training.saving import check_written_by

_ENGINE_FILE = "engine.txt"
_TRAINER_FILES = (
    *("optimizer", "scheduler", "rng_state", "trainer_state", "training_args", "scaler"),
    *("global_step", "latest", "zero_to_fp32"),  # DeepSpeed's
)


def working_folder(run: Run) -> Path:
    """Where Trainer may write."""
    return run.folder / ".trainer"


def adopt_checkpoint(run: Run, step: int, keep: int, engine: str) -> None:
    """Moves Trainer's ``checkpoint-N`` to ``checkpoints/step-N`` and removes the oldest beyond ``keep``.

    Args:
        engine: whose optimizer state it is, see `reftcli.training.engines.engine_identity`.
    """
    written = working_folder(run) / f"checkpoint-{step}"
    with folder_written_aside(run.checkpoints / f"step-{step}") as aside:
        (aside / "model").mkdir()
        (aside / "trainer").mkdir()
        for file in written.iterdir():
            room = "trainer" if file.name.startswith(_TRAINER_FILES) else "model"
            os.rename(file, aside / room / file.name)
        (aside / _ENGINE_FILE).write_text(engine, encoding="utf-8")
    shutil.rmtree(written, ignore_errors=True)
    for _, old in run.step_folders()[:-keep]:
        remove_folder(old)


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
    """Trainer would go on without the optimizer's state where DeepSpeed divided it otherwise, or not at all."""
    file = folder / _ENGINE_FILE
    check_written_by(folder, file.read_text(encoding="utf-8") if file.exists() else None, engine_identity(ranks.count))


def _link(folder: Path, flat: Path) -> None:
    shutil.rmtree(flat, ignore_errors=True)
    flat.mkdir(parents=True)
    for file in (*(folder / "model").iterdir(), *(folder / "trainer").iterdir()):
        (flat / file.name).symlink_to(file.resolve())
