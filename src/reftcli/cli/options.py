"""Flags that several commands share. Their help is here once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Form(StrEnum):
    """Forms of a chain of thought, as the parser offers them."""

    NCOT = "ncot"
    PCOT = "pcot"


class Kind(StrEnum):
    """Kinds of answers, as the parser offers them."""

    NUMBER = "number"
    CHOICE = "choice"
    MATH = "math"
    TEXT = "text"


class SplitName(StrEnum):
    """Splits that can be measured."""

    VALIDATION = "validation"
    TEST = "test"


class Backend(StrEnum):
    """What can draw completions."""

    TORCH = "torch"
    VLLM = "vllm"


From = Annotated[
    str | None,
    typer.Argument(
        metavar="[FROM]", help="A run, a checkpoint or a model; default: the latest that fits.", show_default=False
    ),
]
Model = Annotated[str | None, typer.Option("--model", help="Alias, hub id or folder.", show_default=False)]
Dataset = Annotated[
    str | None, typer.Option("--dataset", help="Name or path of the problems [default: gsm8k].", show_default=False)
]
TrainFile = Annotated[str | None, typer.Option("--train", help="File of the training problems.", show_default=False)]
ValidationFile = Annotated[
    str | None, typer.Option("--validation", help="File of the validation problems.", show_default=False)
]
TestFile = Annotated[str | None, typer.Option("--test", help="File of the test problems.", show_default=False)]
Cot = Annotated[
    Form | None,
    typer.Option("--cot", help="ncot: natural language; pcot: a program [default: pcot].", show_default=False),
]
Recipe = Annotated[
    str | None, typer.Option("--recipe", "--config", help="Packaged recipe or YAML file.", show_default=False)
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="One setting, e.g. rl.kl_coef=0.05; repeatable.", show_default=False
    ),
]
Sampler = Annotated[
    Backend | None,
    typer.Option("--sampler", help="What draws completions; vllm needs a GPU [default: torch].", show_default=False),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.", show_default=False)]
ReportTo = Annotated[
    str | None,
    typer.Option(
        "--report-to",
        metavar="TRACKERS",
        help="Send metrics to tensorboard, wandb or trackio, too (several with commas) [default: none].",
        show_default=False,
    ),
]
Name = Annotated[str | None, typer.Option("--name", help="Name of the new run.", show_default=False)]
RunsDir = Annotated[
    Path, typer.Option("--runs-dir", "--output-dir", envvar="REFT_RUNS_DIR", help="Folder that holds the runs.")
]
Keep = Annotated[
    int | None,
    typer.Option("--keep", min=1, metavar="N", help="Checkpoints kept, besides best [default: 2].", show_default=False),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run --name, or with the latest unfinished one.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Resolve and check everything; load no weights.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Launch = Annotated[
    str | None,
    typer.Option(
        "--launch",
        metavar="PROFILE",
        help="single, multi (DDP), zero1, zero2, zero3, zero3-offload, or an accelerate configuration "
        "[default: single].",
        show_default=False,
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        "--processes", min=1, help="Over all machines [default: one per GPU of this machine].", show_default=False
    ),
]
Machines = Annotated[int, typer.Option("--machines", min=1, help="The same command runs on each of them.")]
MachineRank = Annotated[int, typer.Option("--machine-rank", min=0, help="Of this machine, from 0.")]
MainAddress = Annotated[
    str | None,
    typer.Option("--main-address", metavar="HOST:PORT", help="Where machine 0 is reached.", show_default=False),
]
RankTimeout = Annotated[
    float, typer.Option("--rank-timeout", min=1, help="Seconds that the others wait for a process.")
]

Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only so many problems.", show_default=False)]

DEFAULT_RUNS_DIR = Path("runs")
DEFAULT_RANK_TIMEOUT = 1800.0
