"""Collects what a run's folder holds for its page, and writes ``report.html``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reftcli.evaluation.samples import SampleRecord, read_samples
from reftcli.evaluation.saved import read_results
from reftcli.grading.interface import Verdict
from reftcli.reports.page import RunSummary, ShownSample, render_page
from reftcli.reports.tables import AccuracyRow, accuracy_rows
from reftcli.runs.files import read_jsonl, write_text
from reftcli.runs.folder import Run

_SHOWN_PER_VERDICT = 3


def write_run_page(run: Run, results: Sequence[AccuracyRow] | None = None, notes: Sequence[str] = ()) -> Path:
    """Writes the page. ``results`` replaces the rows of the run's own ``eval/*.json``."""
    record = run.record()
    rows = list(results) if results is not None else _own_results(run)
    model = record.get("model", {})
    summary = RunSummary(
        run=run.name,
        model=str(model.get("name", "")),
        dataset=str(record.get("dataset", "")),
        form=str(record.get("form", "")),
        seed=int(record.get("seed") or 0),
        command=str(record.get("command", "")),
        results=rows,
        metrics=read_jsonl(run.metrics_file),
        samples=_samples(run),
        recipe=run.recipe_file.read_text(encoding="utf-8") if run.recipe_file.exists() else "",
        facts=_facts(record),
        notes=notes,
    )
    write_text(run.report_file, render_page(summary))
    return run.report_file


def _own_results(run: Run) -> list[AccuracyRow]:
    rows: list[AccuracyRow] = []
    for file in sorted(run.results.glob("*.json")):
        rows += accuracy_rows(read_results(file), name=file.stem)
    return rows


def _samples(run: Run) -> list[ShownSample]:
    """A few right and a few wrong completions of the newest samples file."""
    validations = sorted(run.samples.glob("validation-step-*.jsonl"), key=_step)
    files = [*(run.samples_file(label) for label in (*run.labels("test"), "test")), *validations[-1:]]
    records: list[SampleRecord] = next((read_samples(file) for file in files if file.is_file()), [])
    greedy = [record for record in records if record.decoding == "greedy"]
    shown = []
    for verdict in (Verdict.CORRECT, Verdict.WRONG, Verdict.NO_ANSWER):
        shown += [record for record in greedy if record.verdict is verdict][:_SHOWN_PER_VERDICT]
    return [
        ShownSample(r.prompt, r.completion, r.predicted_answer, r.gold_answer, str(r.verdict), r.why) for r in shown
    ]


def _step(file: Path) -> int:
    number = file.stem.removeprefix("validation-step-")
    return int(number) if number.isdigit() else -1


def _facts(record: dict[str, Any]) -> dict[str, str]:
    data = record.get("data", {})
    versions = record.get("versions", {})
    chains = data.get("chain_sources", {}).get("train", {})
    facts = {
        "status": str(record.get("status")),
        "started": str(record.get("started")),
        "ended": str(record.get("ended")),
        "parent": str(record.get("parent")),
        "problems": ", ".join(f"{split} {n}" for split, n in data.get("rows", {}).items()),
        "training chains": ", ".join(f"{source}: {n}" for source, n in chains.items()),
        "versions": ", ".join(f"{package} {version}" for package, version in versions.items() if version),
    }
    return {name: value for name, value in facts.items() if value and value != "None"}
