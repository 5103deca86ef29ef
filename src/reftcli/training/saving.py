"""Writing models and checkpoints from many processes: one folder, complete or absent, one writer for what is whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reftcli.errors import RuntimeFailure
from reftcli.models.load import save_model
from reftcli.runs.files import folder_written_aside
from reftcli.runs.ranks import Ranks
from reftcli.training.engines import Engine


@contextmanager
def folder_of_all(folder: Path, ranks: Ranks) -> Iterator[Path]:
    """A folder that every process may write into; it takes its name when all of them are done."""
    if not ranks.is_main:
        yield Path(ranks.from_main(""))
        ranks.gather(None)
        ranks.gather(None)  # it has its name
        return
    with folder_written_aside(folder) as aside:
        ranks.from_main(str(aside))
        yield aside
        ranks.gather(None)
    ranks.gather(None)


def check_written_by(folder: Path, engine: str | None, now: str) -> None:
    """Whether the optimizer's state in a checkpoint can go on here.

    Args:
        engine: the `Engine.identity` that it was written under; None: nobody wrote it down, so torch's alone.
        now: that of the engine which is to go on.

    Raises:
        RuntimeFailure: it cannot.
    """
    if (engine or "torch") != now:
        raise RuntimeFailure(
            f"{folder} was written by {engine or 'torch'}, and its optimizer state cannot go on under {now}; give the "
            "--launch and --processes that the run had (or start a new run from its model/)"
        )


def save_weights(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, engine: Engine, ranks: Ranks
) -> None:
    """A folder that ``from_pretrained`` loads, written by the main process from what all of them hold."""
    weights = engine.weights(model, wanted=ranks.is_main)
    if ranks.is_main:
        save_model(folder, model, tokenizer, weights)


def save_model_of_all(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, engine: Engine, ranks: Ranks
) -> None:
    """`save_weights` into a folder that is complete or absent."""
    with folder_of_all(folder, ranks) as aside:
        save_weights(aside, model, tokenizer, engine, ranks)
