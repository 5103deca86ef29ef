"""MathQA as released: ``Problem, Rationale, options, correct, annotated_formula, linear_formula, category``."""

from __future__ import annotations

import dataclasses
import re

from reftcli.problems.derive.mathqa import derive_program
from reftcli.problems.formats.fields import item_id_of, text_field
from reftcli.problems.formats.interface import BadRow, Place, Row, RowFormat
from reftcli.problems.numbers import decimal_text, measured_number
from reftcli.problems.options import option_letter, parse_options, render_options, split_options
from reftcli.problems.record import Problem

_NAMES_LETTER = re.compile(
    r"[\s,.:;=(-]*(?:(?:so|hence|thus|therefore|correct|the|my|final|right)[\s,]+)*(?:answer|ans)\b[\s:.=-]*(?:is|choice)?"
    r"[\s:.=-]*(?:option)?[\s:.(=-]*[a-e]\b[\s).]*\Z",
    re.IGNORECASE,
)


def rationale_chain(text: str) -> str:
    """A rationale as a chain: without the quotes around it and without "answer : c" at its end."""
    unquoted = text.strip().strip('"').strip()
    return _NAMES_LETTER.sub("", unquoted).strip()


def as_numeric(problem: Problem) -> Problem | None:
    """MathQA-numeric: options dropped, the gold answer is the number of the right option; None where it is no number.

    A program given with the row is dropped too, because it returns a letter.
    """
    value = measured_number(problem.options.get(problem.gold_answer, ""))
    if value is None:
        return None
    stem = problem.row.get("Problem")
    return dataclasses.replace(
        problem,
        question=stem.strip() if isinstance(stem, str) else split_options(problem.question)[0],
        gold_answer=decimal_text(value),
        answer_kind="number",
        options={},
        chains={form: chain for form, chain in problem.chains.items() if form == "ncot"},
        chain_sources={form: source for form, source in problem.chain_sources.items() if form == "ncot"},
    )


def _recognises(row: Row) -> bool:
    return "Problem" in row and "options" in row and "correct" in row


def _parse(row: Row, place: Place) -> Problem:
    stem = text_field(row, "Problem")
    options = parse_options(text_field(row, "options"))
    if not options:
        raise BadRow(f"cannot read the options {row['options']!r}")
    letter = option_letter(text_field(row, "correct"), options)
    if letter is None:
        raise BadRow(f"no gold answer: `correct` is {row['correct']!r}, the options are {', '.join(options)}")
    rationale = row.get("Rationale")
    chain = rationale_chain(rationale) if isinstance(rationale, str) else ""
    return Problem(
        item_id=item_id_of(row, place),
        question=f"{stem}\n{render_options(options)}",
        gold_answer=letter,
        answer_kind="choice",
        options=options,
        chains={"ncot": chain} if chain else {},
        chain_sources={"ncot": "MathQA rationale (human)"} if chain else {},
        source=place.source,
        row=row,
    )


MATHQA = RowFormat(
    "MathQA", "Problem, options, correct", _recognises, _parse, derive_program, "derived from linear_formula"
)
