"""Built-in default < recipe file < flags and ``--set``: layers of plain mappings, merged, then checked once."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from reftcli.errors import RecipeError, UsageError
from reftcli.recipe.library import recipe_path
from reftcli.recipe.schema import Recipe

Layer = Mapping[str, Any]


def resolve_recipe(name_or_path: str | None, overrides: Layer, assignments: Sequence[str] = ()) -> Recipe:
    """The settings in force.

    Args:
        name_or_path: a packaged recipe (``codellama-7b/gsm8k-pcot``) or a YAML file.
        overrides: what the flags say, nested like the YAML.
        assignments: ``key=value`` of ``--set``; they win.

    Raises:
        UsageError: no such recipe, or the file is not YAML.
        RecipeError: settings are wrong; all of them are listed.
    """
    layers: list[Layer] = []
    where = "settings"
    if name_or_path is not None:
        path = recipe_path(name_or_path)
        where = str(path)
        layers.append(read_yaml(path))
    layers += [overrides, parse_assignments(assignments)]
    return check_recipe(merge(layers), where)


def read_yaml(path: Path) -> Layer:
    """The mapping in a YAML file.

    Raises:
        UsageError: unreadable, not YAML, or not a mapping.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{path}: a recipe is a mapping of sections, this is a {type(value).__name__}")
    return value


def parse_assignments(assignments: Iterable[str]) -> Layer:
    """``["rl.kl_coef=0.05"]`` as nested mappings; values are read as YAML (``null``, numbers, ``true``).

    Raises:
        UsageError: no ``=``, or a value that is not YAML.
    """
    layer: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {assignment!r}: expected key=value, for example --set rl.kl_coef=0.05")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {assignment!r}: the value is not YAML: {' '.join(str(error).split())}") from error
        layer = merge([layer, _nested(key.strip().split("."), _number(value))])
    return layer


def _number(value: Any) -> Any:
    # YAML 1.1 reads 1e-5 (no dot) as text.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    return {keys[0]: value} if len(keys) == 1 else {keys[0]: _nested(keys[1:], value)}


def merge(layers: Iterable[Layer]) -> dict[str, Any]:
    """Later layers win, key by key."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = result.get(key)
            if isinstance(old, dict) and isinstance(value, Mapping):
                result[key] = merge([old, value])
            else:
                result[key] = deepcopy(value)
    return result


def check_recipe(values: Layer, where: str) -> Recipe:
    """Values as a recipe.

    Raises:
        RecipeError: one line per wrong setting; an unknown key comes with the nearest known one.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        lines = [_explain(dict(detail)) for detail in error.errors()]
        raise RecipeError("\n".join(f"{where}: {line}" for line in lines)) from None


def _explain(detail: Mapping[str, Any]) -> str:
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location)
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key}{_suggestion(location)}"
    message = detail["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be", "must be")
    given = detail["input"]
    if detail["type"] == "value_error":
        return f"{key or 'recipe'}: {message}"
    return f"{key}: {message} (got {given!r})"


def _suggestion(location: Sequence[str]) -> str:
    keys = setting_keys()
    full = ".".join(location)
    same_name = [key for key in keys if key.rsplit(".", 1)[-1] == location[-1]]
    near = same_name[:1] or difflib.get_close_matches(full, keys, n=1, cutoff=0.6)
    if not near:
        last = difflib.get_close_matches(location[-1], [key.rsplit(".", 1)[-1] for key in keys], n=1, cutoff=0.7)
        near = [key for key in keys if last and key.rsplit(".", 1)[-1] == last[0]][:1]
    return f"; did you mean {near[0]}?" if near else ""


def setting_keys() -> list[str]:
    """Every key that ``--set`` takes, dotted."""
    return [key for key, _, _ in settings_of(Recipe)]


def settings_of(section: type[BaseModel], prefix: str = "") -> list[tuple[str, Any, str]]:
    """(dotted key, default, help) of every setting below a section, in the order of the schema."""
    rows: list[tuple[str, Any, str]] = []
    for name, field in section.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            rows += settings_of(type(default), f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", default, field.description or ""))
    return rows


def recipe_yaml(recipe: Recipe) -> str:
    """Every resolved setting as YAML, reusable with ``--recipe``."""
    return yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True, width=120)


def recipe_sha256(recipe: Recipe) -> str:
    """Hash of the resolved settings."""
    return hashlib.sha256(recipe_yaml(recipe).encode()).hexdigest()
