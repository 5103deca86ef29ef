"""MathQA's operations, each defined once: how it is written in Python. Their values come from the same text.

Names and argument orders are those of the data set ("reminder", "circumface", "semi_circle_perimiter" included).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from types import CodeType

OPERATIONS: Mapping[str, str] = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "power": "{0} ** {1}",
    "sqrt": "math.sqrt({0})",
    "inverse": "1 / {0}",
    "negate": "-{0}",
    "log": "math.log({0})",
    "floor": "math.floor({0})",
    "round": "round({0})",
    "max": "max({0}, {1})",
    "min": "min({0}, {1})",
    "reminder": "{0} % {1}",
    "gcd": "math.gcd(int({0}), int({1}))",
    "lcm": "math.lcm(int({0}), int({1}))",
    "factorial": "math.factorial(int({0}))",
    "choose": "math.comb(int({0}), int({1}))",
    "combination": "math.comb(int({0}), int({1}))",
    "permutation": "math.perm(int({0}), int({1}))",
    "count_interval": "{0} - {1} + 1",
    "sum_consecutive_number": "({0} + {1}) * ({1} - {0} + 1) / 2",
    "sine": "math.sin({0})",
    "cosine": "math.cos({0})",
    "tangent": "math.tan({0})",
    "radians_to_degress": "math.degrees({0})",
    "radians_to_degree": "math.degrees({0})",
    "degree_to_radians": "math.radians({0})",
    "negate_prob": "1 - {0}",
    "union_prob": "{0} + {1} - {2}",
    "percent": "{0} / 100 * {1}",
    "from_percent": "{0} / 100",
    "to_percent": "{0} * 100",
    "gain_percent": "100 + {0}",
    "loss_percent": "100 - {0}",
    "negate_percent": "100 - {0}",
    "p_after_gain": "(1 + {0} / 100) * {1}",
    "price_after_gain": "(1 + {0} / 100) * {1}",
    "p_after_loss": "(1 - {0} / 100) * {1}",
    "price_after_loss": "(1 - {0} / 100) * {1}",
    "original_price_before_gain": "{1} * 100 / (100 + {0})",
    "original_price_before_loss": "{1} * 100 / (100 - {0})",
    "speed": "{0} / {1}",
    "speed_in_still_water": "({0} + {1}) / 2",
    "stream_speed": "({0} + {1}) / 2",  # so the data uses it: "speed of the boat in still water" of 19 and 9 is 14
    "speed_ratio_steel_to_stream": "({0} + {1}) / ({0} - {1})",
    "combined_work": "1 / (1 / {0} + 1 / {1})",
    "find_work": "1 / (1 / {0} - 1 / {1})",
    "square_area": "{0} ** 2",
    "square_perimeter": "4 * {0}",
    "square_edge_by_area": "math.sqrt({0})",
    "square_edge_by_perimeter": "{0} / 4",
    "side_by_diagonal": "math.sqrt({0} ** 2 - {1} ** 2)",
    "diagonal": "math.sqrt({0} ** 2 + {1} ** 2)",
    "rectangle_area": "{0} * {1}",
    "rectangle_perimeter": "2 * ({0} + {1})",
    "rhombus_area": "{0} * {1} / 2",
    "rhombus_perimeter": "4 * {0}",
    "quadrilateral_area": "{0} * ({1} + {2}) / 2",
    "trapezium_area": "{0} * ({1} + {2}) / 2",
    "triangle_area": "{0} * {1} / 2",
    "triangle_perimeter": "{0} + {1} + {2}",
    "triangle_area_three_edges": (
        "math.sqrt(({0} + {1} + {2}) * ({1} + {2} - {0}) * ({0} + {2} - {1}) * ({0} + {1} - {2})) / 4"
    ),
    "circle_area": "math.pi * {0} ** 2",
    "circumface": "2 * math.pi * {0}",
    "circle_arc": "{1} / 360 * 2 * math.pi * {0}",
    "circle_sector_area": "{1} / 360 * math.pi * {0} ** 2",
    "semi_circle_perimiter": "math.pi * {0} + 2 * {0}",
    "cube_edge_by_volume": "{0} ** (1 / 3)",
    "volume_cube": "{0} ** 3",
    "volume_cone": "math.pi * {0} ** 2 * {1} / 3",
    "volume_cylinder": "math.pi * {0} ** 2 * {1}",
    "volume_rectangular_prism": "{0} * {1} * {2}",
    "volume_sphere": "4 / 3 * math.pi * {0} ** 3",
    "surface_cone": "math.pi * {0} * ({0} + {1})",
    "surface_cube": "6 * {0} ** 2",
    "surface_cylinder": "2 * math.pi * {0} * ({0} + {1})",
    "surface_rectangular_prism": "2 * ({0} * {1} + {0} * {2} + {1} * {2})",
    "surface_sphere": "4 * math.pi * {0} ** 2",
}

_MAX_POWER_BITS = 4096
_MAX_COUNT = 1000  # of factorials and combinations

_LETTERS = ("a", "b", "c")


def arity(operation: str) -> int:
    """How many arguments an operation of the table takes."""
    return 1 + max(int(index) for index in re.findall(r"\{(\d)\}", OPERATIONS[operation]))


def _compiled() -> dict[str, CodeType]:
    return {name: compile(text.format(*_LETTERS), name, "eval") for name, text in OPERATIONS.items()}


_CODE = _compiled()
_BUILTINS = {"math": math, "max": max, "min": min, "round": round, "int": int}


def apply(operation: str, arguments: Sequence[float]) -> float | None:
    """The value of an operation of the table, or None where it has none (domain, overflow, too large to compute).

    What is evaluated is this table's own text over numbers, never anything from a data set.
    """
    if not _affordable(operation, arguments):
        return None
    names = dict(zip(_LETTERS, arguments, strict=False))
    try:
        value = eval(_CODE[operation], {"__builtins__": {}, **_BUILTINS}, names)
        finite = isinstance(value, int | float) and math.isfinite(value)
    except (ArithmeticError, ValueError, TypeError):
        return None
    return value if finite else None


def _affordable(operation: str, arguments: Sequence[float]) -> bool:
    if operation == "power":
        base, exponent = arguments
        return abs(exponent) * math.log2(abs(base) + 2) <= _MAX_POWER_BITS
    if operation in ("factorial", "choose", "combination", "permutation"):
        return all(abs(argument) <= _MAX_COUNT for argument in arguments)
    return True
