"""Every format, and how the one of a file is chosen."""

from __future__ import annotations

from collections.abc import Sequence

from reftcli.problems.formats.gsm8k import GSM8K
from reftcli.problems.formats.interface import Row, RowFormat
from reftcli.problems.formats.mathqa import MATHQA
from reftcli.problems.formats.openai import OPENAI
from reftcli.problems.formats.plain import PLAIN
from reftcli.problems.formats.reft import REFT
from reftcli.problems.formats.svamp import SVAMP
from reftcli.problems.formats.trl import TRL

FORMATS: tuple[RowFormat, ...] = (REFT, MATHQA, SVAMP, OPENAI, TRL, GSM8K, PLAIN)
"""Most specific keys first: on a tie the earlier one is taken."""


def recognise(rows: Sequence[Row]) -> RowFormat | None:
    """The format that recognises the most rows (so that one odd first row does not decide); None if none fits any."""
    counts = [sum(format_.recognises(row) for row in rows) for format_ in FORMATS]
    best = max(counts, default=0)
    return FORMATS[counts.index(best)] if best else None


def described() -> str:
    """All formats in one line, for an error message."""
    return "; ".join(f"{format_.name} ({format_.keys})" for format_ in FORMATS)
