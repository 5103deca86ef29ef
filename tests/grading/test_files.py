"""`reft grade FILE`: what it reads, what it writes, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reftcli.errors import DataError, RuntimeFailure, UsageError
from reftcli.grading.build import build_grader
from reftcli.grading.files import grade_file
from reftcli.grading.interface import Grade, Verdict
from reftcli.problems.record import AnswerKind, CotForm

ROWS: list[dict[str, Any]] = [
    {"completion": "the answer is 18", "gold_answer": "18"},
    {"completion": "the answer is 17", "gold_answer": 18, "question": "How many?"},
    {"completion": "it is 18", "gold_answer": "18.0"},
    {"completion": "the answer is 18", "gold_answer": "many"},
]


def reward(grade: Grade) -> float | None:
    return {Verdict.CORRECT: 1.0, Verdict.WRONG: 0.1, Verdict.NO_ANSWER: 0.0}.get(grade.verdict)


def graded(
    path: Path, form: CotForm = "ncot", kind: AnswerKind = "number", out: Path | None = None
) -> list[dict[str, Any]]:
    grader = build_grader(form, kind, workers=1)
    try:
        return grade_file(path, grader, answer_kind=kind, reward_of=reward, out=out)
    finally:
        grader.close()


@pytest.mark.parametrize("layout", ["jsonl", "array", "pretty"])
def test_rows_come_back_in_order(tmp_path: Path, layout: str) -> None:
    file, out = tmp_path / "rows.json", tmp_path / "grades.jsonl"
    if layout == "jsonl":
        file.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    else:
        file.write_text(json.dumps(ROWS, indent=2 if layout == "pretty" else None))
    rows = graded(file, out=out)
    assert [set(row) for row in rows] == [{"verdict", "score", "predicted_answer", "reward", "why"}] * 4
    assert [row["verdict"] for row in rows] == ["correct", "wrong", "no_answer", "ungradable"]
    assert [row["score"] for row in rows] == [1.0, 0.0, 0.0, None]
    assert [row["reward"] for row in rows] == [1.0, 0.1, 0.0, None]
    assert [row["predicted_answer"] for row in rows] == ["18", "17", None, None]
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows
    assert json.loads(json.dumps(rows)) == rows


def test_programs_and_choices(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(
        json.dumps({"completion": "\n    return 625", "gold_answer": "C", "options": {"A": "12", "C": 625}})
    )
    assert graded(file, "pcot", "choice")[0]["verdict"] == "correct"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"completion": "a", "gold_answer": "1"}\n{"completion"', "rows.json:2: not JSON"),
        ('{"gold_answer": "1"}', "rows.json:1: completion must be a text, and is missing"),
        ('\n{"completion": 5, "gold_answer": "1"}', "rows.json:2: completion must be a text, got int"),
        ('{"completion": "a"}', "rows.json:1: gold_answer must be a text or a number, and is missing"),
        ('{"completion": "a", "gold_answer": true}', "rows.json:1: gold_answer must be"),
        ('{"completion": "a", "gold_answer": "A", "options": ["1"]}', "rows.json:1: options must be"),
        ('{"completion": "a", "gold_answer": "A", "options": {"A": null}}', "rows.json:1: options must be"),
        ("5", "rows.json:1: expected an object"),
        ('[\n{"completion": "a", "gold_answer": "1"},\n{"completion": "a"}]', "rows.json:3: gold_answer must be"),
        ('[{"completion": "a",\n"gold_answer": "1"},\n\n 7]', "rows.json:4: expected an object"),
        ("[1,\n2", "rows.json:2: not JSON"),
        ("[" * 100_000, "rows.json:1: not usable JSON"),
        ('{"completion": ' + "9" * 5000 + "}", "rows.json:1: not usable JSON"),
    ],
)
def test_bad_content_names_its_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "rows.json"
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        graded(file)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a UTF-8 text"):
        graded(file)


def test_files_that_cannot_be_reached(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        graded(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match="cannot be read"):
        graded(tmp_path)
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(ROWS[0]))
    with pytest.raises(RuntimeFailure, match="a part of that path is a file"):
        graded(file, out=file / "grades.jsonl")
    file.write_text("")
    assert graded(file) == []
