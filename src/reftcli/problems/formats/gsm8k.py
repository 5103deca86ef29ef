"""GSM8K: ``question`` and an ``answer`` with calculator annotations ``<<48/2=24>>`` and a last line ``#### 72``."""

from __future__ import annotations

import re

from reftcli.problems.derive.gsm8k import derive_program
from reftcli.problems.formats.fields import answer_of, item_id_of, split_hashes, text_field
from reftcli.problems.formats.interface import Place, Row, RowFormat
from reftcli.problems.record import Problem

_ANNOTATION = re.compile(r"<<.*?>>")


def without_annotations(chain: str) -> str:
    """The chain as prose: the calculator annotations are for a calculator, not for a reader."""
    return _ANNOTATION.sub("", chain).strip()


def _recognises(row: Row) -> bool:
    answer = row.get("answer")
    return "question" in row and isinstance(answer, str) and "####" in answer


def _parse(row: Row, place: Place) -> Problem:
    question = text_field(row, "question")
    chain, marked_gold = split_hashes(text_field(row, "answer"))
    gold, kind, options = answer_of(marked_gold, question)
    prose = without_annotations(chain)
    return Problem(
        item_id=item_id_of(row, place),
        question=question,
        gold_answer=gold,
        answer_kind=kind,
        options=options,
        chains={"ncot": prose} if prose else {},
        chain_sources={"ncot": "GSM8K rationale (human)"} if prose else {},
        source=place.source,
        row=row,
    )


GSM8K = RowFormat(
    "GSM8K", "question, answer with `####`", _recognises, _parse, derive_program, "derived from annotations"
)
