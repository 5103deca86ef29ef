"""Finds the final answer in a natural-language chain of thought. It finds text; it never judges it."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

TRIGGER = "Therefore, the answer is:"
"""What closes an N-CoT target; the readers below also accept its common relatives."""

_TRIGGER = re.compile(
    r"\b(?:(?:the|my|our)[ \t]+(?:(?:final|correct|right)[ \t]+)?answer"
    r"(?:[ \t]+(?:to|of)[ \t]+(?:the|this)[ \t]+(?:question|problem))?"
    r"|the[ \t]+(?:correct|right)[ \t]+(?:option|choice))[ \t]+is\b[ \t]*:?",
    re.IGNORECASE,
)
_BARE_TRIGGER = re.compile(r"^[ \t*_]*(?:final[ \t]+)?answer[ \t]+is[ \t]*:", re.IGNORECASE | re.MULTILINE)
_DENIED = re.compile(
    r"(?:\b(?:if|whether|unless|doubt|wrong|false|incorrect|untrue|unlikely|impossible|not|never|cannot|or|nor|maybe"
    r"|perhaps|possibly|suppose|supposing|assume|assuming|(?:might|could|would)[ \t]+(?:think|say|guess))|\w+n['’]t)"
    r"(?:[ \t]+(?:think|believe|say|claim|mean|agree|know|sure|certain|clear|true|correct|right|likely|possible|so"
    r"|the case))?(?:[ \t]+(?:that|if|whether))?[ \t]+$",
    re.IGNORECASE,
)
"""What makes the trigger's sentence a denial, a question, an alternative or a supposition."""
_DENIAL_CHARS = 60
BOXED = re.compile(r"\\f?box(?:ed)?[ \t]*\{")
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
    last = last_match(_TRIGGER, completion) or last_match(_BARE_TRIGGER, completion)
    if last is None:
        return None
    end = completion.find("\n", last.end())
    text = completion[last.end() : end if end >= 0 else None].strip()
    denial = _denial(completion[max(0, last.start() - _DENIAL_CHARS) : last.start()])
    if denial and text:  # "I don't think the answer is 18" does not answer 18
        text = f"{denial}{last[0].strip()} {text}".strip()
    return Found(text, '"the answer is"') if text.strip("*_:`$[]\\(. ") else None


def _denial(before: str) -> str:
    """The words just before a trigger that deny what it says, or ask; "" where there are none."""
    if not before.rstrip(" \t")[-1:].isalpha():  # the common case, by far: "Therefore, "
        return ""
    denied = _DENIED.search(before)
    return denied[0] if denied is not None else ""


def _boxed(completion: str) -> Found | None:
    last = last_match(BOXED, completion)
    if last is None:
        return None
    text = braced(completion, last.end())
    return Found(text.strip(), "\\boxed") if text is not None and text.strip() else None


def last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last match from left to right."""
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
