"""Reads what a program sent back. Its process is not trusted: every part is checked, nothing is unpickled."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

from reftcli.sandbox.interface import OtherValue, Outcome, Status, Value

_TIMEOUTS = {"timeout": "", "stuck": "Waited", "endless": "NeverReturns"}


def read_outcome(how: str, payload: str, cpu_s: float) -> Outcome:
    """What a worker's report means. ``payload`` was written by the program's process: anything may stand in it."""
    if how == "done":
        try:
            return _read_payload(json.loads(payload), cpu_s)
        except (ValueError, RecursionError, OverflowError):
            return Outcome(Status.ERROR, error="UnreadableResult", cpu_s=cpu_s)
    if how in _TIMEOUTS:
        return Outcome(Status.TIMEOUT, error=_TIMEOUTS[how], cpu_s=cpu_s)
    if how == "oversize":
        return Outcome(Status.ERROR, error="ResultTooLarge", cpu_s=cpu_s)
    if how == "exit":
        return Outcome(Status.ERROR, error="EndedItself", cpu_s=cpu_s)
    return Outcome(Status.KILLED, error=how, cpu_s=cpu_s)


def _read_payload(payload: Any, cpu_s: float) -> Outcome:
    if not isinstance(payload, dict):
        raise ValueError("not an object")
    if "ok" in payload:
        value = decode_value(payload["ok"])
        return Outcome(Status.OK, value, cpu_s=cpu_s)
    error = payload.get("error")
    if not (isinstance(error, list) and len(error) == 2 and all(isinstance(part, str) for part in error)):
        raise ValueError("neither value nor error")
    name, message = error[0][:80], error[1][:200]
    return Outcome(Status.MEMORY if name == "MemoryError" else Status.ERROR, None, name, message, cpu_s)


def decode_value(tagged: Any) -> Value:
    """A value from the tagged plain data a child sent. Raises ValueError for anything not in the expected shape.

    The child is not trusted, so every part is checked, and nothing is built that is larger than what was sent.
    """
    if not isinstance(tagged, dict):
        raise ValueError("not a tagged value")
    tag, value = tagged.get("t"), tagged.get("v")
    if tag == "none":
        return None
    if tag == "bool" and isinstance(value, bool):
        return value
    if tag == "list":
        return OtherValue("a list of values")
    if tag == "hugeint":
        return OtherValue("an integer too large to be an answer")
    if tag == "rational" and isinstance(value, list) and len(value) == 2:
        return _rational(*(int(_text(part), 16) for part in value))
    if tag == "complex" and isinstance(value, list) and len(value) == 2:
        return complex(*(float(_text(part)) for part in value))
    return _decode_text(tag, _text(value))


def _decode_text(tag: Any, text: str) -> Value:
    if tag == "int":
        return int(text, 16)
    if tag == "float":
        return float(text)
    if tag == "str":
        return text
    if tag == "decimal":
        return float(text)
    if tag == "formula":
        return OtherValue("a formula", formula=text)
    if tag == "other":
        return OtherValue(f"a value of type {text[:80]}")
    raise ValueError(f"unknown tag {tag!r}")


def _rational(numerator: int, denominator: int) -> Fraction:
    if denominator == 0:
        raise ValueError("a fraction over zero")
    return Fraction(numerator, denominator)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 8192:
        raise ValueError("not a short text")
    return value
