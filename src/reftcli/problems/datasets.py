"""The data sets that have a name, and loading them from the hub. The ``datasets`` library is imported only for that."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from reftcli.errors import RuntimeFailure, UsageError
from reftcli.problems.files import LoadedRows, problems_of_rows
from reftcli.problems.record import Split

TOY: Literal["toy"] = "toy"


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A named data set: where it lies on the hub and which of its splits are ours."""

    name: str
    hub_id: str
    about: str
    splits: Mapping[Split, str]
    config: str | None = None
    revision: str | None = None
    numeric: bool = False
    """MathQA-numeric: options dropped, the gold answer is the number of the right option."""


_TRAIN_TEST: Mapping[Split, str] = {"train": "train", "test": "test"}
_ALL: Mapping[Split, str] = {"train": "train", "validation": "validation", "test": "test"}
_PARQUET = "refs/convert/parquet"  # math_qa itself is a loading script, which datasets 4 and later refuse

DATASETS: Mapping[str, HubDataset] = {
    entry.name: entry
    for entry in (
        HubDataset("gsm8k", "openai/gsm8k", "grade-school word problems, a number", _TRAIN_TEST, config="main"),
        HubDataset("svamp", "ChilleD/SVAMP", "one-step word problems, a number", _TRAIN_TEST),
        HubDataset("mathqa", "allenai/math_qa", "GRE-like problems, one of five options", _ALL, revision=_PARQUET),
        HubDataset(
            "mathqa-numeric",
            "allenai/math_qa",
            "MathQA without its options, a number",
            _ALL,
            None,
            _PARQUET,
            numeric=True,
        ),
    )
}
"""Every data set with a name, except ``toy``, which is generated."""

Loader = Callable[..., Any]


def dataset_names() -> list[str]:
    """The names that ``--dataset`` takes."""
    return [*DATASETS, TOY]


def resolve_dataset(dataset: str) -> HubDataset | Literal["toy"] | Path:
    """What ``--dataset`` means: a named data set, ``toy``, or a file.

    A name wins over a file of the same name (write ``./gsm8k`` for the file). Raises ``UsageError`` for a path that is
    missing, with a suggestion for a name that is unknown.
    """
    if dataset == TOY:
        return TOY
    if dataset in DATASETS:
        return DATASETS[dataset]
    by_id = next((entry for entry in DATASETS.values() if entry.hub_id.lower() == dataset.lower()), None)
    if by_id is not None:
        return by_id
    path = Path(dataset).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise UsageError(f"{dataset} is a folder; name a JSON or JSONL file in it")
    if path.suffix or os.sep in dataset:
        raise UsageError(f"no such file: {dataset}; a data set is a file or one of {', '.join(dataset_names())}")
    close = difflib.get_close_matches(dataset.lower(), dataset_names(), n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(dataset_names())}, or a path"
    raise UsageError(f"unknown data set {dataset!r}: {hint}")


def load_hub_split(entry: HubDataset, split: Split, loader: Loader | None = None) -> LoadedRows:
    """One split of a named data set; ``loader`` stands in for ``datasets.load_dataset`` in tests.

    The hash is over the rows as sorted JSON, so it does not depend on how the hub stores them. Raises
    ``RuntimeFailure`` with what to do when the hub cannot be reached and nothing is cached.
    """
    rows = [dict(row) for row in _load(entry, entry.splits[split], loader)]
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    source = f"{entry.hub_id}/{entry.splits[split]}"
    return problems_of_rows(source, list(enumerate(rows, 1)), digest.hexdigest())


def _load(entry: HubDataset, hub_split: str, loader: Loader | None) -> Any:
    arguments = [entry.hub_id] if entry.config is None else [entry.hub_id, entry.config]
    keywords = {"split": hub_split} | ({"revision": entry.revision} if entry.revision else {})
    try:
        if loader is not None:
            return loader(*arguments, **keywords)
        with no_waiting_for_an_absent_hub():
            from datasets import load_dataset  # type: ignore[import-untyped]  # loads pandas and pyarrow

            return load_dataset(*arguments, **keywords)
    except (OSError, ValueError) as error:  # datasets raises these two for no network, no access, no such config
        raise RuntimeFailure(_unreachable(entry, error)) from error


def _unreachable(entry: HubDataset, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    offline = "unset HF_HUB_OFFLINE, or " if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
    return (
        f"data set {entry.name}: {entry.hub_id} cannot be loaded from the hub ({reason}); "
        f"{offline}give a file: --dataset PATH, or --train PATH --test PATH"
    )


def hub_resolves() -> bool:
    """Whether the hub can be looked up at all; True behind a proxy, which does its own looking up."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    host = urlparse(os.environ.get("HF_ENDPOINT") or "https://huggingface.co").hostname or "huggingface.co"
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def no_waiting_for_an_absent_hub() -> Iterator[None]:
    """Without a network the libraries retry for 23 s before they look into their cache; offline mode looks at once.

    The switch is read from the environment at import, so it is set in the two modules, and set back afterwards.
    """
    if hub_resolves():
        yield
        return
    from datasets import config
    from huggingface_hub import constants

    before = (config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE)
    config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before
