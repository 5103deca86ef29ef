"""`--json`: exactly one JSON object on standard output, for every command there is; everything else goes to stderr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import reftcli.cli.demo
from reftcli.cli.app import app

ROW = {"completion": "Therefore, the answer is: 5", "gold_answer": "5"}
CALLS: dict[str, tuple[str, ...]] = {
    "warmup": ("warmup", "--recipe", "small.yaml", "--dry-run"),
    "rl": ("rl", "--recipe", "small.yaml", "--dry-run"),
    "eval": ("eval", "rl", "--limit", "2", "--name", "json-eval"),
    "vote": ("vote",),
    "rerank": ("rerank", "--dry-run"),
    "grade": ("grade", "rows.jsonl"),
    "compare": ("compare", "rl", "reranked"),
    "report": ("report",),
    "plan": ("plan", "tiny/toy-ncot", "--gpus", "1", "--gpu-memory", "4GiB"),
    "runs": ("runs",),
    "env": ("env",),
    "demo": ("demo",),
    "recipes ls": ("recipes", "ls"),
    "recipes show": ("recipes", "show", "tiny/toy-ncot"),
    "recipes copy": ("recipes", "copy", "tiny/toy-ncot", "copied.yaml"),
    "recipes validate": ("recipes", "validate", "tiny/toy-ncot"),
    "data ls": ("data", "ls"),
    "data show": ("data", "show", "toy"),
    "data check": ("data", "check", "toy", "--cot", "ncot", "--set", "data.train_size=20"),
}
KEYS = {
    "warmup": {"dry_run", "checks", "recipe"},
    "vote": {"run", "dataset", "split", "n", "accuracy", "accuracy_ci95", "maj", "pass", "samples_file"},
    "grade": {"n", "verdicts", "grades"},
    "compare": {"sentence"},
    "report": {"report"},
    "runs": {"runs"},
    "env": {"versions", "gpus", "sandbox"},
    "data show": {"problems"},
    "data check": {"ok", "gold"},
}


def commands() -> list[str]:
    groups = [("", app), *((f"{group.name} ", group.typer_instance) for group in app.registered_groups)]
    return [f"{prefix}{command.name}" for prefix, group in groups for command in group.registered_commands]


def test_the_table_has_every_command() -> None:
    assert sorted(commands()) == sorted(CALLS)


@pytest.mark.parametrize("name", list(CALLS))
def test_one_object(name: str, session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        def to_json(self) -> dict[str, Any]:
            return {"rows": []}

    monkeypatch.setattr(reftcli.cli.demo, "run_demo", lambda **_: Found())
    (session.folder / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    (session.folder / "copied.yaml").unlink(missing_ok=True)
    called = session.call(*CALLS[name], "--json")
    assert called.code == 0, called.err
    assert isinstance(called.json, dict)
    assert set(called.json) >= KEYS.get(name, set())


@pytest.mark.parametrize("stage", ["warmup", "rl", "eval", "rerank"])
def test_stages_print_one_object_and_say_what_they_do_on_stderr(stage: str, session: Any) -> None:
    called = session.called[stage]
    assert isinstance(called.json, dict)
    assert called.json["run"] in ("warm", "rl", "reranked")
    assert called.errors
    assert not [line for line in called.errors if line.startswith("{")]


def test_a_command_that_fails_prints_no_object(session: Any) -> None:
    called = session.call("vote", "absent", "--json")
    assert (called.code, called.out) == (2, "")


def test_findings_are_an_object_with_exit_code_4(session: Any, tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    rows = [{"question": f"How many are {n}?", "answer": "quite a few"} for n in range(8)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    called = session.call("data", "check", data, "--cot", "ncot", "--json", "--set", "data.answer=number")
    assert called.code == 4
    assert called.json["ok"] is False
    assert called.errors[-1].startswith("reft: ")


def test_grades_to_a_file(session: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, "gold_answer": "6"}) + "\n")
    out = tmp_path / "grades.jsonl"
    called = session.call("grade", rows, "--out", out, "--json")
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["verdict"] for row in written] == ["correct", "wrong"]
    assert [row["reward"] for row in written] == [1.0, 0.1]
    assert all(set(row) >= {"verdict", "score", "predicted_answer", "reward", "why"} for row in written)
    assert called.json["verdicts"] == {"correct": 1, "wrong": 1}


@pytest.mark.parametrize(
    ("specification", "said"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ('{"type": "magic"}', "unknown type 'magic'"),
        ('{"type": "answer", "form": "ncot"}', "'answer' is missing"),
    ],
)
def test_a_grader_that_cannot_be_read(session: Any, tmp_path: Path, specification: str, said: str) -> None:
    rows, grader = tmp_path / "rows.jsonl", tmp_path / "grader.json"
    rows.write_text(json.dumps(ROW) + "\n")
    grader.write_text(specification)
    called = session.call("grade", rows, "--grader", grader)
    assert (called.code, called.out) == (2, "")
    (line,) = called.errors
    assert said in line


def test_a_saved_grader_grades_again(session: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({**ROW, "gold_answer": "7"}) + "\n")
    grader = session.run("rl") / "samples" / "test.grader.json"  # tolerance 3
    assert session.call("grade", rows, "--grader", grader, "--json").json["verdicts"] == {"correct": 1}
    assert session.call("grade", rows, "--json").json["verdicts"] == {"wrong": 1}
