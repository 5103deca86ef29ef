"""English words that are numbers, and those that make another number of the one they stand beside."""

from __future__ import annotations

import re
from fractions import Fraction

_ONES = {
    word: number
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "  # noqa: SIM905
        "seventeen eighteen nineteen".split()
    )
}
_TENS = {
    word: 10 * number
    for number, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)  # noqa: SIM905
}
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
NUMBER_WORDS = frozenset((*_ONES, *_TENS, *SCALES))
"""Every word that may stand in a number."""

_WORDS = re.compile(r"[A-Za-zÀ-ɏ]+(?:['’][a-z]+)?")
_CHANGES_THE_NUMBER = frozenset(
    "nan inf infinity none null true twice thrice double triple or nor not no non but if is isnt was are were "  # noqa: SIM905
    "to through minus plus divided above below under least most minimum maximum negative wrong incorrect false "
    "untrue maybe perhaps possibly instead rather either neither except without unless point half halves third "
    "thirds quarter fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth "
    "tenths hundredth hundredths thousandth thousandths dozen dozens score gross squared cubed pi sqrt root mod "
    "modulo factorial percentage equals base alternatively actually otherwise wait never nope mistaken mistake "
    "invalid versus vs tens hundreds thousands millions billions trillions mil mill mln mn bn tn lakh lakhs crore "
    "crores".split()
)
IN_A_NAME = frozenset(
    "plus minus percentage double triple twice half quarter base score least most minimum maximum".split()  # noqa: SIM905
)
"""What a name before an equals sign may hold of these."""
IN_A_GLOSS = NUMBER_WORDS | frozenset("is was are dozen half to minimum maximum".split())  # noqa: SIM905
"""What a bracket behind a number may hold of these."""


def number_from_words(text: str) -> Fraction | None:
    """ "minus twenty-five", "two thousand and six"; None for anything that is not wholly one number in words."""
    words = re.split(r"[\s-]+", text.strip().lower())
    negative = words[0] in ("minus", "negative")
    words = words[negative:]
    total, group = 0, 0
    room, scale, joins = 1000, 10**18, False  # what may follow: less than room, a scale below scale, "and"
    for word in words:
        if word == "and" and joins:
            joins = False
            continue
        digit = _ONES.get(word, _TENS.get(word))
        if digit is not None and digit < room and (digit or len(words) == 1):
            group, room, joins = group + digit, 10 if word in _TENS else 0, False
        elif word == "hundred" and group < 100 and (group or room == 1000):
            group, room, joins = (group or 1) * 100, 100, True
        elif word != "hundred" and SCALES.get(word, scale) < scale and (group or room == 1000):
            total, group, scale = total + (group or 1) * SCALES[word], 0, SCALES[word]
            room, joins = 1000, True
        else:
            return None
    if not words or words[-1] == "and":
        return None
    return Fraction(-(total + group) if negative else total + group)


def counts_in_words(text: str) -> bool:
    """Whether a number is among the words."""
    return any(word.lower() in NUMBER_WORDS for word in _WORDS.findall(text))


def changes_the_number(text: str, allowed: frozenset[str] = frozenset()) -> bool:
    """Whether a word of ``text`` denies, scales, bounds or doubles a number beside it."""
    words = {word.lower().replace("’", "'") for word in _WORDS.findall(text)}
    return any((word in _CHANGES_THE_NUMBER and word not in allowed) or word.endswith("n't") for word in words)
