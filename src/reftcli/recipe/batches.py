"""The global batch is what the recipe says, whatever the number of processes; each takes its share of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

from reftcli.errors import UsageError
from reftcli.recipe.schema import Recipe

T = TypeVar("T")

BatchStage = Literal["warmup", "rl", "rerank"]
"""Stages that train, and so have batches to share."""


def check_shares(recipe: Recipe, stage: BatchStage, processes: int) -> None:
    """Whether every batch of a stage can be dealt out evenly.

    Raises:
        UsageError: it cannot; the message says what would fit.
    """
    for setting, size in _batches(recipe, stage).items():
        if size % processes:
            fits = max(processes, size - size % processes)
            raise UsageError(
                f"{setting} {size} cannot be shared evenly by {processes} processes; try --set {setting}={fits}"
            )


def _batches(recipe: Recipe, stage: str) -> Mapping[str, int]:
    if stage == "warmup":
        return {"warmup.batch_size": recipe.warmup.batch_size}
    if stage == "rerank":
        return {"rerank.batch_size": recipe.rerank.batch_size}
    sizes = {"rl.batch_size": recipe.rl.batch_size}
    if recipe.rl.mini_batch_size is not None:
        sizes["rl.mini_batch_size"] = recipe.rl.mini_batch_size
    return sizes


def whole_batches(items: Sequence[T], batch_size: int) -> list[T]:
    """A pass of whole batches: the last one is filled up with items from the start.

    Else several processes would repeat other items in it than one process has, and their losses would differ.
    """
    missing = -len(items) % batch_size
    return [*items, *(items[i % len(items)] for i in range(missing))]


def micro_batches(batch_size: int, micro_batch_size: int | None, processes: int) -> tuple[int, int]:
    """(examples per forward pass and device, forward passes per optimizer step) of a batch over all processes.

    The first is at most ``micro_batch_size`` and divides a process's share, so that every step sees exactly the batch.
    """
    share = batch_size // processes
    micro = min(micro_batch_size or share, share)
    while share % micro:
        micro -= 1
    return micro, share // micro
