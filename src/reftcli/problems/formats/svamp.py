"""SVAMP as on the hub: ``Body, Question, Equation, Answer``."""

from __future__ import annotations

from reftcli.problems.derive.equation import derive_program
from reftcli.problems.formats.fields import answer_of, gold_field, item_id_of, text_field
from reftcli.problems.formats.interface import Place, Row, RowFormat
from reftcli.problems.record import Problem


def _recognises(row: Row) -> bool:
    return "Body" in row and "Question" in row and "Answer" in row


def _parse(row: Row, place: Place) -> Problem:
    body = text_field(row, "Body")
    # Some bodies lack the full stop before the question that follows.
    joint = " " if body.endswith((".", "?", "!", ",", ";", ":")) else ". "
    question = f"{body}{joint}{text_field(row, 'Question')}"
    gold, kind, options = answer_of(gold_field(row, "Answer"), question)
    return Problem(
        item_id=item_id_of(row, place, "ID", "item_id", "id"),
        question=question,
        gold_answer=gold,
        answer_kind=kind,
        options=options,
        source=place.source,
        row=row,
    )


SVAMP = RowFormat("SVAMP", "Body, Question, Answer", _recognises, _parse, derive_program, "derived from Equation")
