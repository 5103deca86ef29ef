from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from reftcli.errors import DataError, UsageError
from reftcli.problems.files import load_file

ROWS = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(4)]


def write(tmp_path: Path, text: str, name: str = "rows.json") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("".join(json.dumps(row) + "\n" for row in ROWS), [1, 2, 3, 4]),
        ("\n\n".join(json.dumps(row) for row in ROWS), [1, 3, 5, 7]),
        ("\r\n".join(json.dumps(row) for row in ROWS), [1, 2, 3, 4]),
        (json.dumps(ROWS), [1, 1, 1, 1]),
        (json.dumps(ROWS, indent=2), [2, 6, 10, 14]),
        ("\ufeff\n " + json.dumps(ROWS, indent=2) + "\n", [3, 7, 11, 15]),
    ],
)
def test_rows_and_their_true_lines(tmp_path: Path, text: str, lines: list[int]) -> None:
    path = write(tmp_path, text)
    loaded = load_file(path)
    assert [problem.source for problem in loaded.problems] == [f"{path}:{line}" for line in lines]
    assert [problem.gold_answer for problem in loaded.problems] == ["1", "2", "3", "4"]
    assert [problem.item_id for problem in loaded.problems] == [f"rows_{n}" for n in range(4)]
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (loaded.rows, loaded.format.name) == (4, "plain")


def test_line_separators_inside_a_text_are_no_line_ends(tmp_path: Path) -> None:
    text = "".join(json.dumps({**row, "note": "\u2028\x85"}, ensure_ascii=False) + "\n" for row in ROWS)
    assert len(load_file(write(tmp_path, text)).problems) == 4


GOOD = json.dumps(ROWS[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{GOOD}\n{GOOD[:-3]}\n", r"rows.json:2: not JSON: .*column"),
        (f"[\n{GOOD},\n{GOOD}\n{GOOD}]", r"rows.json:4: not JSON: expecting ','"),
        (f"[\n{GOOD},\n{{bad}}]", r"rows.json:3: not JSON"),
        (f"[{GOOD},\n{GOOD}\n", r"rows.json:3: not JSON"),
        (f"[{GOOD}]\n]", r"rows.json:2: not JSON: something follows"),
        ("", "no rows"),
        ("[]", "no rows"),
        ("[1, 2]", "the rows are not objects"),
        ('{"text": "x", "label": 1}\n', "unknown format, keys: text, label; known are ReFT"),
        (f"{GOOD}\n3\n", "rows.json:2: not a JSON object but int"),
        ("[" * 100_000, "nested too deeply|not JSON"),
    ],
)
def test_content_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_file(write(tmp_path, text))


def test_all_bad_rows_are_counted_and_the_first_shown(tmp_path: Path) -> None:
    rows = [*ROWS, *({"question": f"q{n}", "answer": ""} for n in range(8))]
    with pytest.raises(DataError) as caught:
        load_file(write(tmp_path, "\n".join(map(json.dumps, rows))))
    message = str(caught.value)
    assert "rows.json:5: no gold answer: `answer` is empty; " in message
    assert "rows.json:9:" in message
    assert "rows.json:10:" not in message
    assert "and 3 more (8 of 12 rows cannot be used, read as plain" in message
    assert "\n" not in message


def test_a_gsm8k_row_without_its_last_line_is_bad(tmp_path: Path) -> None:
    good = {"question": "q", "answer": "3\n#### 3"}
    text = "\n".join(map(json.dumps, [good, {"question": "r", "answer": "It is 3"}]))
    with pytest.raises(DataError, match=r"rows.json:2: no gold answer: `answer` has no `####` line"):
        load_file(write(tmp_path, text))


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_file(tmp_path / "absent.json")
    with pytest.raises(UsageError, match="is a folder"):
        load_file(tmp_path)


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD.encode() + b"\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"rows.jsonl:2: not UTF-8"):
        load_file(path)
