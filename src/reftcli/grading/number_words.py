"""English number words, for the policy that reads them."""

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


def number_from_words(text: str) -> Fraction | None:
    """ "minus twenty-five", "two thousand and six"; None for anything that is not wholly a number in words."""
    words = [word for word in re.split(r"[\s-]+", text.strip().lower()) if word and word != "and"]
    negative = bool(words) and words[0] in ("minus", "negative")
    words = words[negative:]
    if not words:
        return None
    total = group = 0
    for word in words:
        if word in _ONES or word in _TENS:
            group += _ONES.get(word, 0) + _TENS.get(word, 0)
        elif word == "hundred":
            group = max(group, 1) * 100
        elif word in SCALES:
            total, group = total + max(group, 1) * SCALES[word], 0
        else:
            return None
    return Fraction(-(total + group) if negative else total + group)
