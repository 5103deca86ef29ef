"""`reft report`, `reft runs` and `reft env`."""

from __future__ import annotations

from typing import Annotated

import typer

from reftcli.cli import options
from reftcli.cli.console import print_json, print_table


def report(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="A run; default: the latest finished RL run.", show_default=False),
    ] = None,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
) -> None:
    """Write a run's page: one HTML file that opens anywhere, offline."""
    from reftcli.cli.find_runs import named_run
    from reftcli.reports.run_page import write_run_page

    found = named_run(run, runs_dir)
    file = found.report_file if dry_run else write_run_page(found)
    if json_:
        return print_json({"report": str(file)})
    typer.echo(str(file))


def runs(runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR, json_: options.Json = False) -> None:
    """List the runs, oldest first."""
    from reftcli.runs.folder import all_runs

    rows = []
    for run in all_runs(runs_dir):
        record = run.record()
        model = record.get("model", {}).get("name", "")
        rows.append(
            {
                "run": run.name,
                "stage": record.get("stage"),
                "status": record.get("status"),
                "model": model,
                "dataset": record.get("dataset"),
                "form": record.get("form"),
                "parent": record.get("parent"),
                "started": record.get("started"),
            }
        )
    if json_:
        return print_json({"runs": rows})
    from rich.table import Table

    table = Table()
    for column in ("run", "stage", "status", "data", "parent", "started"):
        table.add_column(column, overflow="fold")
    for row in rows:
        data = f"{row['dataset']} {row['form']}"
        cells = (row["run"], row["stage"], row["status"], data, row["parent"], row["started"])
        table.add_row(*(str(cell or "") for cell in cells))
    print_table(table)


def env(json_: options.Json = False) -> None:
    """Show what this machine offers: versions, devices, and how programs are contained."""
    import os

    import torch

    from reftcli.runs.folder import package_versions
    from reftcli.sandbox.pool import Pool

    with Pool(1) as pool:
        protections = pool.protections()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts = {
        "versions": package_versions(),
        "cpus": os.cpu_count(),
        "gpus": devices,
        "sandbox": str(protections.level),
        "sandbox_in_words": protections.in_words(),
    }
    if json_:
        return print_json(facts)
    for package, version in package_versions().items():
        typer.echo(f"{package:14} {version or 'not installed'}")
    typer.echo(f"{'devices':14} {', '.join(devices) or f'no GPU, {os.cpu_count()} CPU cores'}")
    typer.echo(f"{'sandbox':14} {protections.in_words()}")
