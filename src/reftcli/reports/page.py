"""A run as one HTML file that opens anywhere, offline: no script, no font, no image from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reftcli.reports.charts import Point, Series, line_chart
from reftcli.reports.markup import preformatted, text
from reftcli.reports.skin import CSS
from reftcli.reports.tables import AccuracyRow, interval_text, percent

# Even if an escape were missed, the browser would refuse to run or load anything.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_CHARTS: tuple[tuple[str, tuple[tuple[str, str, bool], ...]], ...] = (
    (
        "Accuracy and reward",
        (("accuracy", "accuracy", False), ("reward_mean", "reward", False), ("val_accuracy", "validation", True)),
    ),
    ("KL to the reference model", (("kl", "KL", False),)),
    ("Completion length, tokens", (("completion_length", "length", False),)),
    ("Loss", (("loss", "loss", False), ("val_loss", "validation", True))),
)
"""Title, then (key in metrics.jsonl, label, marked). A chart without data is left out."""


@dataclass(frozen=True, slots=True)
class ShownSample:
    """A completion worth a look. ``verdict``: correct, wrong, no_answer or ungradable."""

    prompt: str
    completion: str
    predicted_answer: str | None
    gold_answer: str
    verdict: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """All that the page shows, as plain data; any text may hold anything."""

    run: str
    model: str
    dataset: str
    form: str
    seed: int
    command: str
    results: Sequence[AccuracyRow] = ()
    metrics: Sequence[Mapping[str, Any]] = ()
    """Rows of metrics.jsonl. Where a step occurs twice (a resumed run), the later row counts."""
    samples: Sequence[ShownSample] = ()
    recipe: str = ""
    """The resolved settings, as YAML."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """More lines for the header: hardware, duration, versions, rows per split."""
    notes: Sequence[str] = ()
    """What a reader must know about the numbers, a sentence each."""


def render_page(run: RunSummary) -> str:
    """The whole file, to be written as UTF-8. Every text of ``run`` is escaped, whatever it contains."""
    sections = (_header(run), _results(run), _curves(run), _samples(run), _settings(run))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(run.run)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _header(run: RunSummary) -> str:
    facts = {"Model": run.model, "Dataset": run.dataset, "Form": run.form, "Seed": str(run.seed), **run.facts}
    items = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in facts.items())
    return f"<header><h1>{text(run.run)}</h1><dl>{items}</dl><code>{text(run.command)}</code></header>"


def _results(run: RunSummary) -> str:
    if not run.results:
        return ""
    rows = "".join(_result_row(row) for row in run.results)
    notes = "".join(f"<p>{text(note)}</p>" for note in run.notes)
    return (
        '<section><h2>Results</h2><div class="scroll"><table><thead><tr><th scope="col">Method</th>'
        '<th scope="col">Accuracy</th><th scope="col">95% interval</th><th scope="col" class="strip">0 to 100%</th>'
        f'<th scope="col">n</th></tr></thead><tbody>{rows}</tbody></table></div>{notes}</section>'
    )


def _result_row(row: AccuracyRow) -> str:
    note = f"<small>{text(row.note)}</small>" if row.note else ""
    return (
        f'<tr><th scope="row">{text(row.name)}{note}</th><td>{percent(row.accuracy)}</td>'
        f'<td>{interval_text(row.interval)}</td><td class="strip">{_strip(row)}</td><td>{row.n:,}</td></tr>'
    )


def _strip(row: AccuracyRow) -> str:
    """The interval as a bar and the accuracy as a dot on an axis from 0 to 100%, the same in every row."""
    if row.accuracy is None or row.interval is None:
        return ""
    low, high = (100 * min(max(end, 0.0), 1.0) for end in row.interval)
    return (
        '<svg viewBox="-4 0 108 12" aria-hidden="true"><path class="grid" d="M0 6H100"/>'
        f'<path class="bar" d="M{low:.1f} 6H{high:.1f}"/><circle cx="{100 * row.accuracy:.1f}" cy="6" r="3"/></svg>'
    )


def _curves(run: RunSummary) -> str:
    charts = "".join(
        line_chart(title, [Series(label, _points(run.metrics, key), marked) for key, label, marked in lines])
        for title, lines in _CHARTS
    )
    return f'<section><h2>Training</h2><div class="charts">{charts}</div></section>' if charts else ""


def _points(metrics: Sequence[Mapping[str, Any]], key: str) -> list[Point]:
    by_step = {float(row["step"]): float(row[key]) for row in metrics if _is_number(row.get("step"), row.get(key))}
    return sorted(by_step.items())


def _is_number(*values: object) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)


def _samples(run: RunSummary) -> str:
    if not run.samples:
        return ""
    return f"<section><h2>Sample completions</h2>{''.join(_sample(sample) for sample in run.samples)}</section>"


def _sample(sample: ShownSample) -> str:
    answer = "none" if sample.predicted_answer is None else sample.predicted_answer
    why = f"<p>{text(sample.why)}</p>" if sample.why else ""
    state = "good" if sample.verdict == "correct" else "bad"
    return (
        f'<article><h3><span class="badge {state}">{text(sample.verdict.replace("_", " "))}</span> '
        f"answer {text(answer)}, gold {text(sample.gold_answer)}</h3>{why}"
        f"<details><summary>Prompt</summary>{preformatted(sample.prompt)}</details>"
        f"{preformatted(sample.completion)}</article>"
    )


def _settings(run: RunSummary) -> str:
    if not run.recipe:
        return ""
    body = preformatted(run.recipe, limit=100_000)
    summary = "<summary>Recipe, every setting resolved</summary>"
    return f"<section><h2>Settings</h2><details>{summary}{body}</details></section>"
