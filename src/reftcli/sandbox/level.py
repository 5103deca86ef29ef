"""Which protections hold programs in on this machine, in words a person can act on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from reftcli.errors import RuntimeFailure


class Level(StrEnum):
    """The ladder, from the top. There is no rung on which a program runs without a filter of system calls."""

    FULL = "full"
    FILTER = "filter"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Protections:
    """The level in force, and what it rests on."""

    level: Level
    landlock_abi: int = 0
    escapes: tuple[str, ...] = ()

    @classmethod
    def from_handshake(cls, handshake: Mapping[str, Any]) -> Protections:
        """From what a worker found out by trying, in a locked-down child of its own."""
        escapes = tuple(str(name) for name in handshake["escapes"])
        abi = int(handshake["landlock_abi"])
        level = Level.NONE if escapes else Level.FULL if abi else Level.FILTER
        return cls(level, abi, escapes)

    def in_words(self) -> str:
        """One line, for ``reft env``."""
        if self.level is Level.NONE:
            missing = "no seccomp filter can be installed" if "seccomp" in self.escapes else self._possible()
            return f"none ({missing}): programs are not run on this machine"
        filtered = "system calls filtered (no files, network, processes, signals), CPU and memory limited"
        if self.level is Level.FULL:
            return f"full: {filtered}; and Landlock (version {self.landlock_abi})"
        return f"filter: {filtered}; Landlock, the second wall around files, is not available"

    def require_boundary(self) -> None:
        """Raises RuntimeFailure where there is no boundary."""
        if self.level is not Level.NONE:
            return
        found = "seccomp is not available" if "seccomp" in self.escapes else self._possible()
        raise RuntimeFailure(
            f"programs cannot be contained here ({found}), so none is run; use --cot ncot, or a Linux kernel or "
            "container that allows seccomp filters (docker: the default profile does)"
        )

    def _possible(self) -> str:
        return f"still possible: {', '.join(self.escapes)}"
