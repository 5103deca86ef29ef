"""What a reward model's p(correct) is worth, as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reftcli.reports.tables import percent

if TYPE_CHECKING:
    from rich.table import Table


def calibration_table(judged: Mapping[str, Mapping[str, Any]]) -> Table:
    """AUC, Brier score and calibration error of each set of samples, and how often p(correct) came true.

    Args:
        judged: title of a set -> ``{"samples", "share_correct", "auc", "brier", "ece", "reliability"}``, as
            ``reft rerank --json`` prints; without the last three where there is no sample.
    """
    from rich.table import Table

    table = Table(title="reward model: p(correct), and how many were correct", title_justify="left")
    table.add_column("")
    for title in judged:
        table.add_column(title, justify="right", no_wrap=True)
    numbers = (("samples", "samples", "{:,}"), ("correct", "share_correct", "{:.1%}"), ("AUC", "auc", "{:.3f}"),
               ("Brier score", "brier", "{:.3f}"), ("calibration error", "ece", "{:.3f}"))  # fmt: skip
    for label, key, form in numbers:
        table.add_row(label, *("-" if (v := found.get(key)) is None else form.format(v) for found in judged.values()))
    table.add_section()
    bins = [{b["low"]: b for b in found.get("reliability", [])} for found in judged.values()]
    for low in sorted({low for found in bins for low in found}):
        high = next(found[low]["high"] for found in bins if low in found)
        cells = (f"{percent(b['correct'])} of {b['samples']:,}" if (b := found.get(low)) else "-" for found in bins)
        table.add_row(f"p {low:.1f} to {high:.1f}", *cells)
    return table
