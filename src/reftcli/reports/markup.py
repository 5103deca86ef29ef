"""The one door through which text enters HTML."""

from __future__ import annotations

import html
import re

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")
"""Control characters, lone surrogates (not encodable in UTF-8) and direction overrides (they reorder what follows)."""


def text(value: object) -> str:
    """``str(value)`` that is inert in an element and in a quoted attribute. What cannot be shown becomes U+FFFD."""
    plain = str(value).replace("\r\n", "\n")
    return html.escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", plain), quote=True)


def preformatted(value: str, limit: int = 6_000) -> str:
    """A ``<pre>`` with the text, its middle left out beyond ``limit`` characters (and that said)."""
    if len(value) > limit:
        half = limit // 2
        value = f"{value[:half]}\n[... {len(value) - 2 * half:,} characters left out ...]\n{value[-half:]}"
    # A parser drops the first newline in <pre>: this one is for it.
    return f"<pre>\n{text(value)}</pre>"
