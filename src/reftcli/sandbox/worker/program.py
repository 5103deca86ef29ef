"""Inside the locked-down child: runs programs and describes their values as tagged plain data.

Whatever a program breaks here (builtins, math, json) it breaks for itself alone; the process ends with it. Programs
that can break nothing run several to a process.
"""

from __future__ import annotations

import ast
import json
import random
import sys
import time
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from . import audit, endless

MAX_TEXT = 4096
MAX_INT_BITS = 8192

_NAME = "program"
_FILE = "<program>"
_MARK = "\ufeff"
"""A byte order mark, which Python takes for an error in a text, but not in a file."""
_SHARED_CPU_S = 0.05
"""After this long a process stops taking further programs, so that none of them pays for its neighbours."""
_dumps = json.dumps


def run_alone(source: str) -> bytes:
    """Executes ``source``, calls its ``solution()``; JSON of ``{"ok": tagged}`` or ``{"error": [name, message]}``."""
    module = types.ModuleType(_NAME)
    sys.modules[_NAME] = module  # dataclasses and typing look a class's module up by name
    for ready in ("math", "sympy"):
        if ready in sys.modules:
            setattr(module, ready, sys.modules[ready])
    random.seed(0)  # Python seeds it afresh in every fork; a verdict must not depend on luck
    dumps = json.dumps
    try:
        return dumps({"ok": _value_of(compile(source.removeprefix(_MARK), _FILE, "exec"), module.__dict__)}).encode()
    except MemoryError:
        return b'{"error": ["MemoryError", ""]}'
    except BaseException as error:  # noqa: BLE001 - the boundary: any end of a program is an outcome
        return dumps({"error": _described(error)}).encode()


def run_shared(sources: Sequence[str], write: Callable[[bytes], object]) -> None:
    """Runs what may share a process; writes one line for each source, in order, ``<how> <CPU seconds> <JSON>``.

    ``how`` is ``done``, ``endless`` (it can never return) or ``alone`` (it needs a process of its own, for what it is
    or for what became of it here). Stops early, between two programs, when its time is used up.
    """
    warnings.simplefilter("ignore")
    lines = b""
    started = time.process_time()
    for source in sources:
        tree = _parse(source)
        nodes = list(ast.walk(tree)) if isinstance(tree, ast.Module) else []
        if isinstance(tree, bytes):
            lines += b"done 0 " + tree + b"\n"
        elif tree is None or not audit.may_share(nodes):
            lines += b"alone 0 \n"
        elif endless.never_returns(tree, nodes):
            lines += b"endless 0 \n"
        else:
            write(lines)  # if this program is the end of the process, what went before it must be known
            before = time.process_time()
            result = _run_audited(tree)
            spent = time.process_time()
            lines = b"alone 0 \n" if result is None else b"done %.5f %s\n" % (spent - before, result)
            if spent - started > _SHARED_CPU_S:
                break
    write(lines)


def _parse(source: str) -> ast.Module | bytes | None:
    """The syntax tree; what a program outside Python's syntax comes to; None where only trying alone can tell."""
    try:
        return ast.parse(source.removeprefix(_MARK), _FILE)
    except (SyntaxError, ValueError) as error:
        return _dumps({"error": _described(error)}).encode()
    except (MemoryError, RecursionError):
        return None


def _run_audited(tree: ast.Module) -> bytes | None:
    """None for a program whose end depends on how much room its process has left."""
    namespace: dict[str, Any] = {"__name__": _NAME, "math": sys.modules["math"]}
    try:
        return _dumps({"ok": _value_of(compile(tree, _FILE, "exec"), namespace)}).encode()
    except (MemoryError, RecursionError):
        return None
    except BaseException as error:  # noqa: BLE001 - the boundary: any end of a program is an outcome
        return _dumps({"error": _described(error)}).encode()
    finally:
        namespace.clear()  # its functions refer to it, and nothing else would ever free it


def _value_of(code: types.CodeType, namespace: dict[str, Any]) -> dict[str, Any]:
    exec(code, namespace)
    return plain(namespace["solution"]())


def _described(error: BaseException) -> list[str]:
    if isinstance(error, KeyError) and error.args == ("solution",):
        return ["NoSolution", _message(error)]
    return [type(error).__name__[:80], _message(error)]


def _message(error: BaseException) -> str:
    try:
        return str(error)[:200]
    except BaseException:  # noqa: BLE001 - the program wrote __str__
        return ""


def plain(value: Any) -> dict[str, Any]:
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
        return {"t": "list"}  # no answer, whatever stands in it
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
    if library == "sympy":
        return {"t": "formula", "v": _latex(value)}
    return {"t": "other", "v": kind.__name__[:80]}


def _latex(value: Any) -> str:
    try:
        return str(sys.modules["sympy"].latex(value))[:MAX_TEXT]
    except Exception:  # noqa: BLE001 - not everything in sympy can be written so
        return ""


def _all_int(parts: list[dict[str, Any]]) -> bool:
    return all(part["t"] == "int" for part in parts)
