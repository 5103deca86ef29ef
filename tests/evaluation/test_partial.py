from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reftcli.errors import RuntimeFailure, UsageError
from reftcli.evaluation.partial import Partial


def rows(chunk: int, n: int = 3) -> list[dict[str, Any]]:
    """With what could be taken for the end of a row, or for its beginning."""
    return [{"item_id": f"{chunk}-{i}", "completion": '}\n{"chunk": 9, "of": 1, "a\u2028b"'} for i in range(n)]


@pytest.fixture
def partial(tmp_path: Path) -> Partial:
    found = Partial(tmp_path / "test.jsonl")
    found.begin({"seed": 1}, {})
    return found


def test_chunks_of_several_writers_are_merged_in_order(partial: Partial) -> None:
    for rank, number in ((1, 3), (0, 0), (1, 1), (0, 2)):
        partial.append(rank, number, rows(number))
    assert {number: block.rows for number, block in partial.blocks().items()} == dict.fromkeys(range(4), 3)
    partial.merge(4)
    found = [json.loads(line) for line in partial.file.read_bytes().split(b"\n")[:-1]]
    assert found == [row for number in range(4) for row in rows(number)]
    partial.clear()
    assert list(partial.file.parent.iterdir()) == [partial.file]


def test_wherever_a_file_is_cut_off_complete_chunks_stay_and_nothing_else(partial: Partial) -> None:
    for number in range(3):
        partial.append(0, number, rows(number))
    whole = partial.part(0).read_bytes()
    ends = [block.end for _, block in sorted(partial.blocks().items())]
    assert ends[-1] == len(whole)
    for length in range(len(whole) + 1):
        partial.part(0).write_bytes(whole[:length])
        complete = sum(end <= length for end in ends)
        assert sorted(partial.blocks()) == list(range(complete))
        partial.drop_cut_off()
        assert partial.part(0).read_bytes() == whole[: ends[complete - 1] if complete else 0]
    partial.append(0, 3, rows(3))
    assert sorted(partial.blocks()) == [0, 1, 2, 3]


def test_a_missing_chunk_is_said_and_no_file_is_written(partial: Partial) -> None:
    partial.append(0, 0, rows(0))
    with pytest.raises(RuntimeFailure, match="chunk 1 of 2 is missing"):
        partial.merge(2)
    assert not partial.file.exists()


def test_who_comes_second_does_not_get_the_lock(partial: Partial) -> None:
    with partial.locked() as first:
        assert first
        with partial.locked() as second:
            assert not second
    with partial.locked() as again:
        assert again


def test_a_label_with_brackets_finds_its_own_files_only(tmp_path: Path) -> None:
    partials = [Partial(tmp_path / f"{label}.jsonl") for label in ("file-[a]", "file-a", "file-[a].b", "file-[a]-2")]
    for number, partial in enumerate(partials):
        partial.append(0, number, rows(number))
    assert [sorted(partial.blocks()) for partial in partials] == [[0], [1], [2], [3]]


def test_a_plan_that_is_no_json_is_said(partial: Partial) -> None:
    partial.plan_file.write_text("{")
    with pytest.raises(UsageError, match="remove it to begin anew"):
        partial.plan()
