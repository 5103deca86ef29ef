"""How long the phases of an update take."""

from __future__ import annotations

import time
from typing import Literal

import torch

Phase = Literal["rollout", "grading", "scoring", "update"]


class PhaseClock:
    """Seconds of consecutive phases: each runs from the end of the one before it to `end`."""

    def __init__(self, device: torch.device) -> None:
        self._waits = device.type == "cuda"
        self._started = self._last = time.perf_counter()
        self._seconds: dict[str, float] = {}

    def end(self, phase: Phase) -> None:
        """The phase ends now."""
        if self._waits:
            torch.cuda.synchronize()  # else the GPU's work would be counted where its result is first asked for
        now = time.perf_counter()
        self._seconds[f"seconds_{phase}"] = now - self._last
        self._last = now

    def seconds(self) -> dict[str, float]:
        """``seconds``, and ``seconds_<phase>`` of each, which add up to it."""
        return {"seconds": self._last - self._started, **self._seconds}
