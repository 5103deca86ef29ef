"""Saved evaluations of a run: which there are, what each was drawn from, and which one is meant."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reftcli.errors import DataError
from reftcli.runs.folder import Run


@dataclass(frozen=True, slots=True)
class Origin:
    """What the rows of an evaluation were drawn from, and how; kept in ``eval/*.json``."""

    identity: Mapping[str, Any] = field(default_factory=dict)
    """Weights, problems, decoding and all else that they depend on; empty where an early version wrote them."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """The settings of the sampled completions; empty where there are none."""
    limit: int | None = None

    def to_json(self) -> dict[str, Any]:
        """``{"sampling", "limit", "identity"}``."""
        return {"sampling": dict(self.sampling), "limit": self.limit, "identity": dict(self.identity)}


@dataclass(frozen=True, slots=True)
class SavedEvaluation:
    """A complete evaluation: ``samples/LABEL.jsonl`` with ``eval/LABEL.json``."""

    label: str
    samples_file: Path
    results: Mapping[str, Any]

    @property
    def problems(self) -> int:
        return int(self.results["n"])

    @property
    def samples_per_problem(self) -> int:
        return int(self.results.get("samples_per_problem") or 0)

    @property
    def has_scores(self) -> bool:
        """Whether a reward model has scored its samples."""
        return bool(self.results.get("rerank"))

    @property
    def seed(self) -> int | None:
        """Of its subsets, random ties and bootstraps."""
        seed = (self.results.get("voting") or {}).get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def origin(self) -> Origin:
        results = self.results
        return Origin(results.get("identity") or {}, results.get("sampling") or {}, results.get("limit"))


@dataclass(frozen=True, slots=True)
class Needs:
    """What somebody wants to count: so many samples a problem (``exactly``: and no more), scores of a reward model."""

    samples: int = 0
    scores: bool = False
    exactly: bool = False

    def met_by(self, saved: SavedEvaluation) -> bool:
        there = saved.samples_per_problem
        enough = there == self.samples if self.exactly else there >= self.samples
        return enough and (saved.has_scores or not self.scores)


def saved_evaluations(run: Run, label: str) -> list[SavedEvaluation]:
    """All complete ones under a label, newest first.

    Raises:
        DataError: the results of one cannot be read.
    """
    return [_read(run, numbered) for numbered in run.labels(label)]


def newest_evaluation(run: Run, label: str, preferred: Sequence[Needs] = ()) -> SavedEvaluation | None:
    """The newest that meets the first of these needs which any of them meets; else the newest of all."""
    evaluations = saved_evaluations(run, label)
    for needs in preferred:
        for saved in evaluations:
            if needs.met_by(saved):
                return saved
    return evaluations[0] if evaluations else None


def evaluation_of(samples_file: Path) -> SavedEvaluation | None:
    """The evaluation in a run's folder that a samples file belongs to; None for a file from elsewhere."""
    run = Run(samples_file.parent.parent)
    label = samples_file.stem
    belongs = samples_file.parent.name == run.samples.name and run.results_file(label).is_file()
    return _read(run, label) if belongs else None


def base_labels(run: Run) -> list[str]:
    """Labels under which complete evaluations stand, without the numbers of repeats: ``file-mine``, ``test``."""
    stems = {file.stem for file in run.results.glob("*.json") if run.samples_file(file.stem).is_file()}
    return sorted({_base(stem, stems) for stem in stems})


def _base(stem: str, stems: set[str]) -> str:
    repeat = re.fullmatch(r"(.+)-\d+", stem)
    return repeat[1] if repeat and repeat[1] in stems else stem  # file-2024 is no repeat where there is no "file"


def read_results(file: Path) -> dict[str, Any]:
    """The content of ``eval/LABEL.json``.

    Raises:
        DataError: it is not what an evaluation writes.
    """
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read ({error}); remove it, and evaluate again") from error
    if not isinstance(results, dict) or not isinstance(results.get("n"), int):
        raise DataError(f"{file}: not the results of an evaluation; remove it, and evaluate again")
    return results


def _read(run: Run, label: str) -> SavedEvaluation:
    return SavedEvaluation(label, run.samples_file(label), read_results(run.results_file(label)))
