"""Inside the locked-down child: runs one program and describes its value as tagged plain data.

Whatever the program breaks here (builtins, math, json) it breaks for itself alone; the process ends with it.
"""

from __future__ import annotations

import json
import random
import sys
import types
from typing import Any

MAX_TEXT = 4096
MAX_INT_BITS = 8192
MAX_ITEMS = 64

_NAME = "program"


def run(source: str) -> bytes:
    """Executes ``source``, calls its ``solution()``; JSON of ``{"ok": tagged}`` or ``{"error": [name, message]}``."""
    module = types.ModuleType(_NAME)
    sys.modules[_NAME] = module  # dataclasses and typing look a class's module up by name
    for ready in ("math", "sympy"):
        if ready in sys.modules:
            setattr(module, ready, sys.modules[ready])
    random.seed(0)  # Python seeds it afresh in every fork; a verdict must not depend on luck
    dumps = json.dumps
    try:
        exec(compile(source, "<program>", "exec"), module.__dict__)
        return dumps({"ok": plain(module.__dict__["solution"]())}).encode()
    except MemoryError:
        return b'{"error": ["MemoryError", ""]}'
    except KeyError as error:
        name = "NoSolution" if error.args == ("solution",) else "KeyError"
        return dumps({"error": [name, _message(error)]}).encode()
    except BaseException as error:  # noqa: BLE001 - the boundary: any end of a program is an outcome
        return dumps({"error": [type(error).__name__[:80], _message(error)]}).encode()


def _message(error: BaseException) -> str:
    try:
        return str(error)[:200]
    except BaseException:  # noqa: BLE001 - the program wrote __str__
        return ""


def plain(value: Any, depth: int = 0) -> dict[str, Any]:
    """``value`` as tagged plain data: ``t`` names the type, ``v`` holds text or numbers, never an object."""
    if value is None:
        return {"t": "none"}
    if isinstance(value, bool):
        return {"t": "bool", "v": value is True}
    if isinstance(value, int):
        return _integer(int(value))
    if isinstance(value, float):
        return {"t": "float", "v": float.__repr__(value)}
    if isinstance(value, complex):
        return {"t": "complex", "v": [repr(value.real), repr(value.imag)]}
    if isinstance(value, str):
        return {"t": "str", "v": str.__str__(value)[:MAX_TEXT]}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [plain(item, depth + 1) for item in list(value)[:MAX_ITEMS]] if depth < 3 else []
        return {"t": "list", "v": items, "n": len(value)}
    return _library_value(value)


def _integer(value: int) -> dict[str, Any]:
    if value.bit_length() > MAX_INT_BITS:
        return {"t": "hugeint", "v": value.bit_length()}
    return {"t": "int", "v": hex(value)}


def _library_value(value: Any) -> dict[str, Any]:
    """Values of fractions, decimal, numpy and sympy; anything else is named by its type alone."""
    kind = type(value)
    library = str(kind.__module__).partition(".")[0]
    if library == "fractions" or (library == "sympy" and getattr(value, "is_Rational", False) and value.is_finite):
        parts = [_integer(int(value.numerator)), _integer(int(value.denominator))]
        return {"t": "rational", "v": [part["v"] for part in parts]} if _all_int(parts) else parts[0]
    if library == "decimal":
        return {"t": "decimal", "v": str(value)[:MAX_TEXT]}
    if library == "numpy" and getattr(value, "ndim", -1) == 0:
        return plain(value.item())
    if library == "sympy" and getattr(value, "is_number", False):
        return plain(float(value)) if value.is_real is not False else plain(complex(value))
    return {"t": "other", "v": kind.__name__[:80]}


def _all_int(parts: list[dict[str, Any]]) -> bool:
    return all(part["t"] == "int" for part in parts)
