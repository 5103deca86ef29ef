"""Evaluations in a run's folder: read, named, and refused where they cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reftcli.errors import DataError
from reftcli.evaluation.saved import Origin, base_labels, evaluation_of, read_results, saved_evaluations
from reftcli.runs.folder import Run, create_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = create_run(tmp_path, stage="rl", name="rl", recipe_yaml="", record={})
    made.results.mkdir()
    made.samples.mkdir()
    return made


def add(run: Run, *labels: str, **results: object) -> None:
    for label in labels:
        run.samples_file(label).write_text("")
        run.results_file(label).write_text(json.dumps({"n": 3, **results}))


def test_repeats_have_the_label_of_the_first(run: Run) -> None:
    add(run, "test", "test-2", "test-10", "file-2024", "step-1-test", "step-1-test-2", "validation")
    run.results_file("file-gone").write_text("{}")  # no samples beside it
    assert base_labels(run) == ["file-2024", "step-1-test", "test", "validation"]


def test_a_file_in_a_run_belongs_to_an_evaluation(run: Run, tmp_path: Path) -> None:
    add(run, "test", voting={"seed": 7}, sampling={"temperature": 2}, limit=3, identity={"weights": "abc"})
    found = evaluation_of(run.samples_file("test"))
    assert found is not None
    assert (found.label, found.problems, found.seed) == ("test", 3, 7)
    assert found.origin == Origin({"weights": "abc"}, {"temperature": 2}, 3)
    assert evaluation_of(run.samples_file("rollouts")) is None
    assert evaluation_of(tmp_path / "elsewhere.jsonl") is None


def test_what_early_versions_wrote_says_less(run: Run) -> None:
    add(run, "test")
    (saved,) = saved_evaluations(run, "test")
    assert (saved.samples_per_problem, saved.has_scores, saved.seed, saved.origin) == (0, False, None, Origin())


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"n": "many"}', "\udcff"])
def test_results_that_cannot_be_read_are_an_error_of_the_data(run: Run, content: str) -> None:
    file = run.results_file("test-6")
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=r"eval/test-6\.json: .*remove it, and evaluate again"):
        read_results(file)
