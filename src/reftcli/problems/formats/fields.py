"""Reading one field of a row, with the reason when it cannot be used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from reftcli.problems.formats.interface import BadRow, Place, Row
from reftcli.problems.numbers import canonical_gold, measured_number
from reftcli.problems.options import option_letter, options_of, split_options
from reftcli.problems.programs import defines_solution, split_program
from reftcli.problems.record import AnswerKind, CotForm

GOLD_KEYS = (
    "gold_answer", "answer_value", "reference_answer", "correct_answer", "expected_answer", "ground_truth",
    "answer", "gold", "reference", "target", "solution", "label",
)  # fmt: skip
"""Keys under which free-form rows keep the gold answer, the most explicit first."""


def text_field(row: Row, key: str) -> str:
    """The non-empty text under ``key``, stripped."""
    value = row.get(key)
    if key not in row or value is None:
        raise BadRow(f"no `{key}`")
    if not isinstance(value, str):
        raise BadRow(f"`{key}` is not text but {type(value).__name__}")
    if not value.strip():
        raise BadRow(f"`{key}` is empty")
    return value.strip()


def gold_field(row: Row, *keys: str) -> str:
    """The gold answer under the first of ``keys`` that the row has; a number becomes its text."""
    key = next((key for key in keys if row.get(key) is not None), None)
    if key is None:
        shown = keys if len(keys) <= 3 else (*keys[:3], "...")
        raise BadRow("no gold answer: needs " + " or ".join(f"`{name}`" for name in shown))
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadRow(f"the gold answer `{key}` is not text or a number but {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRow(f"the gold answer `{key}` is {value}")
    if not str(value).strip():
        raise BadRow(f"no gold answer: `{key}` is empty")
    return str(value).strip()


def split_hashes(text: str) -> tuple[str, str]:
    """GSM8K's notation: the chain before the last ``####`` and the gold answer after it."""
    chain, marker, gold = text.rpartition("####")
    if not marker:
        raise BadRow("no gold answer: `answer` has no `####` line")
    if not gold.strip():
        raise BadRow("no gold answer: nothing stands after `####`")
    return chain.strip(), gold.strip()


def answer_of(gold: str, question: str, given_options: Any = None) -> tuple[str, AnswerKind, Mapping[str, str]]:
    """Gold answer as the record holds it, its kind, and the options (given, or found in the question)."""
    options = options_of(given_options)
    if len(gold.strip("().: ")) == 1 and gold.strip("().: ").isalpha():
        options = options or split_options(question)[1]
        if (letter := option_letter(gold, options)) is not None:
            return letter, "choice", options
        if options:
            raise BadRow(f"the gold answer {gold!r} is none of the options {', '.join(options)}")
    by_text = [letter for letter, text in options.items() if text.strip() == gold.strip()]
    if len(by_text) == 1:
        return by_text[0], "choice", options
    if measured_number(gold) is not None:
        return canonical_gold(gold), "number", {}
    return gold, "math" if "\\" in gold else "text", {}


def program_chain(text: str) -> str:
    """A given program, checked: it parses and defines ``solution()``."""
    try:
        split_program(text)
    except ValueError as error:
        raise BadRow(f"the program is {error}") from error
    return text


def given_chain(text: str) -> dict[CotForm, str]:
    """A chain that came with the row, under the form that it is written in; nothing for an empty text."""
    if not text.strip():
        return {}
    return {"pcot": program_chain(text.strip())} if defines_solution(text) else {"ncot": text.strip()}


def item_id_of(row: Row, place: Place, *keys: str) -> str:
    """The row's own name under the first of ``keys`` that it has, else one made from file and position."""
    for key in keys or ("item_id", "id"):
        value = row.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()
    return place.item_id
