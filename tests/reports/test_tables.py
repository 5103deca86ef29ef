from __future__ import annotations

import io
import subprocess
import sys

from rich.console import Console

from reftcli.metrics.intervals import Interval
from reftcli.reports.tables import AccuracyRow, accuracy_rows, accuracy_table, interval_text, percent


def printed(rows: list[AccuracyRow], title: str | None = None) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(accuracy_table(rows, title))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_row_shows_name_accuracy_interval_and_n() -> None:
    line = printed([AccuracyRow("ReFT greedy", 0.7131, Interval(0.6881, 0.7369), 1319)]).splitlines()[-2]
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert cells == ["ReFT greedy", "71.3%", "68.8 to 73.7", "1,319"]


def test_the_note_column_exists_only_where_needed() -> None:
    assert "note" not in printed([AccuracyRow("a", 0.5, None, 4)])
    assert "vote" in printed([AccuracyRow("a", 0.5, None, 4), AccuracyRow("b", 0.5, None, 4, note="vote")])


def test_names_are_not_markup() -> None:
    assert "[bold]x[/nope]" in printed([AccuracyRow("[bold]x[/nope]", None, None, 0, note="[/]")], title="[/t]")


def test_what_was_not_measured_is_a_dash() -> None:
    assert percent(None) == interval_text(None) == "-"


def test_rows_of_an_evaluation() -> None:
    measure = {"accuracy": 0.5, "ci95": [0.4, 0.6]}
    results = {
        "n": 100,
        "accuracy": 0.45,
        "accuracy_ci95": [0.36, 0.55],
        "maj": {"10": measure, "2": measure},
        "pass": {"10": measure},
        "rerank": {"10": measure},
        "mean_sample_accuracy": measure,
    }
    rows = accuracy_rows(results, "ReFT")
    names = ["greedy", "mean of samples", "maj@2", "maj@10", "rerank@10", "pass@10"]
    assert [r.name for r in rows] == [f"ReFT, {name}" for name in names]
    assert rows[0] == AccuracyRow("ReFT, greedy", 0.45, Interval(0.36, 0.55), 100)
    assert accuracy_rows({"n": 3, "accuracy": None, "accuracy_ci95": None, "maj": {}, "pass": {}}) == []


def test_importing_the_rooms_loads_nothing_heavy() -> None:
    code = (
        "import sys, reftcli.reports.page, reftcli.reports.tables, reftcli.metrics.compare, reftcli.metrics.voting, "
        "reftcli.metrics.ranking, reftcli.metrics.pass_at_k, reftcli.evaluation.results; "
        "print(sorted({'torch', 'trl', 'transformers', 'pandas', 'scipy', 'rich'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
