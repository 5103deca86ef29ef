"""A plan as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reftcli.planning.cost import Seconds
from reftcli.planning.plan import Option, Plan
from reftcli.planning.states import PART_NAMES, PARTS
from reftcli.planning.units import duration, gib, short_count

_LABEL = 24


def plan_lines(plan: Plan) -> list[str]:
    """For people: every profile by part, the chosen one by phase, time and cost, and what was assumed."""
    return [
        _heading(plan),
        "",
        *_profiles(plan),
        "",
        *_verdict(plan),
        "",
        *_phases(plan.shown),
        "",
        *_cost(plan),
        "",
        "Assumed:",
        *(f"- {line}" for line in assumptions(plan)),
    ]


def _heading(plan: Plan) -> str:
    hardware, work = plan.hardware, plan.work
    gpus = f"{hardware.gpus} GPU{'s' if hardware.gpus > 1 else ''} of {gib(hardware.gpu_memory)} GiB"
    where = f" in {hardware.machines} machines" if hardware.machines > 1 else ""
    return (
        f"{work.stage} of {plan.shape.name} ({short_count(plan.shape.parameters)} parameters) on {gpus}{where}: "
        f"batch {work.batch}, sequences of up to {work.max_tokens} tokens"
    )


def _profiles(plan: Plan) -> list[str]:
    """One column for each profile, at its peak."""
    options = plan.options
    rows: list[tuple[str, list[str]]] = [("GiB per GPU at the peak", [option.profile for option in options])]
    for part in PARTS:
        amounts = [option.memory.phases[option.memory.peak_phase][part] for option in options]
        if any(any(phase[part] for phase in option.memory.phases.values()) for option in options):
            rows.append((f"  {PART_NAMES[part]}", [gib(amount) for amount in amounts]))
    rows += [
        ("peak", [gib(option.memory.peak) for option in options]),
        ("  of the phase", [option.memory.peak_phase for option in options]),
        ("with reserve", [gib(option.needed) for option in options]),
        ("main memory, all", [gib(option.memory.host) for option in options]),
        ("GPUs", [str(option.processes) for option in options]),
        ("micro-batch", [str(option.micro_batch) for option in options]),
        ("fits", [_fits(option) for option in options]),
    ]
    return _table(rows)


def _fits(option: Option) -> str:
    if option.fits:
        return "yes"
    return "no" if option.fits_host else "no (host)"


def _verdict(plan: Plan) -> list[str]:
    shown, hardware = plan.shown, plan.hardware
    gpus = f"{shown.processes} GPU{'s' if shown.processes > 1 else ''}"
    if plan.fits:
        room = gib(hardware.gpu_memory - shown.needed)
        rank = "cheapest" if plan.saving is None else "first"
        first = "fits" if len(plan.options) == 1 else f"is the {rank} profile that fits"
        lines = [f"{shown.profile} on {gpus} {first}, with micro-batches of {shown.micro_batch}; {room} GiB are left."]
        if shown.profile == "zero3-offload":
            lines.append(f"It needs {gib(shown.memory.host)} GiB of main memory.")
        if plan.saving is not None:
            less, more = _rounded(plan.saving.price), _rounded(plan.cost.price)
            lines.append(f"By what is assumed below {plan.saving.profile} would cost {less} USD instead of {more}.")
        return lines
    what = f"{shown.profile} does not fit" if plan.chosen else f"No profile fits; {shown.profile} comes nearest"
    lines = [f"{what}: {_lack(plan)}."]
    if plan.remedy is None:
        more = "more or larger GPUs are needed" if shown.excess(hardware.gpu_memory) else "more main memory is needed"
        return [*lines, f"No setting that saves memory makes it fit: {more}."]
    how = " ".join(f"--set {assignment}" for assignment in plan.remedy.assignments)
    return [*lines, f"With {how} fits {plan.remedy.profile}, with micro-batches of {plan.remedy.micro_batch}."]


def _lack(plan: Plan) -> str:
    """What the shown option is short of."""
    shown, hardware = plan.shown, plan.hardware
    if over := shown.excess(hardware.gpu_memory):
        return f"{gib(over)} GiB too much, in the phase {shown.memory.peak_phase}"
    each = shown.memory.host / hardware.machines
    return f"it needs {gib(each)} GiB of main memory on each machine, which has {gib(hardware.host_memory or 0)}"


def _phases(option: Option) -> list[str]:
    """One column for each phase of an option."""
    phases = option.memory.phases
    rows: list[tuple[str, list[str]]] = [(f"{option.profile}, GiB by phase", list(phases))]
    for part in PARTS:
        if any(amounts[part] for amounts in phases.values()):
            rows.append((f"  {PART_NAMES[part]}", [gib(amounts[part]) for amounts in phases.values()]))
    rows.append(("together", [gib(option.memory.total(phase)) for phase in phases]))
    return _table(rows)


def _cost(plan: Plan) -> list[str]:
    cost, seconds = plan.cost, plan.cost.seconds_per_step
    parts = ", ".join(
        f"{name} {duration(value)}" for name in Seconds.__slots__ if (value := float(getattr(seconds, name))) >= 0.005
    )
    return [
        f"{cost.steps:,} batches, {short_count(cost.tokens)} tokens, {cost.flops:.3g} FLOPs",
        f"a batch: {duration(seconds.total)} ({parts}); most of it is {seconds.slowest}",
        f"the run on {plan.shown.profile}: {duration(cost.seconds)}, {_rounded(cost.gpu_hours)} GPU-hours, "
        f"{_rounded(cost.price)} USD",
    ]


def _rounded(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def assumptions(plan: Plan) -> list[str]:
    """Every number that was assumed, in words, with the flag that changes it."""
    hardware, work = plan.hardware, plan.work
    lengths, tflops = work.lengths, hardware.tflops if work.bf16 else hardware.fp32_tflops
    completions = f", {work.max_completion} of them completion" if work.samples else ""
    lines = [
        f"memory: every sequence has {work.max_tokens} tokens{completions}",
        f"reserve: {gib(hardware.context)} GiB of CUDA and NCCL (--reserve), {hardware.fragmentation:.0%} unused",
        f"time: prompts of {lengths.prompt:.0f} and completions of {lengths.completion:.0f} tokens, the longest of a "
        f"batch {lengths.longest:.0f} ({lengths.source}; --prompt-tokens, --completion-tokens); {work.problems:,} "
        "problems (--problems)",
        f"{'bf16' if work.bf16 else 'fp32'} products at {tflops:g} TFLOP/s (--tflops; A100 data sheet), "
        f"{hardware.utilisation:.0%} of it used (--utilisation)",
        f"memory {hardware.memory_bandwidth / 1e12:g} TB/s (--memory-bandwidth), links {hardware.link / 1e9:g} GB/s "
        f"(--link), network {hardware.network / 1e9:g} GB/s per GPU (--network); {hardware.bandwidth_use:.0%} of these",
        f"{hardware.price:g} USD per GPU-hour (--price-per-gpu-hour)",
    ]
    if work.samples:
        per_layer = f"at least {hardware.launch_s * 1e3:g} ms per layer and step (eager PyTorch)"
        lines.append(f"decoding: {per_layer}; grading {hardware.grading_per_s:g} programs/s per machine")
    return lines


def _table(rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    widths = [max(7, *map(len, column)) + 2 for column in zip(*(cells for _, cells in rows), strict=True)]
    return [
        f"{label:{_LABEL}}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        for label, cells in rows
    ]


def plan_json(plan: Plan) -> dict[str, Any]:
    """For programs; sizes in bytes, times in seconds."""
    hardware, work = plan.hardware, plan.work
    return {
        "stage": work.stage,
        "model": plan.shape.name,
        "parameters": plan.shape.parameters,
        "gpus": hardware.gpus,
        "machines": hardware.machines,
        "gpu_memory": hardware.gpu_memory,
        "fits": plan.fits,
        "profile": plan.chosen.profile if plan.fits and plan.chosen else None,
        "micro_batch": plan.shown.micro_batch,
        "profiles": {option.profile: _option_json(option) for option in plan.options},
        "saving": None if plan.saving is None else {"profile": plan.saving.profile, "price": plan.saving.price},
        "remedy": None
        if plan.remedy is None
        else {
            "set": list(plan.remedy.assignments),
            "profile": plan.remedy.profile,
            "micro_batch": plan.remedy.micro_batch,
        },
        "cost": {"profile": plan.shown.profile, **plan.cost.to_json()},
        "assumed": assumptions(plan),
    }


def _option_json(option: Option) -> dict[str, Any]:
    memory = option.memory
    return {
        "fits": option.fits,
        "processes": option.processes,
        "micro_batch": option.micro_batch,
        "peak": memory.peak,
        "peak_phase": memory.peak_phase,
        "needed": option.needed,
        "host_memory": memory.host,
        "phases": {phase: {**amounts, "total": memory.total(phase)} for phase, amounts in memory.phases.items()},
    }
