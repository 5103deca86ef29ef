"""Reads a multiple-choice answer: one option's letter, or the text of one option."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from reftcli.grading.dress import plain_text
from reftcli.grading.number import parse_number
from reftcli.grading.policy import AnswerPolicy
from reftcli.grading.text import hedges, normalised_text

_MAX_CHARS = 2000
DEFAULT_LETTERS = "ABCDE"
"""The letters of an item that comes without its options."""

_LETTER = re.compile(
    r"(?:(?:option|choice|answer)\s+)?"
    r"(?:[(\[](?P<bracketed>[A-Za-z])[)\]]|(?P<marked>[A-Za-z])\s*(?:[).:]|,(?=\s)|\s[-–—](?=\s))|(?P<bare>[A-Za-z])(?=$))"
    r"\s*[:,=–—-]?\s*(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_WORD_LETTER = re.compile(r"(?:option|choice)\s+(?P<letter>[A-Za-z])\b(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_AND = re.compile(r"\band\b", re.IGNORECASE)
_SECOND_LETTER = re.compile(r"(?:^|[\s,;/&(])\(?([A-Za-z])(?:\)|$|(?=[,;/&]))")


@dataclass(frozen=True, slots=True)
class ChoiceReading:
    """``letter`` as the item writes it; or None, and then ``several`` says whether more than one answer was given."""

    letter: str | None
    several: bool = False
    why: str = ""


def letters_of(options: Mapping[str, str]) -> dict[str, str]:
    """Upper-case letter to the letter as the item writes it."""
    return {letter.strip().upper(): letter for letter in options} or {letter: letter for letter in DEFAULT_LETTERS}


def gold_letter(gold: str, options: Mapping[str, str]) -> str | None:
    """The item's own letter for a gold answer written ``c``, ``C``, ``(C)`` or ``C)``; None if it is not an option."""
    return letters_of(options).get(gold.strip().strip("().").strip().upper())


def read_choice(text: str, options: Mapping[str, str], policy: AnswerPolicy) -> ChoiceReading:
    """The option that an answer's text names. The article "a" is not option A; letter and text must agree."""
    if len(text) > _MAX_CHARS:
        return ChoiceReading(None, why="the answer is far longer than an option")
    plain = plain_text(text).rstrip(" .")
    plain = re.sub(r"^\s*(?:is|be)\s+", "", plain)
    letters = letters_of(options)
    by_text = options_with_text(plain, options) if policy.option_text else []
    if len(by_text) == 1 and not (len(plain) == 1 and plain.upper() in letters):
        return ChoiceReading(by_text[0])
    match = _WORD_LETTER.fullmatch(plain) or _LETTER.fullmatch(plain)
    if match is None:
        named = {found.upper() for found in re.findall(r"(?<![\w'’])\(?([A-Za-z])\)?(?![\w'’])", plain)} & set(letters)
        if len(named - {"A"}) >= 2 or (named and _is_several(plain)):
            return ChoiceReading(None, several=True, why="the answer names more than one option, or denies one")
        return ChoiceReading(None, why="the answer is not the letter of an option")
    groups = match.groupdict()
    written = groups.get("letter") or groups.get("bracketed") or groups.get("marked") or groups.get("bare") or ""
    letter = letters.get(written.upper())
    if letter is None:
        return ChoiceReading(None, why=f"{written!r} is not one of the options {', '.join(letters.values())}")
    return _check_rest(letter, groups["rest"].strip(" .*_`)"), options, letters)


def _check_rest(letter: str, rest: str, options: Mapping[str, str], letters: Mapping[str, str]) -> ChoiceReading:
    """A text behind the letter may repeat the option, and may not name another one."""
    if not rest or letter in options_with_text(rest, options):
        return ChoiceReading(letter)
    others = {letters[found.upper()] for found in _SECOND_LETTER.findall(rest) if found.upper() in letters} - {letter}
    if others or _is_several(rest):
        return ChoiceReading(None, several=True, why="the answer names more than one option, or denies one")
    if options and options_with_text(rest, options):
        return ChoiceReading(None, several=True, why=f"the letter {letter} and the text {rest!r} are different options")
    own = _number(options.get(letter, ""))
    if own is not None and _number(rest) not in (None, own):
        return ChoiceReading(None, several=True, why=f"the letter {letter} stands for {options[letter]}, not {rest}")
    return ChoiceReading(letter)


def options_with_text(text: str, options: Mapping[str, str]) -> list[str]:
    """The options whose text is ``text``, or, where both are numbers, exactly the same number."""
    wanted, number = normalised_text(text), _number(text)
    same = [letter for letter, option in options.items() if normalised_text(option) == wanted]
    if same or number is None:
        return same
    return [letter for letter, option in options.items() if _number(option) == number]


def option_nearest(value: Fraction, options: Mapping[str, str], policy: AnswerPolicy) -> str | None:
    """The option whose number a computed value stands for: the nearest within the tolerance, if only one is nearest."""
    gaps: list[tuple[Fraction, str]] = []
    for letter, option in options.items():
        number = parse_number(option, policy)
        if number is not None and abs(number - value) <= policy.exact_tolerance:
            gaps.append((abs(number - value), letter))
    gaps.sort(key=lambda pair: pair[0])
    if not gaps or (len(gaps) > 1 and gaps[0][0] == gaps[1][0]):
        return None
    return gaps[0][1]


_DEFAULT_POLICY = AnswerPolicy()


def _number(text: str) -> Fraction | None:
    return parse_number(text, _DEFAULT_POLICY)


def _is_several(text: str) -> bool:
    return hedges(text) or _AND.search(text) is not None
