"""`reft plan`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from reftcli.cli import options
from reftcli.cli.console import print_json
from reftcli.launch.profiles import PROFILES


class StageName(StrEnum):
    """Stages that can be planned."""

    WARMUP = "warmup"
    RL = "rl"
    RERANK = "rerank"


class ProfileName(StrEnum):
    """The launch profiles, as the parser offers them; a test holds that they are all of them."""

    SINGLE = "single"
    MULTI = "multi"
    ZERO1 = "zero1"
    ZERO2 = "zero2"
    ZERO3 = "zero3"
    ZERO3_OFFLOAD = "zero3-offload"


RecipeName = Annotated[
    str | None, typer.Argument(metavar="[RECIPE]", help="Packaged recipe or YAML file.", show_default=False)
]


HostMemory = Annotated[
    str | None,
    typer.Option("--host-memory", help="Of a machine; default: not checked.", show_default=False),
]
Machines = Annotated[int | None, typer.Option("--machines", min=1, help="Default: of 8 GPUs each.", show_default=False)]
OnlyProfile = Annotated[
    ProfileName | None,
    typer.Option("--profile", help="Only this one; default: the cheapest that fits.", show_default=False),
]
MicroBatch = Annotated[
    int | None,
    typer.Option(
        "--micro-batch", min=1, help="Sequences per forward pass and GPU; default: what fits.", show_default=False
    ),
]
Problems = Annotated[
    int | None,
    typer.Option("--problems", min=1, help="Training problems; default: the data set's.", show_default=False),
]
PromptTokens = Annotated[
    float | None, typer.Option("--prompt-tokens", min=1, help="Mean tokens of a prompt.", show_default=False)
]
CompletionTokens = Annotated[
    float | None, typer.Option("--completion-tokens", min=1, help="Mean tokens of a completion.", show_default=False)
]
Tflops = Annotated[
    float | None,
    typer.Option("--tflops", min=0.01, help="Peak of a GPU; default: an A100's, 312 in bf16.", show_default=False),
]
Utilisation = Annotated[
    float, typer.Option("--utilisation", min=0.001, max=1, help="Share of --tflops that training reaches.")
]
MemoryBandwidth = Annotated[float, typer.Option("--memory-bandwidth", min=0.001, help="GB/s of a GPU's memory.")]
Link = Annotated[float, typer.Option("--link", min=0.001, help="GB/s between GPUs of a machine, one direction.")]
Network = Annotated[float, typer.Option("--network", min=0.001, help="GB/s between machines, per GPU.")]


def plan(
    recipe: RecipeName = None,
    model: options.Model = None,
    set_: options.Set = None,
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="GPUs, of all machines.")] = 1,
    gpu_memory: Annotated[str, typer.Option("--gpu-memory", help="Memory of a GPU: 80GiB, 24GB.")] = "80GiB",
    machines: Machines = None,
    host_memory: HostMemory = None,
    profile: OnlyProfile = None,
    micro_batch: MicroBatch = None,
    stage: Annotated[StageName, typer.Option("--stage", help="The stage to plan.")] = StageName.RL,
    problems: Problems = None,
    prompt_tokens: PromptTokens = None,
    completion_tokens: CompletionTokens = None,
    tflops: Tflops = None,
    utilisation: Utilisation = 0.35,
    memory_bandwidth: MemoryBandwidth = 2000,
    link: Link = 300,
    network: Network = 25,
    price: Annotated[float, typer.Option("--price-per-gpu-hour", min=0, help="USD.")] = 2.0,
    reserve: Annotated[str, typer.Option("--reserve", help="Memory of a GPU that CUDA and NCCL hold.")] = "1.5GiB",
    json_: options.Json = False,
) -> None:
    """Say what a run needs before it is started: memory per GPU by part and profile, what fits, tokens, time, cost."""
    from reftcli.planning.hardware import Hardware, machines_for
    from reftcli.planning.request import PlanRequest, plan_of
    from reftcli.planning.show import plan_json, plan_lines
    from reftcli.planning.units import parse_bytes
    from reftcli.recipe.layers import resolve_recipe

    resolved = resolve_recipe(recipe, {"model": {"name": model}} if model else {}, set_ or [])
    rates = {} if tflops is None else {"tflops": tflops, "fp32_tflops": tflops}
    hardware = Hardware(
        gpus,
        machines or machines_for(gpus),
        gpu_memory=parse_bytes(gpu_memory, "--gpu-memory"),
        host_memory=None if host_memory is None else parse_bytes(host_memory, "--host-memory"),
        utilisation=utilisation,
        memory_bandwidth=memory_bandwidth * 1e9,
        link=link * 1e9,
        network=network * 1e9,
        price=price,
        context=parse_bytes(reserve, "--reserve"),
        **rates,
    )
    request = PlanRequest(
        stage.value,
        next((name for name in PROFILES if name == profile), None),
        micro_batch,
        problems,
        prompt_tokens,
        completion_tokens,
    )
    made = plan_of(resolved, hardware, request)
    if json_:
        return print_json(plan_json(made))
    typer.echo("\n".join(plan_lines(made)))
