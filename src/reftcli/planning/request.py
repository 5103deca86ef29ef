"""From a recipe and a model to a plan, and the short form that `reft rl --dry-run` prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reftcli.errors import ReftError, UsageError
from reftcli.launch.profiles import Profile
from reftcli.models.source import ModelSource, resolve_model
from reftcli.planning.hardware import Hardware
from reftcli.planning.memory import Memory, memory_of
from reftcli.planning.plan import Plan, divisors_down, make_plan
from reftcli.planning.shapes import shape_of
from reftcli.planning.units import gib, short_count
from reftcli.planning.work import PROBLEMS, Stage, Work, carved_from, lengths_of, work_of
from reftcli.problems.load import DataRequest, load_problem_sets
from reftcli.recipe.batches import check_shares
from reftcli.recipe.schema import Recipe

_TOY_PROBLEMS = 6_000


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What was asked for, beside recipe and hardware. Lengths are means in tokens."""

    stage: Stage = "rl"
    profile: Profile | None = None
    micro_batch: int | None = None
    problems: int | None = None
    prompt_tokens: float | None = None
    completion_tokens: float | None = None


def plan_of(recipe: Recipe, hardware: Hardware, request: PlanRequest) -> Plan:
    """The plan of a recipe's stage.

    Raises:
        UsageError: no model is named, or a batch cannot be dealt out to the GPUs.
        ModelUnavailable: the model's shape cannot be reached.
    """
    if recipe.model.name is None:
        raise UsageError("plan needs a model: --model NAME, or a recipe that names one")
    if request.profile != "single":
        check_shares(recipe, request.stage, hardware.gpus)
    shape = shape_of(resolve_model(recipe.model.name, recipe.model.revision))
    problems = request.problems or problems_of(recipe)
    lengths = lengths_of(recipe, request.prompt_tokens, request.completion_tokens)
    work = work_of(recipe, request.stage, shape, problems, lengths)
    return make_plan(shape, work, hardware, request.profile, request.micro_batch)


def problems_of(recipe: Recipe) -> int:
    """Training problems: of a file those in it, of a named data set what its documentation says."""
    data = recipe.data
    path = data.train or (data.dataset if Path(data.dataset).is_file() else None)
    if path is not None:
        sets = load_problem_sets(
            DataRequest(
                data.dataset, data.cot, data.train, data.validation, data.test,
                validation_size=data.validation_size, test_size=data.test_size, split_seed=data.split_seed,
                answer=data.answer,
            )
        )  # fmt: skip
        return min(len(sets.train), data.train_size or len(sets.train))
    if data.dataset == "toy":
        return data.train_size or _TOY_PROBLEMS
    rows = PROBLEMS.get(data.dataset)
    if rows is None:
        raise UsageError(f"data set {data.dataset!r}: give a file, or the number of problems with --problems N")
    return carved_from(rows, recipe)


def short_form(recipe: Recipe, source: ModelSource, profile: Profile, processes: int) -> list[str]:
    """Lines for a dry run of rl: memory per GPU, and tokens; "not checked" where the shape cannot be reached."""
    try:
        shape = shape_of(source)
        problems = problems_of(recipe)
    except ReftError as error:
        return [f"not checked: memory ({error})"]
    work = work_of(recipe, "rl", shape, problems, lengths_of(recipe))
    share = max(1, work.mini_batch // processes)
    micro = min(work.micro_batch or share, share)
    memory = memory_of(shape, work, profile, processes, micro, 0)
    return [*_memory_lines(memory, work), _work_line(work)]


def _memory_lines(memory: Memory, work: Work) -> list[str]:
    phases = ", ".join(f"{phase} {gib(memory.total(phase))}" for phase in memory.phases)
    lines = [
        f"plan: {memory.profile} on {memory.processes} GPU{'s' if memory.processes > 1 else ''}: "
        f"{gib(memory.peak)} GiB each at the peak, in {memory.peak_phase} "
        f"({phases}; micro-batches of {memory.micro_batch})"
    ]
    if memory.profile == "zero3-offload":
        lines.append(f"plan: and {gib(memory.host)} GiB of main memory over all machines")
    if memory.peak_phase in ("update", "scoring") and memory.micro_batch > 1:
        smaller = next(size for size in divisors_down(memory.micro_batch) if size < memory.micro_batch)
        lines.append(f"plan: --set rl.micro_batch_size={smaller} needs less; `reft plan` lists what fits a card")
    if memory.peak_phase == "validation":
        lines.append(f"plan: --set sampling.batch_size={max(1, work.decode_rows // 4)} needs less")
    return lines


def _work_line(work: Work) -> str:
    tokens = work.steps * work.batch * (work.lengths.prompt + work.lengths.completion)
    return f"plan: {work.steps:,} updates of {work.batch} rollouts, about {short_count(tokens)} tokens in all"
