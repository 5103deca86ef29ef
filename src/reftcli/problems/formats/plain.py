"""Plain rows: ``question`` and ``answer``, where the answer is the gold answer and nothing else."""

from __future__ import annotations

from reftcli.problems.formats.fields import answer_of, gold_field, item_id_of, text_field
from reftcli.problems.formats.interface import Place, Row, RowFormat
from reftcli.problems.record import Problem


def _recognises(row: Row) -> bool:
    answer = row.get("answer")
    return "question" in row and "answer" in row and not (isinstance(answer, str) and "####" in answer)


def _parse(row: Row, place: Place) -> Problem:
    question = text_field(row, "question")
    gold, kind, options = answer_of(gold_field(row, "answer"), question, row.get("options", row.get("choices")))
    return Problem(
        item_id=item_id_of(row, place),
        question=question,
        gold_answer=gold,
        answer_kind=kind,
        options=options,
        source=place.source,
        row=row,
    )


PLAIN = RowFormat("plain", "question, answer", _recognises, _parse)
