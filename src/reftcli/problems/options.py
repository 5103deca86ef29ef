"""Answer options: read from MathQA's notation, from lines, from lists, and found at the end of a question."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

LETTERS = "ABCDEFGHIJ"

# A marker stands at the start, after a separator, or (first option, or "(B)") after a space.
_MARKER = re.compile(
    r"(?P<before>\A|[,;\n'\"\[]\s*|\s(?=\()|(?<=[?.:!])\s+|\s(?=[aA]\s*[).]\s))\(?\s*(?P<letter>[A-Ja-j])\s*[).:](?=\s|\Z)\s*"
)
_REPEATED = re.compile(r"\A(?:[A-Ja-j]\s*\)\s*)+")


def parse_options(text: str) -> dict[str, str]:
    """Options such as ``a ) 38 , b ) 27``, ``(A) 38 (B) 27``, lines, or a printed list, by upper-case letter.

    Empty when the text holds no run of at least two options that begins with the letter A.
    """
    found = _find_run(_without_list_dress(text))
    return found[1] if found else {}


def split_options(question: str) -> tuple[str, dict[str, str]]:
    """A question as its stem and the options at its end; without options, the question itself and an empty mapping."""
    start = question.rfind("\n[")
    if start >= 0 and (options := parse_options(question[start + 1 :])):
        return question[:start].rstrip(), options
    found = _find_run(question)
    return (question[: found[0]].rstrip(), found[1]) if found else (question, {})


def options_of(value: Any) -> dict[str, str]:
    """Options given as a mapping, a list or one text; empty for anything else."""
    if isinstance(value, str):
        return parse_options(value)
    if isinstance(value, Mapping):
        if isinstance(value.get("text"), list):  # the hub's {"label": [...], "text": [...]}
            return options_of(value["text"])
        return {str(letter).strip().upper(): str(text) for letter, text in value.items()}
    if isinstance(value, list):
        return parse_options("\n".join(map(str, value))) or dict(zip(LETTERS, map(str, value), strict=False))
    return {}


def render_options(options: Mapping[str, str]) -> str:
    """Options in MathQA's own notation: ``a ) 38 , b ) 27``."""
    return " , ".join(f"{letter.lower()} ) {text}" for letter, text in options.items())


def option_letter(gold: str, options: Mapping[str, str]) -> str | None:
    """The letter that a gold answer such as ``c``, ``C`` or ``(c)`` names among the options; None if it names none."""
    letter = gold.strip().strip("().: ").upper()
    return letter if letter in options else None


def _without_list_dress(text: str) -> str:
    stripped = text.strip()
    if not stripped.startswith("["):
        return stripped
    try:
        items = ast.literal_eval(stripped)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return stripped
    return "\n".join(map(str, items)) if isinstance(items, list) else stripped


def _find_run(text: str) -> tuple[int, dict[str, str]] | None:
    """Start and options of the last run of markers A, B, C ... in the text."""
    markers = list(_MARKER.finditer(text))
    for first in range(len(markers) - 1, -1, -1):
        run = _run_from(markers, first)
        if len(run) < 2:
            continue
        if first and markers[first - 1]["letter"].upper() == "A" and markers[first - 1].end() == markers[first].start():
            continue  # "a ) a ) 3": begin at the first of the two
        ends = [marker.start() for marker in run[1:]] + [len(text)]
        pieces = (text[marker.end() : end] for marker, end in zip(run, ends, strict=True))
        return run[0].start(), {letter: _clean(piece) for letter, piece in zip(LETTERS, pieces, strict=False)}
    return None


def _run_from(markers: list[re.Match[str]], first: int) -> list[re.Match[str]]:
    run: list[re.Match[str]] = []
    for marker in markers[first:]:
        if len(run) < len(LETTERS) and marker["letter"].upper() == LETTERS[len(run)]:
            run.append(marker)
    return run


def _clean(text: str) -> str:
    return _REPEATED.sub("", text.strip()).strip().strip(",;").strip()
