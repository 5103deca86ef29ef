"""The problem record: what every stage knows about one question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

CotForm = Literal["ncot", "pcot"]
"""N-CoT: natural-language chain of thought. P-CoT: a Python program that defines ``solution()``."""

AnswerKind = Literal["number", "choice", "math", "text"]

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its gold answer.

    ``question`` is the text the model sees, options included where the answer is one of several. ``chains`` holds the
    gold chain of thought per form, without prompt and without final answer line; ``chain_sources`` says of each where
    it came from ("given", "derived from annotations", ...), because results must say which training data they used.
    """

    item_id: str
    question: str
    gold_answer: str
    answer_kind: AnswerKind = "number"
    options: Mapping[str, str] = field(default_factory=dict)
    chains: Mapping[CotForm, str] = field(default_factory=dict)
    chain_sources: Mapping[CotForm, str] = field(default_factory=dict)
    source: str = ""
    """Where the row stands, as ``file:line`` (or the name of a generator)."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """The row as it was read: what user-written graders see as ``item``."""
