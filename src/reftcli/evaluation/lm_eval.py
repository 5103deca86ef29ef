"""GSM8K accuracy by the extractions of lm-evaluation-harness, for people who compare with its numbers.

The patterns and what is ignored are those of its task ``gsm8k`` (version 3: filters ``strict-match`` and
``flexible-extract``, metric ``exact_match``). The prompt is ours and not its five examples, so the numbers are labelled
as the same extraction on another prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reftcli.evaluation.results import Measured
from reftcli.evaluation.samples import SampleRecord
from reftcli.metrics.intervals import interval_of_mean
from reftcli.problems.record import CotForm, Problem

NOTE = "lm-eval's extraction, on reft's prompt"

_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = tuple(re.compile(pattern) for pattern in (",", r"\$", r"(?s).*#### ", r"\.$"))


def strict_match(completion: str) -> str | None:
    """What stands behind the first ``####``."""
    found = _STRICT.search(completion)
    return found[1].strip() if found else None


def flexible_extract(completion: str) -> str | None:
    """The last thing that looks like a number, wherever it stands."""
    found = _FLEXIBLE.findall(completion)
    return (found[-1][0] or found[-1][1]).strip() if found else None


def exact_match(extracted: str | None, gold: str) -> bool:
    """Equality of texts after lm-eval's removals; 18.0 is not 18."""
    return extracted is not None and _stripped(extracted) == _stripped(gold)


def _stripped(text: str) -> str:
    for pattern in _IGNORED:
        text = pattern.sub("", text)
    return text.lower()


def is_gsm8k(problems: Sequence[Problem], dataset: str) -> bool:
    """Whether these are problems of GSM8K, by the name of the data, their own, or their format."""
    first = problems[0]
    names = (dataset, first.source, first.item_id, first.chain_sources.get("ncot", ""))
    return any("gsm8k" in name.lower() for name in names)


def lm_eval_measures(records: Sequence[SampleRecord], form: CotForm, seed: int) -> Mapping[str, Any]:
    """Filter -> accuracy with interval of the greedy answers; ``strict-match`` only where an answer has its ``####``.

    Empty for programs, whose text holds no final answer, and without greedy answers.
    """
    greedy = [record for record in records if record.decoding == "greedy"]
    if form != "ncot" or not greedy:
        return {}
    filters: dict[str, Callable[[str], str | None]] = {"flexible-extract": flexible_extract}
    if any("####" in record.completion for record in greedy):
        filters["strict-match"] = strict_match
    measures: dict[str, Any] = {"note": NOTE}
    for name, extract in filters.items():
        right = [float(exact_match(extract(record.completion), record.gold_answer)) for record in greedy]
        measures[name] = Measured(sum(right) / len(right), interval_of_mean(right, seed)).to_json()
    return measures
