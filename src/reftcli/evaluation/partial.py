"""The files of an unfinished sampling pass: what is done stands in them, chunk by chunk, whenever the process ends.

Beside ``samples/test.jsonl``, which is complete or absent, stand ``test.partial.json`` (what is being done) and
``test.partial-0.jsonl``, ``test.partial-1.jsonl``, ... (a file for each process: nobody writes into another's). Their
lines are rows of samples that begin with ``"chunk"`` and ``"of"``, the number of rows in that chunk; a chunk with fewer
rows was cut off and is done again.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reftcli.errors import RuntimeFailure, UsageError
from reftcli.runs.files import disk_errors, locked, write_json
from reftcli.runs.folder import Run

_HEAD = re.compile(rb'\{"chunk": (\d+), "of": (\d+), ')


@dataclass(frozen=True, slots=True)
class Block:
    """Where the rows of a complete chunk stand: bytes ``start`` to ``end`` of a file."""

    file: Path
    start: int
    end: int
    rows: int


@dataclass(frozen=True, slots=True)
class Partial:
    """The unfinished form of a samples file."""

    file: Path
    """The samples file once it is complete."""

    @property
    def plan_file(self) -> Path:
        return self.file.with_suffix(".partial.json")

    def part(self, rank: int) -> Path:
        """Where a process writes."""
        return self.file.with_suffix(f".partial-{rank}.jsonl")

    @property
    def parts(self) -> list[Path]:
        """Of all processes that ever wrote."""
        return sorted(self.file.parent.glob(f"{glob.escape(self.file.stem)}.partial-*.jsonl"))

    @property
    def exists(self) -> bool:
        return self.plan_file.is_file()

    def plan(self) -> dict[str, Any]:
        """What was begun: ``{"identity": {...}, "request": {...}}``."""
        try:
            plan: dict[str, Any] = json.loads(self.plan_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.plan_file}: cannot be read ({error}); remove it to begin anew") from error
        return plan

    def begin(self, identity: Mapping[str, Any], request: Mapping[str, Any]) -> None:
        """Says what is being done, before anything is."""
        write_json(self.plan_file, {"identity": identity, "request": request})

    def blocks(self) -> dict[int, Block]:
        """Every complete chunk by its number."""
        found: dict[int, Block] = {}
        for part in self.parts:
            for number, block in _blocks(part):
                found.setdefault(number, block)
        return found

    def drop_cut_off(self) -> None:
        """Ends every part behind its last complete chunk, so that the next one begins on a new line."""
        for part in self.parts:
            end = max((block.end for _, block in _blocks(part)), default=0)
            with disk_errors(part), part.open("rb+") as file:
                file.truncate(end)

    def append(self, rank: int, number: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """A chunk at once; it is on disk when this returns."""
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        text = "".join(f'{{"chunk": {number}, "of": {len(lines)}, {line[1:]}\n' for line in lines)
        with disk_errors(self.part(rank)), self.part(rank).open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def merge(self, chunks: int) -> None:
        """Writes the samples file: all rows, in the order of the chunks. The parts stay until `clear`."""
        blocks = self.blocks()
        missing = [number for number in range(chunks) if number not in blocks]
        if missing:
            raise RuntimeFailure(
                f"{self.file}: chunk {missing[0]} of {chunks} is missing; are all processes on one file system?"
            )
        aside = self.file.with_name(f".{self.file.name}.{os.getpid()}.partial")
        with disk_errors(self.file):
            try:
                with aside.open("wb") as file:
                    for number in range(chunks):
                        file.writelines(_rows(blocks[number]))
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(aside, self.file)
            finally:
                aside.unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes everything but the samples file. The plan goes first: without it nobody goes on with the parts."""
        for path in (self.plan_file, *self.parts):
            path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Keeps other processes out; yields False where one is at work already."""
        with disk_errors(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.part(0), os.O_RDWR | os.O_CREAT) as alone:
            yield alone


def _blocks(part: Path) -> Iterator[tuple[int, Block]]:
    """The complete chunks of one file. A line without its end, or one that is no row, belongs to none."""
    number, of, start, rows, end = -1, 0, 0, 0, 0
    with part.open("rb") as lines:
        for line in lines:
            head = _HEAD.match(line)
            if head is None or not line.endswith(b"}\n"):
                number = -1
            elif int(head[1]) != number or rows == of:
                number, of, start, rows = int(head[1]), int(head[2]), end, 1
            else:
                rows += 1
            end += len(line)
            if number >= 0 and rows == of:
                yield number, Block(part, start, end, rows)


def _rows(block: Block) -> Iterator[bytes]:
    """The lines of a chunk as they stand in a samples file."""
    with block.file.open("rb") as file:
        file.seek(block.start)
        for _ in range(block.rows):
            line = file.readline()
            yield b"{" + line[_HEAD.match(line).end() :]  # type: ignore[union-attr]


def unfinished_labels(run: Run, label: str) -> list[str]:
    """Labels under which unfinished evaluations stand, newest first: ``test-2``, ``test``."""
    found = []
    for file in run.samples.glob("*.partial.json"):
        name = file.name.removesuffix(".partial.json")
        number = name.removeprefix(label).removeprefix("-") or "1"
        if name.startswith(label) and number.isdigit():
            found.append((int(number), name))
    return [name for _, name in sorted(found, reverse=True)]
