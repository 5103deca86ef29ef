"""The packaged recipes: each is valid, and the commands in its head do what they say."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest

import reftcli.cli.start
from reftcli.cli.app import run
from reftcli.errors import RuntimeFailure, UsageError
from reftcli.recipe.layers import read_yaml, recipe_yaml, resolve_recipe
from reftcli.recipe.library import recipe_names, recipe_path, recipes_folder

NAMES = recipe_names()


def head(name: str) -> str:
    """The comment before the first setting, without its marks."""
    lines = recipe_path(name).read_text(encoding="utf-8").splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.lstrip("# ") for line in lines[:end])


def commands(name: str) -> list[list[str]]:
    found = re.findall(r"^reft (.+)$", head(name), flags=re.MULTILINE)
    return [shlex.split(part.removeprefix("reft ")) for line in found for part in line.split(" && ")]


def test_there_are_recipes() -> None:
    assert len(NAMES) >= 4
    assert {"tiny/toy-ncot", "codellama-7b/gsm8k-pcot", "codellama-7b/gsm8k-ncot"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_valid_and_says_what_it_is(name: str, tmp_path: Path) -> None:
    recipe = resolve_recipe(name, {})
    assert recipe.description
    assert recipe.model.name
    file = tmp_path / "again.yaml"
    file.write_text(recipe_yaml(recipe))
    assert resolve_recipe(str(file), {}) == recipe


@pytest.mark.parametrize("name", NAMES)
def test_its_name_is_its_form(name: str) -> None:
    assert name.endswith(f"-{resolve_recipe(name, {}).data.cot}")


@pytest.mark.parametrize("name", NAMES)
def test_its_head_says_on_what_it_was_run(name: str) -> None:
    assert re.search(r"Run on|not run by us yet", head(name))


@pytest.mark.parametrize("name", NAMES)
def test_its_head_goes_from_warmup_to_eval(name: str) -> None:
    stages = [command[0] for command in commands(name)]
    assert stages == ["warmup", "rl", "eval"]


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_in_its_head_use_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checked with a dry run of each; the problems are not loaded."""

    def no_hub(_: object) -> None:
        raise RuntimeFailure("no hub here")

    monkeypatch.setattr(reftcli.cli.start, "problem_sets", no_hub)
    monkeypatch.setattr(reftcli.cli.start, "reachable", lambda _: "not here")
    monkeypatch.chdir(tmp_path)
    expected = resolve_recipe(name, {})
    for command in commands(name)[:2]:
        assert command[command.index("--recipe") + 1] == name
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert run([*command, "--dry-run", "--json"]) == 0
        resolved = json.loads(out.getvalue())["recipe"]
        without_path = {**resolved, "data": {**resolved["data"], "dataset": expected.data.dataset}}
        assert without_path == expected.model_dump()


@pytest.mark.parametrize("form", ["ncot", "pcot"])
def test_the_papers_settings(form: str) -> None:
    recipe = resolve_recipe(f"codellama-7b/gsm8k-{form}", {})
    assert (recipe.warmup.learning_rate, recipe.warmup.batch_size, recipe.warmup.epochs) == (1e-5, 48, 2)
    assert (recipe.rl.learning_rate, recipe.rl.batch_size, recipe.rl.ppo_epochs) == (3e-7, 32, 2)
    assert recipe.rl.kl_coef == {"ncot": 0.05, "pcot": 0.01}[form]
    assert (recipe.rl.gamma, recipe.rl.lam, recipe.rl.clip_range, recipe.rl.vf_coef) == (1.0, 0.95, 0.2, 5)


def test_names_paths_and_files(tmp_path: Path) -> None:
    assert recipe_path("tiny/toy-ncot") == recipe_path("tiny/toy-ncot.yaml") == recipes_folder() / "tiny/toy-ncot.yaml"
    mine = tmp_path / "mine.yaml"
    mine.write_text("seed: 5")
    assert recipe_path(str(mine)) == mine
    assert read_yaml(recipe_path(str(mine))) == {"seed": 5}


@pytest.mark.parametrize("name", ["", "tiny", "toy-ncot", "../pyproject", "/etc/passwd.yaml", "../recipes/../x"])
def test_what_is_no_recipe(name: str) -> None:
    with pytest.raises(UsageError, match="neither a file nor a packaged recipe"):
        recipe_path(name)


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(UsageError, match=r"did you mean codellama-7b/gsm8k-pcot\?"):
        recipe_path("codellama/gsm8k-pcot")
    with pytest.raises(UsageError, match="`reft recipes ls`"):
        recipe_path("qqqqqq")
