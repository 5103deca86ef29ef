"""Reads one number out of an answer's text, or nothing. It matches the whole text and never evaluates any of it.

What is accepted, and what is refused although it holds a number, is the table of ``tests/grading/test_number.py``.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from reftcli.grading.dress import plain_text
from reftcli.grading.number_words import SCALES, number_from_words
from reftcli.grading.policy import AnswerPolicy

MAX_CHARS = 200
_MAX_EXPONENT = 300
"""1e999999999 is four bytes of text and gigabytes of integer."""

_PLAIN = re.compile(r"\s*(-?)\$?([1-9]\d{0,2}(?:,\d{3})+|\d{1,40})(?:\.(\d{1,40}))?\.?\s*", re.ASCII)

_CURRENCY = r"(?:(?:US|A|C)?\$|€|£|¥|₹|Rs\.?(?![A-Za-z])|USD\b|EUR\b|GBP\b)"
_DIGITS = r"(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)"
_DIGITS_COMMA = r"(?:[1-9]\d{0,2}(?:\.\d{3})+|\d+)"


def _number_pattern(digits: str, point: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?P<sign>[+-])?\s*(?P<currency>{_CURRENCY})?\s*(?P<inner>[+-](?=[\d.]))?"
        rf"(?:(?:(?P<whole>{digits})\s+)?(?P<top>{digits})\s*/\s*(?P<bottom>{digits})(?![\d{point}])"
        rf"|(?P<digits>{digits})?(?:{point}(?P<decimals>\d*))?(?:[eE](?P<exponent>[+-]?\d{{1,4}})(?!\d))?)"
        r"(?P<rest>.*)",
        re.ASCII | re.DOTALL,
    )


_NUMBER = _number_pattern(_DIGITS, r"\.")
_NUMBER_COMMA = _number_pattern(_DIGITS_COMMA, ",")

_LEADING = re.compile(
    r"(?:(?:about|approximately|approx\.?|around|roughly|exactly)(?![A-Za-z])|[~≈=:])\s*", re.IGNORECASE
)
_EQUALS = re.compile(r"[=≈]")
_REFUSED_LEFT = re.compile(r"[<>≠≤≥!;?]|,(?!\d{3})|\.\s")
_GLOSS = re.compile(r"(?<=[\w.%$°])\s+[(\[]([^()\[\]]*)[)\]]$|(?<=[A-Za-z%$°])[(\[]([^()\[\]]*)[)\]]$")
_HOPE = re.compile(r"\.?\s*I hope it is correct\.?$", re.IGNORECASE)

_WORD = r"[A-Za-z°µμΩ][A-Za-z°µμΩ.'’-]*(?:\s*\^\{?[23]\}?)?"
_UNIT = re.compile(rf"{_WORD}(?:(?:\s*/\s*|\s+){_WORD}){{0,5}}")
_WORDS = re.compile(r"[A-Za-z]+(?:['’][a-z]+)?")
_GLUED_UNITS = frozenset(
    "km m cm mm kg g mg lb lbs oz ft in yd mi s sec h hr hrs min mins ms mph kph L l ml mL ° °C °F "  # noqa: SIM905
    "km/h m/s m^2 m^3 cm^2 cm^3 km^2 ft^2".split()
)
_LETTER_UNITS = frozenset("mgshLlNJWVAa")
_CHANGES_THE_NUMBER = frozenset(
    "nan inf infinity none null true twice thrice double triple or nor not no non but if is isnt was are were "  # noqa: SIM905
    "than to through minus plus divided over above below under negative wrong incorrect false untrue maybe "
    "perhaps possibly instead rather either neither except without unless point half halves third thirds fourth "
    "fourths fifth fifths sixth sixths eighth eighths ninth ninths tenth tenths hundredth hundredths thousandth "
    "thousandths dozen dozens score gross squared cubed pi sqrt root mod modulo factorial percentage equals "
    "alternatively actually wait zero one two three four five six seven eight nine ten eleven twelve".split()
) | frozenset(SCALES)
_VALUE = re.compile(r"[\d¼½¾⅓⅔]|\b(?:nan|inf|infinity|none|null|true|false)\b|∞|\\infty", re.IGNORECASE)
_LONE_LETTER = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
_CALCULATES = re.compile(r"[-+*/×÷^√|\d]|\b(?:log|ln|sin|cos|tan|exp|det|abs)\b")
_PERCENT = re.compile(r"%|per\s?cents?(?![A-Za-z])", re.IGNORECASE)


@lru_cache(maxsize=65536)
def parse_number(text: str, policy: AnswerPolicy) -> Fraction | None:
    """The number that ``text`` states, exactly, or None where it does not state exactly one."""
    plain = _PLAIN.fullmatch(text)
    if plain is not None and not policy.decimal_comma:
        return _decimal(plain[2].replace(",", ""), plain[3] or "", 0, negative=plain[1] == "-")
    if len(text) > MAX_CHARS:
        return None
    return _parse_dressed(_HOPE.sub("", plain_text(text)), policy)


def states_a_number(text: str) -> bool:
    """Whether ``text`` holds anything meant as a value: an answer was given then, though perhaps not a good one."""
    return _VALUE.search(text) is not None


def same_number(a: Fraction, b: Fraction, policy: AnswerPolicy) -> bool:
    """Equality of answers: an absolute difference of at most the policy's tolerance."""
    return a == b or abs(a - b) <= policy.exact_tolerance


def show_number(value: Fraction) -> str:
    """The shortest exact way to write it: an integer, a decimal that ends, else a fraction."""
    if value.denominator == 1:
        return str(value.numerator) if abs(value.numerator) < 10**30 else f"{float_text(value)}"
    rest, places = value.denominator, 0
    for factor in (2, 5):
        count = 0
        while rest % factor == 0:
            rest, count = rest // factor, count + 1
        places = max(places, count)
    if rest != 1 or places > 20:
        return f"{value.numerator}/{value.denominator}" if value.denominator < 10**9 else float_text(value)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def float_text(value: Fraction) -> str:
    """As a float, for numbers too long to be read in full."""
    try:
        return repr(float(value))
    except OverflowError:
        return f"a number of {len(str(abs(value.numerator) // value.denominator))} digits"


def _decimal(digits: str, decimals: str, exponent: int, *, negative: bool) -> Fraction:
    number = int(digits + decimals)
    places = len(decimals) - exponent
    value = Fraction(number, 10**places) if places > 0 else Fraction(number * 10**-places)
    return -value if negative else value


def _parse_dressed(text: str, policy: AnswerPolicy) -> Fraction | None:
    text = text.rstrip(" .,;")
    gloss = _GLOSS.search(text)
    if gloss is not None:
        text = text[: gloss.start()]
    text = _right_side(text)
    while leading := _LEADING.match(text):
        text = text[leading.end() :]
    value = _match_whole(text.strip(" *_`"), policy)
    if value is None or gloss is None:
        return value
    return value if _is_mere_gloss(gloss[1] or gloss[2] or "", value) else None


def _right_side(text: str) -> str:
    """Behind the last equals sign, if what stands before it is a name or a sum; else a text that states no number."""
    parts = _EQUALS.split(text)
    if len(parts) == 1:
        return text
    left = " ".join(parts[:-1])
    allowed = ("over", "plus", "minus", "percentage", "total", "double", "triple", "twice", "half")
    if _REFUSED_LEFT.search(left) or _changes_the_number(left, allowed) or _is_equation(left):
        return ""
    return parts[-1].strip()


def _is_equation(left: str) -> bool:
    """Whether a letter is computed with before the equals sign: from 2x = 18 it does not follow that x is 18."""
    plain = re.sub(r"_\{?\w+\}?|\([^()]*\)", "", left)  # x_1 and f(3) are names
    letters = [match for match in _LONE_LETTER.finditer(plain) if not _counts(plain, match)]
    if letters and _CALCULATES.search(plain):
        return True
    return re.search(r"\d\s*[A-Za-z](?![A-Za-z])", plain) is not None and re.search(r"[-+*/×÷]", plain) is None


def _counts(text: str, letter: re.Match[str]) -> bool:
    """Whether a lone letter is a unit behind a number, as in 2 h * 60 km/h."""
    return letter[0] in _LETTER_UNITS and re.search(r"(?:\d\s*|/\s*)$", text[: letter.start()]) is not None


def _match_whole(text: str, policy: AnswerPolicy) -> Fraction | None:
    match = (_NUMBER_COMMA if policy.decimal_comma else _NUMBER).fullmatch(text)
    if policy.decimal_comma and match is not None and match["rest"].startswith("."):
        match = _NUMBER.fullmatch(text)  # 203.0 cannot group thousands, and gold answers are often written so
    value = None if match is None else _value(match)
    if match is None or value is None:
        return number_from_words(text) if policy.number_words else None
    rest = match["rest"].rstrip(" .*_`")
    if policy.number_words and (scale := SCALES.get(rest.strip().lower())):
        return value * scale
    percent = _PERCENT.match(rest.lstrip())
    if percent is not None:
        rest = rest.lstrip()[percent.end() :]
        value = value / 100 if policy.percent == "fraction" else value
    return value if _is_unit(rest, currency=match["currency"] is not None) else None


def _value(match: re.Match[str]) -> Fraction | None:
    if match["sign"] and match["inner"]:
        return None
    negative = "-" in (match["sign"], match["inner"])
    if match["top"] is not None:
        whole, top, bottom = (int(re.sub(r"[.,]", "", match[part] or "0")) for part in ("whole", "top", "bottom"))
        if bottom == 0 or (match["whole"] is not None and top >= bottom):
            return None
        value = whole + Fraction(top, bottom)
        return -value if negative else value
    digits, decimals = re.sub(r"[.,]", "", match["digits"] or ""), match["decimals"] or ""
    exponent = int(match["exponent"] or 0)
    if not digits + decimals or abs(exponent) > _MAX_EXPONENT:
        return None
    return _decimal(digits, decimals, exponent, negative=negative)


def _is_unit(rest: str, *, currency: bool) -> bool:
    """Whether what follows the number only says what is counted."""
    unit = rest.strip()
    if not unit or re.fullmatch(_CURRENCY, unit):
        return True
    glued = not rest[0].isspace() and rest[0] not in "/°%"
    if glued and (currency or re.split(r"\s", unit)[0] not in _GLUED_UNITS):
        return False
    unit = unit.lstrip("/ ")
    if _UNIT.fullmatch(unit) is None or _changes_the_number(unit):
        return False
    words = re.findall(r"[A-Za-z]+", re.sub(r"°\s*[CF]\b", "°", unit))
    if words and len(words[0]) == 1 and (words == ["a"] or (currency and words[0] != "a")):
        return False  # $5 m is five million
    return all(len(word) > 1 or word in _LETTER_UNITS for word in words)


def _changes_the_number(text: str, allowed: tuple[str, ...] = ()) -> bool:
    words = {word.lower().replace("’", "'") for word in _WORDS.findall(text)}
    return any((word in _CHANGES_THE_NUMBER and word not in allowed) or word.endswith("n't") for word in words)


def _is_mere_gloss(gloss: str, value: Fraction) -> bool:
    """A bracket behind the number may explain it, and may not offer another one."""
    if _changes_the_number(gloss, allowed=("is", "was", "are", "dozen", "half", "over", "than", "to")) or "?" in gloss:
        return False
    stated = _PLAIN.fullmatch(_right_side(gloss))
    if stated is None:
        return True
    return _decimal(stated[2].replace(",", ""), stated[3] or "", 0, negative=stated[1] == "-") == value
