"""The data settings of a recipe as the problems room takes them. Loads no model code."""

from __future__ import annotations

from reftcli.problems.load import DataRequest
from reftcli.recipe.schema import DataSettings

_TOY_TRAIN_SIZE = 6_000


def data_request(settings: DataSettings) -> DataRequest:
    """What to load, and how many problems to carve or generate."""
    return DataRequest(
        dataset=settings.dataset,
        form=settings.cot,
        train=settings.train,
        validation=settings.validation,
        test=settings.test,
        validation_size=settings.validation_size,
        test_size=settings.test_size,
        split_seed=settings.split_seed,
        level=settings.level,
        answer=settings.answer,
        train_size=settings.train_size or _TOY_TRAIN_SIZE,
    )
