"""Saved samples: the rows of ``samples/*.jsonl``, read and written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from reftcli.errors import DataError, UsageError
from reftcli.grading.interface import Verdict
from reftcli.runs.folder import Run
from reftcli.sampling.interface import Decoding


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRecord:
    """One row of ``samples/*.jsonl``: a completion, what was made of it, and where it came from."""

    item_id: str
    split: str = ""
    sample_index: int
    decoding: Decoding
    prompt: str = ""
    completion: str = ""
    predicted_answer: str | None
    gold_answer: str = ""
    verdict: Verdict
    score: float | None = None
    reward: float | None = None
    why: str = ""
    logprob: float | None = None
    """Sum over the completion's tokens; None where it was not computed."""
    step: int | None = None
    rm_score: float | None = None
    """The reward model's p(correct); left out of the row where there is none."""

    @property
    def answered(self) -> bool:
        """Whether the sample votes and can be picked."""
        return self.predicted_answer is not None and self.verdict is not Verdict.NO_ANSWER

    def to_json(self) -> dict[str, Any]:
        """The row as plain data, keys in the contract's order."""
        row: dict[str, Any] = {name: getattr(self, name) for name in _KINDS}
        row["verdict"] = str(self.verdict)
        if self.rm_score is None:
            del row["rm_score"]
        return row

    @classmethod
    def from_json(cls, row: object, where: str) -> SampleRecord:
        """Checks a parsed row. Keys that are not ours are ignored. ``where`` is ``file:line``, for the DataError."""
        if not isinstance(row, Mapping):
            raise DataError(f"{where}: a sample must be a JSON object")
        problems = [problem for name in _KINDS if (problem := _problem_with(row, name))]
        if problems:
            raise DataError(f"{where}: {'; '.join(problems)}")
        fields = {name: row[name] for name in _KINDS if name in row}
        return cls(**{**fields, "verdict": Verdict(row["verdict"])})


_KINDS: Mapping[str, str] = {
    "item_id": "text",
    "split": "text",
    "sample_index": "integer",
    "decoding": "decoding",
    "prompt": "text",
    "completion": "text",
    "predicted_answer": "text or null",
    "gold_answer": "text",
    "verdict": "verdict",
    "score": "number or null",
    "reward": "number or null",
    "why": "text",
    "logprob": "number or null",
    "step": "integer or null",
    "rm_score": "number or null",
}
_REQUIRED = ("item_id", "sample_index", "decoding", "predicted_answer", "verdict")
_CHOICES: Mapping[str, tuple[str, ...]] = {"decoding": get_args(Decoding), "verdict": tuple(Verdict)}


def _problem_with(row: Mapping[str, Any], name: str) -> str | None:
    if name not in row:
        return f"{name} is missing" if name in _REQUIRED else None
    value, kind = row[name], _KINDS[name]
    if kind in _CHOICES:
        good = isinstance(value, str) and value in _CHOICES[kind]
        return None if good else f"{name} must be one of {', '.join(_CHOICES[kind])} (got {_short(value)})"
    return None if _is_kind(value, kind) else f"{name} must be {kind} (got {_short(value)})"


def _is_kind(value: object, kind: str) -> bool:
    if value is None:
        return kind.endswith("or null")
    if kind.startswith("text"):
        return isinstance(value, str)
    if isinstance(value, bool):
        return False
    if kind.startswith("integer"):
        return isinstance(value, int)
    return isinstance(value, int | float) and math.isfinite(value)


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:40]}..."


def read_samples(path: Path) -> list[SampleRecord]:
    """Every row of a samples file, blank lines skipped.

    Raises UsageError where the file cannot be opened, DataError with file and line for a row that cannot be used.
    """
    return list(iter_samples(path))


def iter_samples(path: Path) -> Iterator[SampleRecord]:
    """`read_samples` one row at a time, for files that need not fit into memory."""
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield SampleRecord.from_json(_parsed(line, f"{path}:{number}"), f"{path}:{number}")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); give a samples file or a run") from error


def _parsed(line: bytes, where: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise DataError(f"{where}: not a line of JSON in UTF-8 ({error})") from error


def newest_samples(run: Run, split: str, samples_per_problem: int = 0) -> Path | None:
    """The samples file of the newest evaluation of a split that has at least so many samples for each problem."""
    for label in run.labels(split):
        results = json.loads(run.results_file(label).read_text(encoding="utf-8"))
        if results.get("samples_per_problem", 0) >= samples_per_problem:
            return run.samples_file(label)
    return None
