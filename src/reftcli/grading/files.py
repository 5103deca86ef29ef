"""Grades a file of completions: `reft grade FILE`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reftcli.errors import DataError, UsageError
from reftcli.grading.interface import Grade, Grader, grade_in_slices
from reftcli.problems.record import AnswerKind, Problem
from reftcli.runs.files import write_text
from reftcli.runs.progress import Progress, SilentProgress

Row = Mapping[str, Any]

_BLANKS = re.compile(r"[\s,]*")


def grade_file(
    path: Path,
    grader: Grader,
    *,
    answer_kind: AnswerKind = "number",
    reward_of: Callable[[Grade], float | None],
    out: Path | None = None,
    progress: Progress | None = None,
    look: Callable[[Sequence[Problem], Sequence[str], Sequence[Grade]], None] | None = None,
) -> list[dict[str, Any]]:
    """One graded row for each row of ``path``, in order; written to ``out`` as JSONL where that is given.

    ``look`` is shown problems, completions and grades, for an audit.

    Rows are ``{"completion", "gold_answer", "options"?, "question"?}``, as JSONL or one JSON array. The caller chooses
    the kind of answer and the shaping of rewards, and closes the grader. Raises UsageError for a file that cannot be
    read, RuntimeFailure for one that cannot be written, DataError with ``file:line: reason`` for its content.
    """
    pairs = list(read_rows(path, answer_kind))
    with (progress or SilentProgress()).task("grading", len(pairs), "completion") as task:
        problems, completions = [problem for problem, _ in pairs], [completion for _, completion in pairs]
        grades = grade_in_slices(grader, problems, completions, task.advance)
    if look is not None:
        look(problems, completions, grades)
    rows = [graded_row(grade, reward_of(grade)) for grade in grades]
    if out is not None:
        # Lone surrogates, which a completion may hold, are escaped: UTF-8 has no bytes for them.
        write_text(out, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def graded_row(grade: Grade, reward: float | None) -> dict[str, Any]:
    """What `reft grade` says about one row."""
    return {
        "verdict": str(grade.verdict),
        "score": grade.score,
        "predicted_answer": grade.predicted_answer,
        "reward": reward,
        "why": grade.why,
    }


def read_rows(path: Path, answer_kind: AnswerKind) -> Iterator[tuple[Problem, str]]:
    """(problem, completion) for each row of a file."""
    for where, row in _json_rows(path):
        yield _read_row(row, where, answer_kind)


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:1: not a UTF-8 text ({error.reason})") from error
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror or error}); give a JSONL file or a JSON array"
        ) from error
    if text.lstrip().startswith("["):
        yield from _array_rows(text, path)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            with _json_errors(path, number):
                row = json.loads(line)
            yield f"{path}:{number}", row


def _array_rows(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    """The elements of a JSON array, each with the line on which it starts."""
    with _json_errors(path, 1):
        json.loads(text)
    decoder = json.JSONDecoder()
    position, line = text.index("[") + 1, 1 + text[: text.index("[")].count("\n")
    while True:
        start = _BLANKS.match(text, position).end()  # type: ignore[union-attr]  # an empty match is a match
        if text[start] == "]":
            return
        line += text.count("\n", position, start)
        row, position = decoder.raw_decode(text, start)
        yield f"{path}:{line}", row
        line += text.count("\n", start, position)


@contextmanager
def _json_errors(path: Path, line: int) -> Iterator[None]:
    """Turns what is wrong with JSON that starts on ``line`` into a DataError that names the line."""
    try:
        yield
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{line + error.lineno - 1}: not JSON ({error.msg}, column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:{line}: not usable JSON ({error})") from error


def _read_row(row: Any, where: str, answer_kind: AnswerKind) -> tuple[Problem, str]:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with completion and gold_answer, got {type(row).__name__}")
    completion = row.get("completion")
    if not isinstance(completion, str):
        raise DataError(f"{where}: completion must be a text, {_what(row, 'completion')}")
    gold = row.get("gold_answer")
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        raise DataError(f"{where}: gold_answer must be a text or a number, {_what(row, 'gold_answer')}")
    problem = Problem(
        item_id=str(row.get("item_id", where)),
        question=str(row.get("question") or ""),
        gold_answer=str(gold),
        answer_kind=answer_kind,
        options=_options(row.get("options"), where),
        source=where,
        row=row,
    )
    return problem, completion


def _options(options: Any, where: str) -> dict[str, str]:
    if options is None:
        return {}
    usable = isinstance(options, dict) and all(
        letter.strip() and isinstance(text, str | int | float) and not isinstance(text, bool)
        for letter, text in options.items()
    )
    if not usable:
        raise DataError(f'{where}: options must be an object of letters and texts, like {{"A": "12", "B": "15"}}')
    return {letter: str(text) for letter, text in options.items()}


def _what(row: Row, key: str) -> str:
    return f"got {type(row[key]).__name__}" if key in row else "and is missing"
