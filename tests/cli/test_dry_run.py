"""`--dry-run`: checks what can be reached and leaves every file as it was, for every command that computes or writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

CALLS = (
    ("warmup", "--recipe", "small.yaml"),
    ("rl", "--recipe", "small.yaml"),
    ("eval", "rl"),
    ("vote", "rl"),
    ("rerank", "rl"),
    ("grade", "rows.jsonl", "--out", "grades.jsonl"),
    ("compare", "rl", "reranked"),
    ("report", "rl"),
    ("demo",),
)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0])
def test_nothing_is_written(call: tuple[str, ...], session: Any) -> None:
    (session.folder / "rows.jsonl").write_text('{"completion": "the answer is 5", "gold_answer": "5"}\n')
    before = contents(session.folder)
    called = session.call(*call, "--dry-run")
    assert called.code == 0, called.err
    assert called.out.strip()
    assert contents(session.folder) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
