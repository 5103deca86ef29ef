"""Sizes as people write them, and as they read them."""

from __future__ import annotations

import re

from reftcli.errors import UsageError

GIB = 2**30
_SIZE = re.compile(r"\s*([\d.]+)\s*([kmgt]?)(i?)(b?)\s*", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_bytes(text: str, flag: str) -> int:
    """``80GiB`` is 80 x 2^30 bytes, ``80GB`` is 80 x 10^9; ``80G`` and ``80`` are meant as GiB.

    Raises:
        UsageError: no size above 0.
    """
    found = _SIZE.fullmatch(text)
    try:
        number = float(found[1]) if found else 0.0
    except ValueError:
        number = 0.0
    if found is None or number <= 0:
        raise UsageError(f"{flag} {text!r}: expected a size above 0, for example 80GiB or 24GB")
    prefix, binary, byte = found[2].lower(), bool(found[3]), bool(found[4])
    if not prefix and not byte:
        return int(number * GIB)
    base = 1000 if byte and not binary else 1024
    return int(number * base ** _POWER[prefix])


def gib(size: float) -> str:
    """``18.9``: GiB with one digit; more digits below 0.1."""
    if size <= 0:
        return "0"
    return f"{size / GIB:.1f}" if size >= GIB / 10 else f"{max(size / GIB, 0.001):.3f}"


def short_count(number: float) -> str:
    """``6.74 B``: three digits and a letter."""
    for factor, letter in ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k")):
        if number >= factor:
            return f"{number / factor:.3g}{letter}"
    return f"{number:.3g}"


def duration(seconds: float) -> str:
    """``2 d 3 h``, ``4 h 5 min``, ``12 min`` or ``3.4 s``."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
