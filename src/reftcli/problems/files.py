"""Reading files of rows (a JSON array or JSONL) and turning rows into problems, all bad rows reported at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reftcli.errors import DataError, UsageError
from reftcli.problems.formats.interface import BadRow, Place, Row, RowFormat
from reftcli.problems.formats.table import described, recognise
from reftcli.problems.record import Problem

SHOWN_BAD_ROWS = 5
_SPACE = " \t\r\n"


@dataclass(frozen=True, slots=True)
class LoadedRows:
    """The problems of one source (a file, or a split of a hub data set) and what is to be recorded about it."""

    source: str
    sha256: str
    format: RowFormat
    problems: list[Problem]
    rows: int


def load_file(path: Path | str) -> LoadedRows:
    """Every problem of a file, in its order.

    Raises ``UsageError`` for a path that is missing or no file, ``DataError`` for content that cannot be used: a line
    that is not JSON, an unknown format, and rows without question or gold answer (the first few and their count).
    """
    content = _read(Path(path))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from error
    located = list(_located_rows(text, str(path)))
    return problems_of_rows(str(path), located, hashlib.sha256(content).hexdigest())


def problems_of_rows(source: str, located: Sequence[tuple[int, Any]], sha256: str) -> LoadedRows:
    """The problems of rows given with their line numbers; ``source`` is the file's name in messages."""
    if not located:
        raise DataError(f"{source}: no rows; expected a JSON array or one JSON object a line")
    objects = [row for _, row in located if isinstance(row, dict)]
    format_ = recognise(objects)
    if format_ is None:
        keys = ", ".join(map(str, objects[0])) if objects else "none, the rows are not objects"
        raise DataError(f"{source}: unknown format, keys: {keys}; known are {described()}")
    problems: list[Problem] = []
    bad: list[str] = []
    for index, (line, row) in enumerate(located):
        place = Place(source, line, index)
        try:
            problems.append(_parse(format_, row, place))
        except BadRow as reason:
            bad.append(f"{place.source}: {reason}")
    if bad:
        raise DataError(_bad_rows_message(bad, len(located), format_))
    return LoadedRows(source, sha256, format_, problems, len(located))


def _parse(format_: RowFormat, row: Any, place: Place) -> Problem:
    if not isinstance(row, dict):
        raise BadRow(f"not a JSON object but {type(row).__name__}")
    typed: Row = row
    return format_.parse(typed, place)


def _bad_rows_message(bad: list[str], rows: int, format_: RowFormat) -> str:
    shown = "; ".join(bad[:SHOWN_BAD_ROWS])
    more = f"; and {len(bad) - SHOWN_BAD_ROWS} more" if len(bad) > SHOWN_BAD_ROWS else ""
    return f"{shown}{more} ({len(bad)} of {rows} rows cannot be used, read as {format_.name}: {format_.keys})"


def _read(path: Path) -> bytes:
    if not path.exists():
        raise UsageError(f"no such file: {path}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a JSON or JSONL file in it")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error


def _located_rows(text: str, name: str) -> Iterator[tuple[int, Any]]:
    """``(line, row)`` of each row; the line is the one on which the row begins."""
    start = len(text) - len(text.lstrip(_SPACE))
    return _array_rows(text, start, name) if text.startswith("[", start) else _line_rows(text, name)


def _line_rows(text: str, name: str) -> Iterator[tuple[int, Any]]:
    # Not splitlines(): JSON strings may hold U+2028 and the like, which it takes for line ends.
    for line, content in enumerate(text.split("\n"), 1):
        if content.strip():
            try:
                yield line, json.loads(content)
            except (json.JSONDecodeError, RecursionError) as error:
                raise DataError(f"{name}:{line}: not JSON: {_reason(error)}") from error


def _array_rows(text: str, start: int, name: str) -> Iterator[tuple[int, Any]]:
    """Decodes element by element, because only so the line of each one is known."""
    decoder = json.JSONDecoder()
    position, line, counted = _skip_space(text, start + 1), 1, 0
    if text.startswith("]", position):
        return
    while True:
        line += text.count("\n", counted, position)
        counted = position
        try:
            row, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise DataError(f"{name}:{error.lineno}: not JSON: {_reason(error)}") from error
        except RecursionError as error:
            raise DataError(f"{name}:{line}: not JSON: {_reason(error)}") from error
        yield line, row
        position = _skip_space(text, position)
        if text.startswith("]", position):
            break
        if not text.startswith(",", position):
            here = text.count("\n", 0, position) + 1
            raise DataError(f"{name}:{here}: not JSON: expecting ',' or ']' after a row of the array")
        position = _skip_space(text, position + 1)
    rest = _skip_space(text, position + 1)
    if rest < len(text):
        raise DataError(f"{name}:{text.count(chr(10), 0, rest) + 1}: not JSON: something follows the array")


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position


def _reason(error: json.JSONDecodeError | RecursionError) -> str:
    return f"{error.msg} (column {error.colno})" if isinstance(error, json.JSONDecodeError) else "nested too deeply"
