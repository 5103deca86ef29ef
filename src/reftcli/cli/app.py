"""The command table, and the boundary where errors become one line and an exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import typer

from reftcli.cli import (
    commands_data,
    commands_inspect,
    commands_measure,
    commands_plan,
    commands_samples,
    commands_train,
)
from reftcli.errors import ExitCode, ReftError
from reftcli.launch.worker import current_worker

app = typer.Typer(
    name="reft",
    help=(
        "Reinforced fine-tuning (ReFT): teach a model the shape of an answer (warmup), let it find its own reasoning "
        "with PPO against a grader (rl), and measure it (eval, vote, rerank). Start with `reft demo`."
    ),
    epilog="Every command takes --dry-run, --json and --debug where they make sense; exit codes: 0 ok, 1 runtime "
    "failure, 2 usage, 3 a gate failed, 4 bad data, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.command("warmup")(commands_train.warmup)
app.command("rl")(commands_train.rl)
app.command("eval")(commands_measure.evaluate)
app.command("vote")(commands_samples.vote)
app.command("rerank")(commands_train.rerank)
app.command("grade")(commands_samples.grade)
app.command("compare")(commands_samples.compare)
app.command("report")(commands_inspect.report)
app.command("plan")(commands_plan.plan)
app.command("runs")(commands_inspect.runs)
app.command("env")(commands_inspect.env)
app.command("demo")(commands_train.demo)
app.add_typer(commands_data.recipes, name="recipes")
app.add_typer(commands_data.data, name="data")


def run(arguments: Sequence[str]) -> int:
    """Runs one command; returns its exit code."""
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        workers_get = [*arguments, *(["--debug"] if debug else [])]
        code = app(list(arguments), prog_name="reft", standalone_mode=False, obj=workers_get)
    except ReftError as error:
        return _fail(error, str(error), error.exit_code, debug)
    except typer.Exit as stop:
        return int(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort) as error:
        return _fail(error, "interrupted", ExitCode.INTERRUPTED, debug)
    except BrokenPipeError:
        # The reader of a pipe went away (`reft ... | head`): that is its right.
        sys.stderr.close()
        return ExitCode.OK
    except Exception as error:  # noqa: BLE001 - the boundary of the command line
        return _unexpected(error, debug)
    if code == ExitCode.INTERRUPTED:  # how typer 0.29 hands on a KeyboardInterrupt
        return _fail(KeyboardInterrupt(), "interrupted", ExitCode.INTERRUPTED, debug)
    return int(code or ExitCode.OK)


def _unexpected(error: Exception, debug: bool) -> int:
    """What the parser refuses is said as it words it; anything else is a bug, and says so. One line each."""
    # Typer carries its own copy of click, whose classes cannot be named here; its usage errors know their context.
    context, words = getattr(error, "ctx", None), getattr(error, "format_message", None)
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        print(context.get_help(), file=sys.stderr)
        return int(ExitCode.USAGE)
    if callable(words):
        command = context.command_path if context else "reft"
        message = f"{' '.join(words().split())} (`{command} --help` lists what there is)"
        return _fail(error, message, ExitCode.USAGE, debug)
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    message = f"unexpected {type(error).__name__}: {first} (--debug shows where)"
    return _fail(error, message, ExitCode.RUNTIME, debug)


def _fail(error: BaseException, message: str, code: int, debug: bool) -> int:
    worker = current_worker()
    if debug:
        traceback.print_exception(error, file=sys.stderr if worker is None else sys.__stderr__)
    if worker is not None and worker.reporter is not None:
        worker.reporter.ends(int(code), message, unexpected=not isinstance(error, ReftError))
        # To end in order is no failure of a worker: the launcher would end the others, who are still writing.
        in_order = isinstance(error, ReftError) and code in (ExitCode.OK, ExitCode.INTERRUPTED)
        return 0 if in_order else int(code)
    if worker is not None and worker.rank:
        print(f"reft: rank {worker.rank}: {message.splitlines()[0]}", file=sys.__stderr__)
        return int(code)
    for line in message.splitlines():
        print(f"reft: {line}", file=sys.stderr)
    return int(code)
