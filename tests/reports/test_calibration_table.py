from __future__ import annotations

import io

from rich.console import Console

from reftcli.metrics.calibration import calibration
from reftcli.reports.calibration_table import calibration_table


def test_the_table_says_how_often_p_came_true() -> None:
    found = calibration([True, False, True], [0.95, 0.12, 0.18])
    assert found is not None
    judged = {
        "held-out": {"share_correct": 2 / 3, "auc": 1.0, **found.to_json()},
        "candidates": {"samples": 0, "share_correct": 0.0, "auc": None},  # nothing to judge on
    }
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(calibration_table(judged))
    lines = {line[:20].strip(" │┃"): line for line in console.export_text().splitlines()}
    assert "1.000" in lines["AUC"]
    assert f"{(0.05**2 + 0.12**2 + 0.82**2) / 3:.3f}" in lines["Brier score"]
    assert "50.0% of 2" in lines["p 0.1 to 0.2"]
    assert "100.0% of 1" in lines["p 0.9 to 1.0"]
    assert lines["AUC"].rstrip(" │").endswith("-")
