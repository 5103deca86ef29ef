"""Equality of texts that differ only in how they are written down."""

from __future__ import annotations

import re
import unicodedata

from reftcli.grading.dress import plain_text

_MAX_DRESSED_CHARS = 2000
"""Longer texts are compared as they stand: undressing them takes time and finds nothing."""

_HEDGE = re.compile(
    r"\b(?:or|nor|not|no|neither|either|maybe|perhaps|possibly|instead|wrong|incorrect)\b|n['’]t\b|\?", re.IGNORECASE
)
_EDGES = " \t\r\n.,;:!\"'“”‘’`*_"  # no question mark: who asks does not answer


def normalised_text(text: str) -> str:
    """Without dress, case, outer punctuation and runs of blanks. Words are never dropped or reordered."""
    if len(text) <= _MAX_DRESSED_CHARS:
        text = plain_text(text)
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(plain.split()).strip(_EDGES)


def hedges(text: str) -> bool:
    """Whether ``text`` offers alternatives, denies or asks, where one plain answer was wanted."""
    return _HEDGE.search(text) is not None
