"""The recipes that come with the package."""

from __future__ import annotations

import difflib
from pathlib import Path

from reftcli.errors import UsageError


def recipes_folder() -> Path:
    """Where the packaged recipes stand: inside the wheel, or at the root of a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "_recipes"
    return packaged if packaged.is_dir() else package.parents[1] / "recipes"


def recipe_names() -> list[str]:
    """Names for ``--recipe``: paths below the folder without ``.yaml``."""
    folder = recipes_folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def recipe_path(name_or_path: str) -> Path:
    """The file of a recipe.

    Raises:
        UsageError: neither a packaged recipe nor a file.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    packaged = recipes_folder() / f"{name_or_path.removesuffix('.yaml')}.yaml"
    if packaged.is_file() and packaged.resolve().is_relative_to(recipes_folder().resolve()):
        return packaged
    near = difflib.get_close_matches(name_or_path, recipe_names(), n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else "; `reft recipes ls` lists those that come along"
    raise UsageError(f"no recipe {name_or_path!r}: neither a file nor a packaged recipe{hint}")
