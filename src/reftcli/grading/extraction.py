"""Finds the final answer in a natural-language chain of thought. It finds text; it never judges it."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

TRIGGER = "Therefore, the answer is:"
"""What closes an N-CoT target; the readers below also accept its common relatives."""

_TRIGGER = re.compile(r"\bthe[ \t]+(?:(?:final|correct)[ \t]+)?answer[ \t]+is\b[ \t]*:?", re.IGNORECASE)
_BOXED = re.compile(r"\\f?box(?:ed)?[ \t]*\{")
_HASHES = re.compile(r"^[ \t]*####(?!#)[ \t]*(.*)", re.MULTILINE)
_NUMBER = re.compile(r"[-+\u2212]?\$?\d[\d,]*(?:\.\d+)?%?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Found:
    """The text of an answer and the mark by which it was found."""

    text: str
    mark: str


def find_answer(completion: str, *, last_number: bool = False) -> Found | None:
    r"""The final answer: after the last trigger and on its line only, else the last ``\boxed{}``, else after ``####``.

    A trigger with nothing behind it on its line counts as absent. With ``last_number`` the last number of the text is
    taken where all three are absent.
    """
    found = _after_trigger(completion) or _boxed(completion) or _after_hashes(completion)
    if found is None and last_number:
        numbers = _NUMBER.findall(completion)
        found = Found(numbers[-1], "the last number") if numbers else None
    return found


def _after_trigger(completion: str) -> Found | None:
    last = _last_match(_TRIGGER, completion)
    if last is None:
        return None
    end = completion.find("\n", last.end())
    text = completion[last.end() : end if end >= 0 else None].strip()
    return Found(text, '"the answer is"') if text.strip("*_:`$[]\\(. ") else None


def _boxed(completion: str) -> Found | None:
    last = _last_match(_BOXED, completion)
    if last is None:
        return None
    text = braced(completion, last.end())
    return Found(text.strip(), "\\boxed") if text is not None and text.strip() else None


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    last = deque(pattern.finditer(text), maxlen=1)
    return last[0] if last else None


def braced(text: str, start: int) -> str | None:
    """From ``start``, just behind an opening brace, to its closing one. None where it is never closed."""
    depth = 1
    for position in range(start, len(text)):
        character = text[position]
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return text[start:position]
    return None


def _after_hashes(completion: str) -> Found | None:
    if "####" not in completion:
        return None
    lines = [line.strip() for line in _HASHES.findall(completion)]
    return Found(lines[-1], "####") if lines and lines[-1] else None
