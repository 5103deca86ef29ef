"""TRL rows: ``prompt`` and ``completion``, each a text or messages, and the gold answer under a key of its own."""

from __future__ import annotations

from typing import Any

from reftcli.problems.formats.fields import GOLD_KEYS, answer_of, given_chain, gold_field, item_id_of, text_field
from reftcli.problems.formats.interface import Place, Row, RowFormat
from reftcli.problems.formats.messages import message_texts, question_of
from reftcli.problems.formats.reft import without_answer_line
from reftcli.problems.programs import defines_solution
from reftcli.problems.record import Problem


def _recognises(row: Row) -> bool:
    return "prompt" in row


def _completion(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return "\n".join(text for _, text in message_texts(value, "completion"))


def _parse(row: Row, place: Place) -> Problem:
    prompt = row.get("prompt")
    question = text_field(row, "prompt") if not isinstance(prompt, list) else question_of(prompt, "prompt")
    marked = gold_field(row, *GOLD_KEYS).rpartition("####")[2].strip()
    gold, kind, options = answer_of(marked, question, row.get("options", row.get("choices")))
    completion = _completion(row.get("completion")).strip()
    chains = given_chain(completion if defines_solution(completion) else without_answer_line(completion))
    return Problem(
        item_id=item_id_of(row, place),
        question=question,
        gold_answer=gold,
        answer_kind=kind,
        options=options,
        chains=chains,
        chain_sources=dict.fromkeys(chains, "given (completion)"),
        source=place.source,
        row=row,
    )


TRL = RowFormat("TRL", "prompt, and the gold answer under answer, gold_answer, ... (completion)", _recognises, _parse)
