"""What was asked for: which profile, on how many processes of how many machines. Checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reftcli.errors import UsageError
from reftcli.launch.profiles import PROFILES

RANK_TIMEOUT_S = 1800.0
"""How long the other processes wait for one, by default."""


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """The flags of a launch. ``processes`` counts those of all machines; None: one per GPU."""

    profile: str | None = None
    """One of `PROFILES`, or the path of an accelerate configuration."""
    processes: int | None = None
    machines: int = 1
    machine_rank: int = 0
    main_address: str | None = None
    """``HOST:PORT`` of the machine of rank 0."""
    rank_timeout_s: float = RANK_TIMEOUT_S

    def __post_init__(self) -> None:
        if self.profile is not None and self.profile not in PROFILES and not Path(self.profile).is_file():
            raise UsageError(
                f"--launch {self.profile}: neither a profile ({', '.join(PROFILES)}) nor the path of an accelerate "
                "configuration"
            )
        self._check_machines()

    def check_alone(self) -> None:
        """Whether one process is what was asked for.

        Raises:
            UsageError: it is not: never silently one process.
        """
        for flag, number in (("--processes", self.processes or 1), ("--machines", self.machines)):
            if number > 1:
                raise UsageError(f"{flag} {number} needs --launch multi, zero1, zero2, zero3 or zero3-offload")

    def _check_machines(self) -> None:
        if not 0 <= self.machine_rank < self.machines:
            raise UsageError(f"--machine-rank {self.machine_rank} must be from 0 to --machines {self.machines} minus 1")
        if self.machines > 1 and self.main_address is None:
            raise UsageError("--machines needs --main-address HOST:PORT, the machine of rank 0, the same on all")
        if self.processes is not None and self.processes % self.machines:
            raise UsageError(f"--processes {self.processes} counts all machines: a multiple of --machines, please")
        if self.main_address is not None:
            self.address  # noqa: B018 - it is checked by reading it

    @property
    def starts_workers(self) -> bool:
        """Whether this command runs in processes of its own making."""
        return self.profile not in (None, "single")

    @property
    def is_own_profile(self) -> bool:
        """Not somebody's accelerate configuration."""
        return self.profile in PROFILES

    @property
    def address(self) -> tuple[str, int] | None:
        """`main_address`, taken apart.

        Raises:
            UsageError: it is not HOST:PORT.
        """
        if self.main_address is None:
            return None
        host, _, port = self.main_address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise UsageError(f"--main-address {self.main_address} must be HOST:PORT")
        return host.strip("[]"), int(port)
