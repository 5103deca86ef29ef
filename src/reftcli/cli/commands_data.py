"""`reft recipes ...` and `reft data ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from reftcli.cli import options
from reftcli.cli.console import TerminalProgress, print_json
from reftcli.errors import DataError, UsageError

recipes = typer.Typer(
    help="Settings that come along: list, show, copy, validate.", no_args_is_help=True, rich_markup_mode=None
)
data = typer.Typer(help="Problems: list data sets, show rows, check them.", no_args_is_help=True, rich_markup_mode=None)

RecipeName = Annotated[str, typer.Argument(help="A packaged recipe or a YAML file.")]


@recipes.command("ls")
def list_recipes(json_: options.Json = False) -> None:
    """List the packaged recipes."""
    from reftcli.recipe.layers import read_yaml
    from reftcli.recipe.library import recipe_names, recipe_path

    found = {name: str(read_yaml(recipe_path(name)).get("description", "")) for name in recipe_names()}
    if json_:
        return print_json({"recipes": found})
    for name, description in found.items():
        typer.echo(f"{name:30} {description}")


@recipes.command("show")
def show_recipe(
    recipe: Annotated[str | None, typer.Argument(help="A packaged recipe or a YAML file; none: the defaults.")] = None,
    set_: options.Set = None,
    json_: options.Json = False,
) -> None:
    """Show every resolved setting of a recipe."""
    from reftcli.recipe.layers import recipe_yaml, resolve_recipe

    resolved = resolve_recipe(recipe, {}, set_ or [])
    if json_:
        return print_json(resolved.model_dump())
    typer.echo(recipe_yaml(resolved), nl=False)


@recipes.command("copy")
def copy_recipe(
    recipe: RecipeName, to: Annotated[Path, typer.Argument(help="The new file.")], json_: options.Json = False
) -> None:
    """Copy a packaged recipe to a file of your own."""
    from reftcli.recipe.library import recipe_path
    from reftcli.runs.files import write_text

    source = recipe_path(recipe)
    if to.exists():
        raise UsageError(f"{to} exists; choose another file")
    write_text(to, source.read_text(encoding="utf-8"))
    if json_:
        return print_json({"copied": str(to)})
    typer.echo(f"{to}: edit it, then use --recipe {to}")


@recipes.command("validate")
def validate_recipe(recipe: RecipeName, json_: options.Json = False) -> None:
    """Check a recipe; every error is shown, not only the first."""
    from reftcli.recipe.layers import resolve_recipe

    resolve_recipe(recipe, {})
    if json_:
        return print_json({"valid": recipe})
    typer.echo(f"{recipe}: valid")


@data.command("ls")
def list_data(json_: options.Json = False) -> None:
    """List the data sets that have a name."""
    from reftcli.problems.datasets import dataset_names
    from reftcli.problems.formats.table import described

    names = dataset_names()
    if json_:
        return print_json({"datasets": list(names), "file_formats": described()})
    typer.echo("named: " + ", ".join(names))
    typer.echo(f"or a file, JSON array or JSONL: {described()}")


@data.command("show")
def show_data(
    dataset: Annotated[str, typer.Argument(help="Name or path.")],
    cot: Annotated[options.Form, typer.Option("--cot", help="Form of the chain of thought.")] = options.Form.PCOT,
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "train",
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many.")] = 3,
    set_: options.Set = None,
    json_: options.Json = False,
) -> None:
    """Show the first problems of a split."""
    sets = _sets(_recipe(dataset, cot, set_))
    if split not in ("train", "validation", "test"):
        raise UsageError(f"--split {split!r}: train, validation or test")
    problems = sets.split(split)[:limit]
    if json_:
        fields = ("item_id", "question", "gold_answer", "answer_kind", "options", "chains", "chain_sources", "source")
        return print_json({"problems": [{name: getattr(p, name) for name in fields} for p in problems]})
    for problem in problems:
        typer.echo(f"{problem.item_id} ({problem.source})\n{problem.question}")
        typer.echo(f"-- {cot.value}:\n{problem.chains.get(cot.value, '(none)')}\n-- answer: {problem.gold_answer}\n")


@data.command("check")
def check_data(
    dataset: Annotated[str, typer.Argument(help="Name or path.")],
    cot: Annotated[options.Form, typer.Option("--cot", help="Form of the chain of thought.")] = options.Form.PCOT,
    set_: options.Set = None,
    json_: options.Json = False,
) -> None:
    """Look for bad rows, duplicates, overlap of the splits, and gold answers or chains that do not grade correct."""
    from reftcli.evaluation.gold_check import check_golds
    from reftcli.problems.check import check_problem_sets

    recipe = _recipe(dataset, cot, set_)
    sets = _sets(recipe)
    report = check_problem_sets(sets)
    golds = check_golds(sets, cot.value, recipe.grading, TerminalProgress())
    if json_:
        print_json({**report.as_dict(), "ok": report.ok and not golds.ungradable, "gold": golds.to_json()})
    else:
        _print_check(report, golds)
    if golds.ungradable or not report.ok:
        raise DataError(f"{dataset}: not fit for training as it is; see the findings above")


def _print_check(report: Any, golds: Any) -> None:
    typer.echo("problems: " + ", ".join(f"{split} {n}" for split, n in report.problems.items()))
    for split, sources in report.chain_sources.items():
        typer.echo(f"chains, {split}: " + ", ".join(f"{source} {n}" for source, n in sources.items()))
    for source, correct in golds.correct_by_source.items():
        typer.echo(
            f"chains, {source}: {correct} grade correct, {golds.shares[source]:.1%} of the {golds.answers} problems"
        )
    rows = [*report.rows(), *golds.rows()]
    for severity, split, count, what, examples in rows:
        where = f"{split}: " if split else ""
        typer.echo(f"{severity}: {where}{count} {what}{f'; for example {examples}' if examples else ''}")
    typer.echo(
        f"{golds.answers} gold answers and {golds.chains} gold chains graded" + ("" if rows else "; nothing found")
    )


def _recipe(dataset: str, cot: options.Form, assignments: list[str] | None) -> Any:
    from reftcli.recipe.layers import resolve_recipe

    return resolve_recipe(None, {"data": {"dataset": dataset, "cot": cot.value}}, assignments or [])


def _sets(recipe: Any) -> Any:
    from reftcli.evaluation.data import data_request
    from reftcli.problems.load import load_problem_sets

    return load_problem_sets(data_request(recipe.data))
