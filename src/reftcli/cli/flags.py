"""The flags that commands share, and the recipe that comes out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reftcli.recipe.layers import check_recipe, merge, parse_assignments, read_yaml, resolve_recipe
from reftcli.recipe.schema import Recipe
from reftcli.runs.folder import Run


@dataclass(frozen=True, slots=True)
class Flags:
    """The flags that set settings, and those that say where to start and write."""

    recipe: str | None = None
    assignments: Sequence[str] = ()
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    runs_dir: Path = Path("runs")

    @classmethod
    def of(
        cls,
        *,
        recipe: str | None,
        assignments: Sequence[str] | None,
        runs_dir: Path,
        model: str | None = None,
        dataset: str | None = None,
        cot: str | None = None,
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        sampler: str | None = None,
        seed: int | None = None,
        report_to: str | None = None,
        keep: int | None = None,
    ) -> Flags:
        """Flags that were not given leave the recipe alone."""
        data = {"dataset": dataset, "cot": cot, "train": train, "validation": validation, "test": test}
        values: dict[str, Any] = {"model": {"name": model}, "data": data, "rl": {"keep": keep}}
        values["sampling"] = {"backend": sampler}
        given = {section: {k: v for k, v in fields.items() if v is not None} for section, fields in values.items()}
        given = {section: fields for section, fields in given.items() if fields}
        if seed is not None:
            given["seed"] = seed  # type: ignore[assignment]
        if report_to is not None:
            given["report_to"] = report_to  # type: ignore[assignment]
        return cls(recipe, tuple(assignments or ()), given, runs_dir)

    def resolve(self) -> Recipe:
        """Built-in default < recipe < flags and ``--set``."""
        return _usable(resolve_recipe(self.recipe, self.values, self.assignments))

    def resolve_from(self, run: Run) -> Recipe:
        """As `resolve`, with the settings of an earlier run in the place of the recipe where none is given."""
        if self.recipe is not None:
            return self.resolve()
        layers = [read_yaml(run.recipe_file), self.values, parse_assignments(self.assignments)]
        return _usable(check_recipe(merge(layers), str(run.recipe_file)))


def _usable(recipe: Recipe) -> Recipe:
    """The recipe; raises UsageError before a run is made where its template or its sampler cannot be used here."""
    if recipe.prompt.template not in ("paper", "chat"):
        from reftcli.problems.prompts import read_template

        read_template(recipe.prompt.template)
    if recipe.sampling.backend == "vllm":
        from reftcli.sampling.vllm_sampler import check_vllm

        check_vllm()
    return recipe
