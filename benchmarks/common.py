"""What every benchmark shares: rounds that take turns, the machine in words, a table or one JSON object."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared/data"


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with ``--json`` and ``--rounds``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--rounds", type=int, default=5, help="how often each contestant runs, in turns")
    return parser


def rates(contestants: Mapping[str, Callable[[int], int]], rounds: int) -> dict[str, list[float]]:
    """Items per second of each contestant and round. They take turns, because these machines are noisy.

    A contestant gets the number of the round (so that it can bring inputs nobody has seen) and returns how many items
    it did. Round -1 is not counted: it starts what is started once.
    """
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(-1, rounds):
        for name, contestant in contestants.items():
            started = time.perf_counter()
            items = contestant(number)
            if number >= 0:
                found[name].append(items / (time.perf_counter() - started))
    return found


def summary(values: list[float]) -> dict[str, float]:
    """Median, least and most of the rounds."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": len(values)}


def machine() -> dict[str, Any]:
    """The machine in words that name no host."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def report(
    name: str, settings: Mapping[str, Any], results: Mapping[str, Any], ratios: Mapping[str, float], as_json: bool
) -> None:
    """A table for people; with ``--json`` one object for programs."""
    if as_json:
        row = {"name": name, "machine": machine(), "settings": settings, "results": results, "ratios": ratios}
        print(json.dumps(row))
        return
    print(f"{name}: {machine()['cpu']}, {machine()['cores']} cores; {settings}", file=sys.stderr)
    width = max(map(len, [*results, *ratios]))
    for key, value in results.items():
        if isinstance(value, Mapping) and "median" in value:
            print(f"{key:{width}}  {value['median']:12,.1f}  ({value['min']:,.1f} to {value['max']:,.1f})")
        else:
            print(f"{key:{width}}  {value}")
    for key, ratio in ratios.items():
        print(f"{key:{width}}  {ratio:12.2f} x")
