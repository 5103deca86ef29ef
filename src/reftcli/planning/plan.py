"""Which profile and micro-batch fit, and what the run then costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reftcli.launch.profiles import PROFILES, Profile
from reftcli.planning.cost import Cost, cost_of
from reftcli.planning.hardware import Hardware
from reftcli.planning.memory import Memory, memory_of
from reftcli.planning.shapes import ModelShape
from reftcli.planning.work import Work


@dataclass(frozen=True, slots=True)
class Option:
    """A profile with the micro-batch that suits it."""

    profile: Profile
    memory: Memory
    needed: int
    """Bytes of the card: the peak with what is held in reserve."""
    fits: bool
    fits_host: bool
    """Whether main memory suffices, where its size is known."""

    def excess(self, gpu_memory: int) -> int:
        """Bytes that the card lacks."""
        return max(0, self.needed - gpu_memory)

    @property
    def processes(self) -> int:
        return self.memory.processes

    @property
    def micro_batch(self) -> int:
        return self.memory.micro_batch


@dataclass(frozen=True, slots=True)
class Remedy:
    """Settings under which a profile would fit."""

    assignments: tuple[str, ...]
    profile: Profile
    micro_batch: int


@dataclass(frozen=True, slots=True)
class Saving:
    """Another profile that fits, too, and by the assumptions costs less than the one that was chosen."""

    profile: Profile
    price: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer. ``chosen``: the profile asked for, else the cheapest that fits, else None.

    Cheapest in effort: the first in the order of profiles, each of which divides more than the one before. The bill may
    differ: see ``saving``.
    """

    shape: ModelShape
    work: Work
    hardware: Hardware
    options: Sequence[Option]
    chosen: Option | None
    shown: Option
    """The option whose phases and cost are given: the chosen one, else the one that needs least."""
    cost: Cost
    remedy: Remedy | None
    saving: Saving | None = None

    @property
    def fits(self) -> bool:
        return self.chosen is not None and self.chosen.fits


def make_plan(
    shape: ModelShape, work: Work, hardware: Hardware, profile: Profile | None = None, micro_batch: int | None = None
) -> Plan:
    """Tries the profiles in their order and takes the first that fits.

    Args:
        profile: try only this one.
        micro_batch: sequences per forward pass and GPU; None: the recipe's, else the largest that fits.
    """
    tried = [profile] if profile else list(PROFILES)
    options = [best_option(shape, work, hardware, name, micro_batch) for name in tried]
    fitting = [option for option in options if option.fits and (profile or is_candidate(option.profile, hardware.gpus))]
    chosen = fitting[0] if fitting else (options[0] if profile else None)
    candidates = [option for option in options if profile or is_candidate(option.profile, hardware.gpus)]
    shown = chosen or min(candidates, key=lambda option: (option.excess(hardware.gpu_memory), option.needed))
    profiles = [option.profile for option in candidates]
    remedy = None if fitting else find_remedy(shape, work, hardware, profiles, micro_batch)
    cost = cost_of(shape, work, shown.profile, shown.micro_batch, hardware)
    saving = None if profile else _saving(shape, work, hardware, fitting, cost.price)
    return Plan(shape, work, hardware, options, chosen, shown, cost, remedy, saving)


_WORTH_TELLING = 0.01
"""Of the price."""


def _saving(
    shape: ModelShape, work: Work, hardware: Hardware, fitting: Sequence[Option], price: float
) -> Saving | None:
    """The one that costs least, where that is not the first."""
    costs = {o.profile: cost_of(shape, work, o.profile, o.micro_batch, hardware).price for o in fitting}
    cheapest = min(costs, key=lambda name: costs[name], default=None)
    if cheapest is None or costs[cheapest] > (1 - _WORTH_TELLING) * price:
        return None
    return Saving(cheapest, costs[cheapest])


def is_candidate(profile: Profile, gpus: int) -> bool:
    """``single`` leaves GPUs idle where there are more, ``multi`` is for two or more."""
    return profile != ("multi" if gpus == 1 else "single")


def best_option(
    shape: ModelShape, work: Work, hardware: Hardware, profile: Profile, micro_batch: int | None = None
) -> Option:
    """The largest micro-batch that fits; where none does, the largest of those that need least."""
    processes = 1 if profile == "single" else hardware.gpus
    share = max(1, work.mini_batch // processes)
    given = micro_batch or work.micro_batch
    sizes = [min(given, share)] if given else list(divisors_down(share))
    found = [_option(memory_of(shape, work, profile, processes, size, hardware.gpu_memory), hardware) for size in sizes]
    return next((option for option in found if option.fits), min(found, key=lambda option: option.needed))


def divisors_down(share: int) -> Iterator[int]:
    """Micro-batches that divide a process's share, the largest first."""
    return (size for size in range(share, 0, -1) if share % size == 0)


def _option(memory: Memory, hardware: Hardware) -> Option:
    needed = hardware.needed(memory.peak)
    host = hardware.host_memory is None or memory.host <= hardware.host_memory * hardware.machines
    return Option(memory.profile, memory, needed, needed <= hardware.gpu_memory and host, host)


_REMEDIES: Mapping[str, Mapping[str, Any]] = {
    "sampling.batch_size=8": {"decode_rows": 8},
    "model.gradient_checkpointing=true": {"checkpointing": True},
    "rl.logprob_chunk=256": {"logprob_chunk": 256},
    "rl.value_model=shared": {"separate_value": False},
    "rl.lora_rank=16": {"lora_rank": 16},
}
"""``--set`` assignments that save memory, and what they change of the work; the least drastic first."""


def find_remedy(
    shape: ModelShape, work: Work, hardware: Hardware, profiles: Sequence[Profile], micro_batch: int | None = None
) -> Remedy | None:
    """What makes a profile fit: smaller micro-batches, else the first setting, alone or with those before it.

    None where all settings together do not. The micro-batch stays the one that was asked for.
    """
    if micro_batch is None and work.micro_batch is not None and (smaller := _smaller(shape, work, hardware, profiles)):
        return smaller
    useful = {
        name: change
        for name, change in _REMEDIES.items()
        if _changes(work, change) and (work.stage == "rl" or not name.startswith("rl."))
    }
    names = list(useful)
    for chosen in [*([name] for name in names), *(names[:count] for count in range(2, len(names) + 1))]:
        changed = replace(work, **{key: value for name in chosen for key, value in useful[name].items()})
        for profile in profiles:
            option = best_option(shape, changed, hardware, profile, micro_batch)
            if option.fits:
                return Remedy(tuple(chosen), profile, option.micro_batch)
    return None


def _smaller(shape: ModelShape, work: Work, hardware: Hardware, profiles: Sequence[Profile]) -> Remedy | None:
    """The largest micro-batch below the recipe's with which a profile fits."""
    for profile in profiles:
        option = best_option(shape, replace(work, micro_batch=None), hardware, profile)
        if option.fits:
            return Remedy((f"{work.stage}.micro_batch_size={option.micro_batch}",), profile, option.micro_batch)
    return None


def _changes(work: Work, change: Mapping[str, Any]) -> bool:
    """Whether a remedy does anything: what is in force already, or goes further, is none."""
    if "decode_rows" in change:
        return work.decode_rows > int(change["decode_rows"])
    if "logprob_chunk" in change or "lora_rank" in change:
        return all(getattr(work, key) is None for key in change)
    return any(getattr(work, key) != value for key, value in change.items())
