"""From a request (a name or paths, a form, sizes) to the problems of the splits and a record of their origin."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reftcli.errors import DataError, UsageError
from reftcli.problems.datasets import TOY, HubDataset, load_hub_split, resolve_dataset
from reftcli.problems.files import LoadedRows, load_file
from reftcli.problems.formats.interface import RowFormat
from reftcli.problems.formats.mathqa import as_numeric
from reftcli.problems.record import AnswerKind, CotForm, Problem, Split
from reftcli.problems.splits import CARVED_SHARE, carve, normalised_question, with_unique_ids

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class DataRequest:
    """What to load. Paths name splits separately; sizes (problems) count where a split is carved or generated."""

    dataset: str
    form: CotForm
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    validation_size: int = 200
    test_size: int = 500
    split_seed: int = 42
    level: int | None = None
    """Difficulty of ``toy``; other data sets have none."""
    answer: AnswerKind | None = None
    """Replaces the kind that the data set suggests; ``number`` on a choice problem drops its options."""
    train_size: int = 2000
    """Training problems of ``toy``; other data sets bring their own number."""


@dataclass(frozen=True, slots=True)
class ProblemSets:
    """The problems of a run, and the plain data that ``run.json`` keeps about them."""

    train: list[Problem]
    validation: list[Problem]
    test: list[Problem]
    form: CotForm
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def split(self, name: Split) -> list[Problem]:
        """The problems of one split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


def load_problem_sets(request: DataRequest) -> ProblemSets:
    """The three splits; what no file or hub split gives is carved from the training problems.

    A training file replaces the named data set altogether. Raises ``UsageError`` for unknown names and missing paths,
    ``DataError`` for content that cannot be used or when no training problem is left, ``RuntimeFailure`` when the hub
    cannot be reached.
    """
    named = resolve_dataset(request.dataset)
    if named == TOY and not (request.train or request.validation or request.test):
        return _toy_sets(request)
    if named == TOY:
        raise UsageError("--train, --validation and --test do not go with the data set toy: give --dataset PATH")
    warnings: list[str] = []
    numeric = isinstance(named, HubDataset) and named.numeric
    loaded = _sources(request, named)
    given = {split: _prepared(loaded[split], request.form, request.answer, numeric, warnings) for split in loaded}
    if not given["train"]:
        raise DataError(f"{loaded['train'].source}: no problem is left to train on")
    splits, carved = _with_carved(given, request, warnings)
    if not splits["train"]:
        raise DataError(f"{loaded['train'].source}: no problem is left to train on after carving {carved}")
    splits = with_unique_ids(splits)
    _warn_of_overlap(splits, warnings)
    record = {split: _source_record(loaded[split], len(splits[split])) for split in loaded}
    for split, count in carved.items():
        asked = _size(request, split)
        record[split] = {"carved_from": "train", "seed": request.split_seed, "asked": asked, "problems": count}
    return _sets(request, splits, record, warnings)


def load_problem_file(path: Path | str, form: CotForm, answer: AnswerKind | None = None) -> list[Problem]:
    """Every problem of a file, nothing carved: what ``eval --dataset FILE`` uses; raises as ``load_problem_sets``."""
    loaded = load_file(path)
    problems = _prepared(loaded, form, answer, False, [])
    if not problems:
        raise DataError(f"{path}: no problem is left")
    return with_unique_ids({"test": problems})["test"]


def _sources(request: DataRequest, named: HubDataset | Path | str) -> dict[Split, LoadedRows]:
    """The rows of every split that has a file or a hub split of its own."""
    paths: dict[Split, str | None] = {"train": request.train, "validation": request.validation, "test": request.test}
    loaded: dict[Split, LoadedRows] = {}
    for split in SPLITS:
        path = paths[split]
        if path is not None:
            loaded[split] = load_file(path)
        elif isinstance(named, HubDataset) and request.train is None and split in named.splits:
            loaded[split] = load_hub_split(named, split)
        elif isinstance(named, Path) and split == "train":
            loaded[split] = load_file(named)
    return loaded


def _prepared(
    loaded: LoadedRows, form: CotForm, answer: AnswerKind | None, numeric: bool, warnings: list[str]
) -> list[Problem]:
    """Answer kinds as asked for, and programs derived where none are given."""
    problems = _as_kind(loaded, answer, numeric, warnings)
    kinds = Counter(problem.answer_kind for problem in problems)
    if len(kinds) > 1:
        shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        rare = min(kinds, key=lambda kind: kinds[kind])
        example = next(problem for problem in problems if problem.answer_kind == rare)
        warnings.append(f"{loaded.source}: kinds of answers are mixed ({shown}; {rare} first at {example.source})")
    if form == "pcot":
        problems = [_with_program(problem, loaded.format) for problem in problems]
    return problems


def _as_kind(loaded: LoadedRows, answer: AnswerKind | None, numeric: bool, warnings: list[str]) -> list[Problem]:
    problems = loaded.problems
    if numeric or answer == "number":
        kept = [as_numeric(problem) if problem.options else problem for problem in problems]
        dropped = sum(problem is None for problem in kept)
        if dropped:
            warnings.append(f"{loaded.source}: {dropped} of {len(problems)} dropped: the right option is no number")
        problems = [problem for problem in kept if problem is not None]
    if answer is None:
        return problems
    if answer == "choice" and (bare := next((problem for problem in problems if not problem.options), None)):
        raise DataError(f"{bare.source}: answer kind choice was asked for, but the question has no options")
    return [dataclasses.replace(problem, answer_kind=answer) for problem in problems]


def _with_program(problem: Problem, format_: RowFormat) -> Problem:
    if "pcot" in problem.chains or format_.derive_program is None:
        return problem
    program = format_.derive_program(problem)
    if program is None:
        return problem
    return dataclasses.replace(
        problem,
        chains={**problem.chains, "pcot": program},
        chain_sources={**problem.chain_sources, "pcot": format_.derived_from},
    )


def _size(request: DataRequest, split: Split) -> int:
    return {"train": request.train_size, "validation": request.validation_size, "test": request.test_size}[split]


def _with_carved(
    given: Mapping[Split, list[Problem]], request: DataRequest, warnings: list[str]
) -> tuple[dict[Split, list[Problem]], dict[Split, int]]:
    """All three splits, and how many problems were carved for those that were missing."""
    sizes: dict[Split, int] = {}
    for split in SPLITS:
        if split in given:
            continue
        limit = len(given["train"]) // CARVED_SHARE
        sizes[split] = min(_size(request, split), limit)
        if sizes[split] < _size(request, split):
            warnings.append(
                f"{split}: {sizes[split]} problems carved, not {_size(request, split)}: "
                f"at most one in {CARVED_SHARE} of {len(given['train'])}"
            )
    elsewhere = {normalised_question(p.question) for split in given if split != "train" for p in given[split]}
    train, carved = carve(given["train"], sizes, request.split_seed, elsewhere)
    splits = {split: train if split == "train" else carved.get(split, given.get(split, [])) for split in SPLITS}
    return splits, {split: len(carved[split]) for split in carved}


def _warn_of_overlap(splits: Mapping[Split, list[Problem]], warnings: list[str]) -> None:
    train = {normalised_question(problem.question) for problem in splits["train"]}
    for split in ("validation", "test"):
        shared = sum(normalised_question(problem.question) in train for problem in splits[split])
        if shared:
            warnings.append(f"{split}: {shared} of {len(splits[split])} questions are in train too")


def _source_record(loaded: LoadedRows, problems: int) -> dict[str, Any]:
    return {
        "path": loaded.source,
        "sha256": loaded.sha256,
        "format": loaded.format.name,
        "rows": loaded.rows,
        "problems": problems,
    }


def chain_source_counts(problems: Sequence[Problem], form: CotForm) -> dict[str, int]:
    """How many chains of a form came from where; ``"none"`` counts problems without one."""
    return dict(Counter(problem.chain_sources.get(form, "none") for problem in problems).most_common())


def _sets(
    request: DataRequest, splits: Mapping[Split, list[Problem]], record: Mapping[Split, Any], warnings: Sequence[str]
) -> ProblemSets:
    provenance = {
        "dataset": request.dataset,
        "form": request.form,
        "rows": {split: len(splits[split]) for split in SPLITS},
        "splits": {split: record[split] for split in SPLITS},
        "chain_sources": {split: chain_source_counts(splits[split], request.form) for split in SPLITS},
        "warnings": list(warnings),
    }
    return ProblemSets(splits["train"], splits["validation"], splits["test"], request.form, provenance)


def _toy_sets(request: DataRequest) -> ProblemSets:
    from reftcli.problems.toy import toy_problem_sets

    try:
        train, validation, test = toy_problem_sets(
            level=request.level,
            form=request.form,
            answer=request.answer,
            train_size=request.train_size,
            validation_size=request.validation_size,
            test_size=request.test_size,
            seed=request.split_seed,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    if not train:
        raise DataError(f"toy: no problem is left to train on (train_size is {request.train_size})")
    splits = with_unique_ids({"train": train, "validation": validation, "test": test})
    record: dict[Split, Any] = {
        split: {
            "path": TOY,
            "sha256": _digest(splits[split]),
            "format": TOY,
            "seed": request.split_seed,
            "level": request.level,
            "problems": len(splits[split]),
        }
        for split in SPLITS
    }
    return _sets(request, splits, record, [])


def _digest(problems: Sequence[Problem]) -> str:
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(f"{problem.question}\0{problem.gold_answer}\0".encode(errors="surrogatepass"))
    return digest.hexdigest()
