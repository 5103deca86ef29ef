from __future__ import annotations

from typing import Any

import pytest

from reftcli.evaluation.lm_eval import (
    NOTE,
    exact_match,
    flexible_extract,
    is_gsm8k,
    lm_eval_measures,
    strict_match,
)
from reftcli.evaluation.samples import SampleRecord
from reftcli.grading.interface import Verdict
from reftcli.problems.record import Problem
from reftcli.reports.tables import accuracy_rows


@pytest.mark.parametrize(
    ("completion", "strict", "flexible"),
    [
        ("She has 18.\n#### 18", "18", "18"),
        ("#### 1,000 dollars. #### 7", "1,000", "7"),
        ("####18", None, "18"),
        ("Therefore, the answer is: $18.", None, "$18."),
        ("7 apples cost $1,200.50 in all", None, "$1,200.50"),
        ("-5", None, "-5"),
        ("none", None, None),
        ("It is 5, so", None, "5,"),
    ],
)
def test_extractions_are_those_of_lm_eval(completion: str, strict: str | None, flexible: str | None) -> None:
    assert (strict_match(completion), flexible_extract(completion)) == (strict, flexible)


@pytest.mark.parametrize(
    ("extracted", "gold", "equal"),
    [
        ("$18.", "18", True),
        ("1,000", "1000", True),
        ("1000", "1,000", True),
        ("18", "She has 18.\n#### 18", True),
        ("18.0", "18", False),
        ("5,", "5", True),
        ("81", "18", False),
        (None, "18", False),
    ],
)
def test_texts_are_compared_after_its_removals(extracted: str | None, gold: str, equal: bool) -> None:
    assert exact_match(extracted, gold) is equal


def record(item_id: str, completion: str, gold: str, decoding: Any = "greedy") -> SampleRecord:
    return SampleRecord(
        item_id=item_id,
        sample_index=0,
        decoding=decoding,
        predicted_answer=None,
        verdict=Verdict.WRONG,
        completion=completion,
        gold_answer=gold,
    )


def test_greedy_answers_are_measured_and_labelled() -> None:
    records = [
        record("1", "Therefore, the answer is: 18", "18"),
        record("2", "It is 7. #### 7\nSo 8", "7"),
        record("2", "9", "9", decoding="sampled"),
    ]
    measures = lm_eval_measures(records, "ncot", seed=1)
    assert measures["note"] == NOTE
    assert measures["flexible-extract"]["accuracy"] == 0.5
    assert measures["strict-match"]["accuracy"] == 0.5
    assert "strict-match" not in lm_eval_measures(records[:1], "ncot", seed=1)
    assert lm_eval_measures(records, "pcot", seed=1) == {}
    assert lm_eval_measures(records[2:], "ncot", seed=1) == {}
    rows = accuracy_rows({"n": 2, "accuracy": 0.5, "accuracy_ci95": [0.1, 0.9], "lm_eval": measures})
    assert [(row.name, row.note) for row in rows] == [
        ("greedy", ""),
        ("greedy, flexible-extract", NOTE),
        ("greedy, strict-match", NOTE),
    ]


def test_gsm8k_is_known_by_name_or_format() -> None:
    assert is_gsm8k([Problem("1", "?", "2")], "gsm8k")
    assert is_gsm8k([Problem("gsm8k_train_3", "?", "2")], "data.json")
    assert is_gsm8k([Problem("1", "?", "2", chain_sources={"ncot": "GSM8K rationale (human)"})], "data.json")
    assert not is_gsm8k([Problem("1", "?", "2", source="svamp.json:3")], "svamp")
