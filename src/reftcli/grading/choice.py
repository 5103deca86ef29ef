"""Reads a multiple-choice answer: one option's letter, or the text of one option."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from reftcli.grading.dress import plain_text
from reftcli.grading.number import Quantity, parse_number
from reftcli.grading.number_words import counts_in_words
from reftcli.grading.policy import AnswerPolicy
from reftcli.grading.text import hedges, normalised_text

_MAX_CHARS = 2000
DEFAULT_LETTERS = "ABCDE"
"""The letters of an item that comes without its options."""

_LETTER = re.compile(
    r"(?:(?:the\s+)?(?:option|choice|answer|letter)\s*(?::\s*|\s))?"
    r"(?:[(\[](?P<bracketed>[A-Za-z])[)\]]|(?P<marked>[A-Za-z])\s*(?:[).:]|,(?=\s)|\s[-–—](?=\s))|(?P<bare>[A-Za-z])(?=$))"
    r"\s*(?P<separator>[:,=]|[-–—](?=\s))?\s*(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_WORD_LETTER = re.compile(
    r"(?:the\s+)?(?:option|choice|letter)\s+(?P<letter>[A-Za-z])\b(?P<rest>.*)", re.IGNORECASE | re.DOTALL
)
_GLOSSED_LETTER = re.compile(r"(?P<letter>[B-Zb-z])\s*\((?P<rest>[^()]+)\)")
_SPACED_LETTER = re.compile(r"([B-Zb-z]|A)\s+(.+)", re.DOTALL)
_NAMED_LETTER = re.compile(r"(?<![\w'’°])\(?([A-Za-z])\)?(?![\w'’])")
_ARTICLE = re.compile(
    r"(?<![\w'’])a\s+(?!(?:and|or|then|because|is|also|plus|as|aka|but|vs|with)\b)(?=\w\w)", re.IGNORECASE
)
_AND = re.compile(r"\band\b", re.IGNORECASE)
_RETRACTS = re.compile(
    r"\b(?:actually|wait|rather|otherwise|alternatively|versus|vs|aka|also|as well|but|plus)\b|!=|[≠<>→|+&~]\s*$"
    r"|[≠<>→]|\\(?:neq?|leq?|geq?|to|lor|vee)(?![A-Za-z])",
    re.IGNORECASE,
)
_EXPLAINS = re.compile(r"=|\b(?:because|since|gives|makes|equals)\b")
_BETWEEN = re.compile(r"[^\w$%.]+")
_STATED = re.compile(r"(?<![\w.,])-?\d[\d,]*(?:\.\d+)?(?:/\d+)?", re.ASCII)
_DASHES = ("-", "–", "—")
_WHICH_IS = re.compile(r"(?:which (?:is|equals)|that is|i\.?e\.?|equal to|is|equals)(?![A-Za-z])[\s,:]*", re.IGNORECASE)


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
    plain = plain_text(text).rstrip(" .!")
    plain = re.sub(r"^\s*(?:is|be)\s+", "", plain)
    letters = letters_of(options)
    named = _named(plain, letters)
    by_text = options_with_text(plain, options) if policy.option_text else []
    if len(by_text) == 1 and not (len(plain) == 1 and plain.upper() in letters):
        agrees = named <= set(by_text) and not _left_side_differs(plain, by_text[0], options)
        if agrees or normalised_text(options[by_text[0]]) == normalised_text(plain):
            return ChoiceReading(by_text[0])
        return ChoiceReading(None, several=True, why=f"a letter and {options[by_text[0]]!r} are different options")
    match = _WORD_LETTER.fullmatch(plain) or _LETTER.fullmatch(plain) or _GLOSSED_LETTER.fullmatch(plain)
    if match is None:
        spaced = _SPACED_LETTER.fullmatch(plain)
        if spaced is not None and letters.get(spaced[1].upper()) in options_with_text(spaced[2].strip(" ()"), options):
            return ChoiceReading(letters[spaced[1].upper()])
        named |= _mentioned(plain, options)
        if len(named) >= 2 or (named and _is_several(plain)):
            return ChoiceReading(None, several=True, why="the answer names more than one option, or denies one")
        return ChoiceReading(None, why="the answer is not the letter of an option")
    groups = match.groupdict()
    written = groups.get("letter") or groups.get("bracketed") or groups.get("marked") or groups.get("bare") or ""
    letter = letters.get(written.upper())
    if letter is None:
        return ChoiceReading(None, why=f"{written!r} is not one of the options {', '.join(letters.values())}")
    rest = groups["rest"].strip(" .*_`)")
    if groups.get("separator") in _DASHES and options_with_text(f"- {rest}", options):
        rest = f"- {rest}"  # MathQA writes b ) - 159
    return _check_rest(letter, rest, options, letters)


def _check_rest(letter: str, rest: str, options: Mapping[str, str], letters: Mapping[str, str]) -> ChoiceReading:
    """A text behind the letter may repeat the option or explain it, and may not name another one."""
    rest = _WHICH_IS.sub("", rest, count=1) if _WHICH_IS.match(rest) else rest
    own = options.get(letter, "")
    others_named = _named(rest, letters) - {letter} - _named(own, letters)
    if not rest or (not others_named and letter in options_with_text(rest.strip(" ()"), options)):
        return ChoiceReading(letter)
    if others_named or _is_several(rest):
        return ChoiceReading(None, several=True, why="the answer names more than one option, or denies one")
    others = [text for other, text in options.items() if other != letter]
    renamed = options_with_text(rest.strip(" ()"), options)
    if renamed or any(_mentions(rest, other) and not _mentions(own, other) for other in others):
        return ChoiceReading(None, several=True, why=f"the letter {letter} and the text {rest!r} are different options")
    if not _agrees(rest, own, others):
        return ChoiceReading(None, several=True, why=f"the letter {letter} stands for {own}, not {rest}")
    return ChoiceReading(letter)


def _named(text: str, letters: Mapping[str, str]) -> set[str]:
    """The option letters that stand alone in a text; the article "a" is none."""
    found = _NAMED_LETTER.findall(_ARTICLE.sub("", text.replace("_", " ").replace("'s ", " ")))
    return {letters[letter.upper()] for letter in found if letter.upper() in letters}


def _mentions(text: str, option: str) -> bool:
    """Whether the words of an option stand in a text. Numbers are for `_agrees`."""
    words = normalised_text(option)
    return any(map(str.isalpha, words)) and f" {words} " in f" {_BETWEEN.sub(' ', normalised_text(text))} "


def _mentioned(text: str, options: Mapping[str, str]) -> set[str]:
    """The options whose words or number stand somewhere in a text."""
    stated = {value for found in _STATED.findall(text) if (value := _number(found)) is not None}
    return {letter for letter, option in options.items() if _mentions(text, option) or _number(option) in stated}


def _agrees(rest: str, own: str, others: list[str]) -> bool:
    """Whether the numbers behind a letter are its option's: a sum may hold others, if it ends in that one."""
    number = _number(own)
    stated = [value for found in _STATED.findall(rest.replace("_", " ")) if (value := _number(found)) is not None]
    if number is None:
        return not stated or _STATED.search(own) is not None or stated[-1] not in {_number(other) for other in others}
    if counts_in_words(rest):
        worded = Quantity.in_words(rest)
        return worded is not None and worded.value == number and all(value == number for value in stated)
    if not stated:
        return True
    if stated[-1] != number:
        return False
    return _EXPLAINS.search(rest) is not None or not {_number(other) for other in others} & set(stated)


def _left_side_differs(plain: str, letter: str, options: Mapping[str, str]) -> bool:
    """Whether another option's number stands before an equals sign, as in 18 eggs = 20."""
    left = {number for part in plain.split("=")[:-1] if (number := _number(part)) is not None}
    return any(_number(option) in left for other, option in options.items() if other != letter)


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
    return hedges(text) or _AND.search(text) is not None or _RETRACTS.search(text) is not None
