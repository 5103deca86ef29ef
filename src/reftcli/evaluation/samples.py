"""Saved samples: the rows of ``samples/*.jsonl``, read and written."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from reftcli.errors import DataError, UsageError
from reftcli.grading.interface import Verdict
from reftcli.runs.files import disk_errors
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
    question_sha256: str = ""
    """The question's `question_fingerprint`, which no template changes; left out where it is not known."""

    @property
    def answered(self) -> bool:
        """Whether the sample votes and can be picked."""
        return self.predicted_answer is not None and self.verdict is not Verdict.NO_ANSWER

    def to_json(self) -> dict[str, Any]:
        """The row as plain data, keys in the contract's order."""
        row: dict[str, Any] = {name: getattr(self, name) for name in _KINDS}
        row["verdict"] = str(self.verdict)
        for name, absent in _LEFT_OUT.items():
            if row[name] == absent:
                del row[name]
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
    "item_id": "text in UTF-8",
    "split": "text in UTF-8",
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
    "rm_score": "number from 0 to 1 or null",
    "question_sha256": "text in UTF-8",
}
_LEFT_OUT: Mapping[str, Any] = {"rm_score": None, "question_sha256": ""}
_LARGEST_INTEGER = 2**63 - 1
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
        return isinstance(value, str) and not (kind.startswith("text in UTF-8") and _has_lone_surrogate(value))
    if isinstance(value, bool):
        return False
    if kind.startswith("integer"):
        return isinstance(value, int) and abs(value) <= _LARGEST_INTEGER
    if kind.startswith("number from 0 to 1"):
        return _is_finite(value) and 0 <= value <= 1  # type: ignore[operator]
    return _is_finite(value)


def _has_lone_surrogate(text: str) -> bool:
    """JSON can hold one by its escape; UTF-8 has no bytes for it, so such a name could not be printed or hashed."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # an integer beyond the floats
        return False


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


def write_samples(path: Path, records: Iterable[SampleRecord]) -> None:
    """All rows, written aside: the file may be the one that the records are being read from."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("w", encoding="utf-8") as lines:
                lines.writelines(json.dumps(record.to_json(), ensure_ascii=False) + "\n" for record in records)
                lines.flush()
                os.fsync(lines.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
