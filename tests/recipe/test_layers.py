from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from reftcli.errors import RecipeError, UsageError
from reftcli.recipe.layers import (
    check_recipe,
    merge,
    parse_assignments,
    read_yaml,
    recipe_sha256,
    recipe_yaml,
    resolve_recipe,
    setting_keys,
    settings_of,
)
from reftcli.recipe.schema import Recipe


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix.removesuffix("."): value}
    return {key: leaf for name, below in value.items() for key, leaf in leaves(below, f"{prefix}{name}.").items()}


def errors_of(values: dict[str, Any]) -> list[str]:
    with pytest.raises(RecipeError) as raised:
        check_recipe(values, "mine.yaml")
    return str(raised.value).splitlines()


# Layers.


def test_default_then_recipe_then_flags_then_set(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("rl: {kl_coef: 0.1, gamma: 0.9, lam: 0.8}\n")
    flags = {"rl": {"gamma": 0.7, "lam": 0.6}}
    resolved = resolve_recipe(str(recipe), flags, ["rl.lam=0.5"]).rl
    assert resolved.clip_range == Recipe().rl.clip_range == 0.2
    assert (resolved.kl_coef, resolved.gamma, resolved.lam) == (0.1, 0.7, 0.5)


def test_a_packaged_recipe_is_a_layer() -> None:
    assert Recipe().rl.kl_coef == 0.01
    assert resolve_recipe("codellama-7b/gsm8k-ncot", {}).rl.kl_coef == 0.05
    assert resolve_recipe("codellama-7b/gsm8k-ncot", {"data": {"cot": "pcot"}}).data.cot == "pcot"
    assert resolve_recipe("codellama-7b/gsm8k-ncot", {"rl": {"kl_coef": 0.2}}, ["rl.kl_coef=0.3"]).rl.kl_coef == 0.3


def test_merge_goes_key_by_key_and_leaves_its_layers_alone() -> None:
    first: dict[str, Any] = {"a": {"x": 1, "y": {"z": 2}}, "b": [1]}
    second = {"a": {"y": {"w": 3}}, "b": [2]}
    merged = merge([first, second])
    assert merged == {"a": {"x": 1, "y": {"z": 2, "w": 3}}, "b": [2]}
    merged["a"]["y"]["z"] = 9
    assert first == {"a": {"x": 1, "y": {"z": 2}}, "b": [1]}
    assert second == {"a": {"y": {"w": 3}}, "b": [2]}


def test_null_takes_a_setting_back() -> None:
    assert resolve_recipe("tiny/toy-ncot", {}).rl.updates == 60
    assert resolve_recipe("tiny/toy-ncot", {}, ["rl.updates=null"]).rl.updates is None


# --set.


@pytest.mark.parametrize(
    ("assignments", "layer"),
    [
        (["rl.kl_coef=0.05"], {"rl": {"kl_coef": 0.05}}),
        (["rl.learning_rate=1e-5"], {"rl": {"learning_rate": 1e-5}}),
        (["rl.learning_rate=3E-7"], {"rl": {"learning_rate": 3e-7}}),
        (["rl.updates=null"], {"rl": {"updates": None}}),
        (["rl.whitening=false", "seed=3"], {"rl": {"whitening": False}, "seed": 3}),
        (["model.name=owner/name=x"], {"model": {"name": "owner/name=x"}}),
        (["seed=1", "seed=2"], {"seed": 2}),
        ([" rl.reward.wrong = 0.2"], {"rl": {"reward": {"wrong": 0.2}}}),
        (["rl.reward={wrong: 0, correct: 1}"], {"rl": {"reward": {"wrong": 0, "correct": 1}}}),
        ([], {}),
    ],
)
def test_assignments(assignments: list[str], layer: dict[str, Any]) -> None:
    assert parse_assignments(assignments) == layer


@pytest.mark.parametrize("assignment", ["rl.kl_coef", "=3", " =3", "rl.kl_coef=[1", "rl.kl_coef={"])
def test_assignments_that_are_none(assignment: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        parse_assignments([assignment])


def test_every_setting_can_be_set_and_keeps_its_default() -> None:
    default = Recipe()
    values = leaves(default.model_dump())
    assert len(values) >= 60
    for key, value in values.items():
        assert resolve_recipe(None, {}, [f"{key}={yaml.safe_dump(value, default_flow_style=True)}"]) == default, key


def test_setting_keys_are_every_leaf() -> None:
    assert sorted(setting_keys()) == sorted(leaves(Recipe().model_dump()))


def test_settings_of_gives_default_and_help() -> None:
    rows = {key: (default, meaning) for key, default, meaning in settings_of(Recipe)}
    assert rows["rl.lam"] == (0.95, "lambda of GAE")
    assert rows["model.name"][0] is None


def test_every_section_forbids_what_it_does_not_know() -> None:
    sections = [Recipe, *_sections(Recipe)]
    assert len(sections) >= 10
    assert all(section.model_config.get("extra") == "forbid" for section in sections)


def _sections(section: type[BaseModel]) -> list[type[BaseModel]]:
    below = [f.annotation for f in section.model_fields.values() if isinstance(f.get_default(), BaseModel)]
    return [*below, *(deeper for one in below if one for deeper in _sections(one))]  # type: ignore[list-item]


# Errors.


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"rl": {"klcoef": 1}}, "mine.yaml: unknown key rl.klcoef; did you mean rl.kl_coef?"),
        ({"rl": {"kl_coeff": 1}}, "mine.yaml: unknown key rl.kl_coeff; did you mean rl.kl_coef?"),
        ({"kl_coef": 1}, "mine.yaml: unknown key kl_coef; did you mean rl.kl_coef?"),
        ({"sampling": {"kl_coef": 1}}, "mine.yaml: unknown key sampling.kl_coef; did you mean rl.kl_coef?"),
        ({"rl": {"rewards": {"wrong": 0}}}, "mine.yaml: unknown key rl.rewards"),
        ({"xyzzy": 1}, "mine.yaml: unknown key xyzzy"),
        ({"rl": {"kl_coef": -0.1}}, "mine.yaml: rl.kl_coef: must be greater than or equal to 0 (got -0.1)"),
        ({"rl": {"batch_size": 0}}, "mine.yaml: rl.batch_size: must be greater than or equal to 1 (got 0)"),
        ({"rl": {"kl_coef": float("nan")}}, "mine.yaml: rl.kl_coef: must be a finite number (got nan)"),
        ({"model": {"precision": "fp8"}}, "mine.yaml: model.precision: must be 'auto', 'fp32' or 'bf16' (got 'fp8')"),
        ({"sampling": {"top_p": 0}}, "mine.yaml: sampling.top_p: must be greater than 0 (got 0)"),
        ({"seed": 2**31}, f"mine.yaml: seed: must be less than 2147483648 (got {2**31})"),
        (
            {"rl": {"batch_size": 10, "mini_batch_size": 4}},
            "mine.yaml: rl: batch_size 10 is not a multiple of mini_batch_size 4",
        ),
        (
            {"rl": {"max_total_tokens": 300}},
            "mine.yaml: rl: max_total_tokens 300 leaves no room after max_prompt_tokens 300",
        ),
        (
            {"warmup": {"schedule_epochs": 1}},
            "mine.yaml: warmup: stop_epoch 2 is after the schedule's end, 1",
        ),
    ],
)
def test_one_wrong_setting(values: dict[str, Any], line: str) -> None:
    (found,) = errors_of(values)
    assert found.startswith(line)


def test_all_wrong_settings_are_listed() -> None:
    lines = errors_of({"rl": {"klcoef": 1, "gamma": 2}, "seed": "many", "warmup": {"batch_size": None}})
    assert len(lines) == 4
    assert all(line.startswith("mine.yaml: ") for line in lines)


@pytest.mark.parametrize("section", ["rl", "model"])
@pytest.mark.parametrize("value", [5, None, "x", [1]])
def test_a_section_that_is_none(section: str, value: object) -> None:
    (line,) = errors_of({section: value})
    assert line.startswith(f"mine.yaml: {section}: must be ")


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().seed = 3  # type: ignore[misc]


# Files.


@pytest.mark.parametrize("content", [b"- a\n", b"words", b"rl: [1\n", b"\xff\xfe\xff", b"a: b: c\n"])
def test_files_that_hold_no_recipe(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as raised:
        read_yaml(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.yaml"):
        read_yaml(tmp_path / "absent.yaml")


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("# nothing yet\n")
    assert resolve_recipe(str(tmp_path / "mine.yaml"), {}) == Recipe()


def test_yaml_of_a_recipe_reads_as_the_same_recipe(tmp_path: Path) -> None:
    recipe = resolve_recipe(None, {}, ["description='ümlaut: \"yes\" # no'", "rl.updates=3", "rl.learning_rate=3e-7"])
    file = tmp_path / "mine.yaml"
    file.write_text(recipe_yaml(recipe), encoding="utf-8")
    again = resolve_recipe(str(file), {})
    assert again == recipe
    assert recipe_yaml(again) == recipe_yaml(recipe)
    assert recipe_sha256(again) == recipe_sha256(recipe)


def test_the_hash_is_of_the_settings() -> None:
    assert recipe_sha256(Recipe()) == recipe_sha256(resolve_recipe(None, {"rl": {"kl_coef": 0.01}}))
    assert recipe_sha256(Recipe()) != recipe_sha256(resolve_recipe(None, {"rl": {"kl_coef": 0.02}}))


def test_shuffled_golds_pay_only_for_a_match() -> None:
    table = resolve_recipe(None, {}, ["rl.shuffle_gold=true", "rl.reward.wrong=0.1"]).rl.reward_table
    assert (table.correct, table.wrong, table.no_answer) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("none", "none"),
        ("wandb", "wandb"),
        ("WandB, tensorboard,wandb", "wandb,tensorboard"),
        (["trackio", "wandb"], "trackio,wandb"),
        ([], "none"),
        (None, "none"),
        ("none,wandb", "wandb"),
    ],
)
def test_spellings_of_report_to(given: object, kept: str) -> None:
    assert check_recipe({"report_to": given}, "tests").report_to == kept
