"""The ReFT authors' JSON: ``item_id, question, answer_value, answer_cot?``; options stand inside the question."""

from __future__ import annotations

import re

from reftcli.problems.formats.fields import answer_of, given_chain, gold_field, item_id_of, text_field
from reftcli.problems.formats.interface import BadRow, Place, Row, RowFormat
from reftcli.problems.programs import defines_solution
from reftcli.problems.record import Problem

# Their N-CoT texts end in an answer line of their own ("Therefore, the answer is <203>."); the prompt code adds ours.
_ANSWER_LINE = re.compile(
    r"(?:\A|\n|(?<=[.!?])[ \t])\s*(?:(?:therefore|thus|hence|so),?\s+)?the (?:final )?answer is:?\s*"
    r"(?:<[^<>\n]{1,60}>|[^\s<>]{1,60})\s*\.?\s*\Z",
    re.IGNORECASE,
)
_END_CHARS = 300


def without_answer_line(chain: str) -> str:
    """An N-CoT chain without the closing sentence that states the answer; unchanged where nothing would be left."""
    body, end = chain[:-_END_CHARS], chain[-_END_CHARS:]  # the pattern is slow on long runs of white space
    return (body + _ANSWER_LINE.sub("", end)).rstrip() or chain


def _recognises(row: Row) -> bool:
    return "question" in row and "answer_value" in row


def _parse(row: Row, place: Place) -> Problem:
    question = text_field(row, "question")
    gold, kind, options = answer_of(gold_field(row, "answer_value"), question)
    chain = row.get("answer_cot")
    if chain is not None and not isinstance(chain, str):
        raise BadRow(f"`answer_cot` is not text but {type(chain).__name__}")
    chain = chain or ""
    chains = given_chain(chain if defines_solution(chain) else without_answer_line(chain.strip()))
    return Problem(
        item_id=item_id_of(row, place),
        question=question,
        gold_answer=gold,
        answer_kind=kind,
        options=options,
        chains=chains,
        chain_sources=dict.fromkeys(chains, "given"),
        source=place.source,
        row=row,
    )


REFT = RowFormat("ReFT", "question, answer_value (item_id, answer_cot)", _recognises, _parse)
