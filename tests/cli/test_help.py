"""`--help`: which commands there are, and that help loads nothing heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import typer.main

from reftcli.cli.app import app

HEAVY = ("torch", "transformers", "trl", "datasets", "numpy", "accelerate")
# pydantic is not among them: typer itself loads it to build its types.
PROMISED = {
    "warmup", "rl", "eval", "vote", "rerank", "grade", "compare", "report", "runs", "demo", "env",
    "recipes ls", "recipes show", "recipes copy", "recipes validate", "data ls", "data show", "data check",
}  # fmt: skip

_HELP_OF_EACH = """
import json, sys
from reftcli.__main__ import main
loaded = {}
for command in json.loads(sys.argv[1]):
    sys.argv = ["reft", *command.split(), "--help"]
    try:
        main()
    except SystemExit as stop:
        loaded[command] = [stop.code, [name for name in json.loads(sys.argv_heavy) if name in sys.modules]]
print(json.dumps(loaded), file=sys.stderr)
"""


def commands(group: object | None = None, prefix: str = "") -> dict[str, object]:
    """Every command by its name on the command line, groups flattened."""
    group = typer.main.get_command(app) if group is None else group
    found: dict[str, object] = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            found |= commands(command, f"{prefix}{name} ")
        else:
            found[f"{prefix}{name}"] = command
    return found


def test_every_promised_command_is_there() -> None:
    assert set(commands()) >= PROMISED


def test_help_of_every_command_loads_nothing_heavy() -> None:
    names = ["", "recipes", "data", *commands()]
    assert len(names) >= 20
    script = _HELP_OF_EACH.replace("sys.argv_heavy", repr(json.dumps(HEAVY)))
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(names)], capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(done.stderr) == {name: [0, []] for name in names}
    assert done.stdout.count("Usage: reft") == len(names)


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_option_and_command_has_help(name: str) -> None:
    command = commands()[name]
    assert command.help  # type: ignore[attr-defined]
    for parameter in command.params:  # type: ignore[attr-defined]
        assert getattr(parameter, "help", None), f"reft {name}: {parameter.name} has no help"


@pytest.mark.parametrize(("world", "policy"), [(None, "None"), ("1", "None"), ("2", "PASSIVE")])
def test_threads_that_wait_sleep_where_processes_share_cores_only(world: str | None, policy: str) -> None:
    """Alone on idle cores, spinning makes the demo's updates 1.5 times as fast."""
    script = (
        "import os, sys; sys.argv = ['reft', '--help']\nfrom reftcli.__main__ import main\n"
        "try: main()\nexcept SystemExit: print(os.environ.get('OMP_WAIT_POLICY'))"
    )
    env = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "WORLD_SIZE", "RANK")}
    env |= {"WORLD_SIZE": world} if world else {}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == policy
