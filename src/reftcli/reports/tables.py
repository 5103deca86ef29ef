"""Accuracies as rows, and the rows as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reftcli.metrics.intervals import Interval

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """One line of a table of results. ``accuracy`` in [0, 1]; None where it was not measured."""

    name: str
    accuracy: float | None
    interval: Interval | None
    n: int
    note: str = ""


def accuracy_rows(results: Mapping[str, Any], name: str = "") -> list[AccuracyRow]:
    """The rows of one evaluation, from the object that ``reft eval --json`` prints (also kept in ``eval/*.json``).

    ``name`` goes before each row's own name, for tables of several models: "ReFT, maj@8". A measure that is absent
    has no row.
    """
    n = int(results["n"])
    rows: list[AccuracyRow] = []

    def add(label: str, measure: Mapping[str, Any] | None, note: str) -> None:
        if measure is not None:
            full = f"{name}, {label}" if name else label
            rows.append(AccuracyRow(full, measure["accuracy"], Interval(*measure["ci95"]), n, note))

    if results.get("accuracy") is not None:
        add("greedy", {"accuracy": results["accuracy"], "ci95": results["accuracy_ci95"]}, "")
    lm_eval = results.get("lm_eval", {})
    for extraction in ("flexible-extract", "strict-match"):
        add(f"greedy, {extraction}", lm_eval.get(extraction), lm_eval.get("note", ""))
    add("mean of samples", results.get("mean_sample_accuracy"), "")
    for key, label, note in (
        ("maj", "maj", _vote_note(results.get("voting", {}))),
        ("rerank", "rerank", "reward model's pick"),
        ("weighted", "weighted", "vote weighted by the reward model"),
        ("pass", "pass", "any of k correct: the ceiling"),
    ):
        for k, measure in sorted(results.get(key, {}).items(), key=lambda item: int(item[0])):
            add(f"{label}@{k}", measure, note)
    return rows


def sampling_text(sampling: Mapping[str, Any]) -> str:
    """``at temperature 1.0, top_k off, top_p 1.0, seed 42`` from the settings that results state."""
    filters = ", ".join(f"{name} {sampling[name] or 'off'}" for name in ("top_k", "top_p"))
    return f"at temperature {sampling['temperature']}, {filters}, seed {sampling['seed']}"


def _vote_note(voting: Mapping[str, Any]) -> str:
    """How votes were counted, where that is not the plain way."""
    weights = {"logprob": ", weighted by probability", "reward": ", weighted by the reward model"}
    tie = ", ties at random" if voting.get("ties") == "random" else ""
    return f"majority vote{weights.get(voting.get('weights', ''), '')}{tie}"


def accuracy_table(rows: Sequence[AccuracyRow], title: str | None = None) -> Table:
    """A rich table: name, accuracy, 95% interval, n, note (the last only where a row has one)."""
    from rich.table import Table
    from rich.text import Text

    with_notes = any(row.note for row in rows)
    table = Table(title=Text(title) if title else None, title_justify="left")
    table.add_column("")
    for header in ("accuracy", "95% interval", "n"):
        table.add_column(header, justify="right", no_wrap=True)
    if with_notes:
        table.add_column("note")
    for row in rows:
        # Text, not str: a name with [brackets] is not markup.
        numbers = (percent(row.accuracy), interval_text(row.interval), f"{row.n:,}")
        table.add_row(Text(row.name), *numbers, *([Text(row.note)] if with_notes else []))
    return table


def percent(accuracy: float | None) -> str:
    """``71.3%``; ``-`` for None."""
    return "-" if accuracy is None else f"{accuracy:.1%}"


def interval_text(interval: Interval | None) -> str:
    """``68.8 to 73.7`` (percent); ``-`` for None."""
    return "-" if interval is None else f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
