"""Documents that are generated from the code: `--check` fails where they are out of date, `--write` makes them new.

They are the reference of settings (``docs/recipes.md``) and of commands (``docs/commands.md``).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from reftcli.recipe.layers import settings_of
from reftcli.recipe.schema import Recipe

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ROOT / "docs" / "recipes.md"
COMMANDS = ROOT / "docs" / "commands.md"
NAMES = (
    "warmup", "rl", "eval", "vote", "rerank", "grade", "compare", "report", "plan", "runs", "recipes", "data", "demo", "env",
)  # fmt: skip


def settings_page() -> str:
    """Every setting: key, default, meaning."""
    lines = [
        "# Settings",
        "",
        "Generated from `src/reftcli/recipe/schema.py` by `make docs`. Defaults are the paper's (arXiv 2401.08967 and its",
        "released scripts) where it has one. A recipe is a YAML file with these sections; `--set KEY=VALUE` sets one key.",
        "Built-in default < recipe < flags < `--set`.",
        "",
        "| Key | Default | Meaning |",
        "|---|---|---|",
    ]
    for key, default, meaning in settings_of(Recipe):
        shown = "" if default in (None, "") else f"`{str(default).lower()}`"
        lines.append(f"| `{key}` | {shown} | {meaning} |")
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """``--help`` of every command."""
    parts = ["# Commands", "", "Generated from `reft COMMAND --help` by `make docs`.", ""]
    for name in NAMES:
        done = subprocess.run(
            [sys.executable, "-m", "reftcli", name, "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={"COLUMNS": "100", "PATH": "/usr/bin:/bin"},
        )
        text = done.stdout.replace("python -m reftcli", "reft").strip()
        parts += [f"## reft {name}", "", "```", *(line.rstrip() for line in text.splitlines()), "```", ""]
    return "\n".join(parts)


def main() -> int:
    """Checks or writes both pages."""
    pages = {SETTINGS: settings_page(), COMMANDS: commands_page()}
    if "--write" in sys.argv:
        for file, text in pages.items():
            file.write_text(text, encoding="utf-8")
        return 0
    stale = [file for file, text in pages.items() if not file.exists() or file.read_text(encoding="utf-8") != text]
    for file in stale:
        print(f"{file.relative_to(ROOT)} is out of date: run `make docs`")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
