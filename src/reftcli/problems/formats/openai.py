"""OpenAI-style reinforcement fine-tuning rows: ``messages``, the last from the user, and free keys with the gold."""

from __future__ import annotations

from reftcli.problems.formats.fields import GOLD_KEYS, answer_of, gold_field, item_id_of
from reftcli.problems.formats.interface import Place, Row, RowFormat
from reftcli.problems.formats.messages import question_of
from reftcli.problems.record import Problem


def _recognises(row: Row) -> bool:
    return "messages" in row


def _parse(row: Row, place: Place) -> Problem:
    question = question_of(row.get("messages"), "messages")
    marked = gold_field(row, *GOLD_KEYS).rpartition("####")[2].strip()
    gold, kind, options = answer_of(marked, question, row.get("options", row.get("choices")))
    return Problem(
        item_id=item_id_of(row, place),
        question=question,
        gold_answer=gold,
        answer_kind=kind,
        options=options,
        source=place.source,
        row=row,
    )


OPENAI = RowFormat("OpenAI-style", "messages, and the gold answer under answer, gold_answer, ...", _recognises, _parse)
