"""Graders from settings and from specifications."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reftcli.errors import UsageError
from reftcli.grading.build import build_grader, grader_from_spec
from reftcli.grading.policy import AnswerPolicy
from reftcli.problems.record import AnswerKind, CotForm, Problem

SPEC: dict[str, Any] = {"type": "answer", "form": "ncot", "answer": "number"}


@pytest.mark.parametrize("form", ["ncot", "pcot"])
@pytest.mark.parametrize("kind", ["number", "choice", "math", "text"])
def test_specifications_make_the_round_trip(form: CotForm, kind: AnswerKind) -> None:
    if kind == "math" and importlib.util.find_spec("math_verify") is None:
        pytest.skip("math-verify is not installed")
    policy = AnswerPolicy(tolerance=0.5, percent="fraction", option_text=False)
    grader = build_grader(form, kind, policy=policy, timeout_s=1.5)
    spec = json.loads(json.dumps(grader.spec))
    again = grader_from_spec(spec)
    assert again.spec == grader.spec == spec
    assert spec["policy"]["tolerance"] == 0.5
    grader.close()
    again.close()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ([], "expected an object, got list"),
        ({}, "unknown type None"),
        ({"type": "oracle"}, "unknown type 'oracle'"),
        ({"type": "answer", "answer": "number"}, "'form' is missing"),
        ({"type": "answer", "form": "ncot"}, "'answer' is missing"),
        (SPEC | {"form": "poem"}, "form must be one of ncot, pcot (got 'poem')"),
        (SPEC | {"answer": "colour"}, "answer must be one of number, choice, math, text"),
        (SPEC | {"answer": ["number"]}, "answer must be one of"),
        (SPEC | {"extra": 1}, "unknown key 'extra'"),
        (SPEC | {"timeout_s": 0}, "timeout_s must be between"),
        (SPEC | {"timeout_s": "2"}, "timeout_s must be between"),
        (SPEC | {"timeout_s": True}, "timeout_s must be between"),
        (SPEC | {"policy": 5}, "policy must be an object"),
        (SPEC | {"policy": {"tolerence": 1}}, "unknown setting 'tolerence'; known are"),
        (SPEC | {"policy": {"tolerance": -1}}, "tolerance must be a number >= 0"),
        (SPEC | {"policy": {"tolerance": "0.1"}}, "tolerance must be a number >= 0"),
        (SPEC | {"policy": {"tolerance": float("nan")}}, "tolerance must be a number >= 0"),
        (SPEC | {"policy": {"percent": "keep"}}, "percent must be one of drop, fraction"),
        (SPEC | {"policy": {"option_text": "yes"}}, "option_text must be true or false"),
    ],
)
def test_specifications_that_cannot_be_read_are_refused(spec: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        grader_from_spec(spec)
    assert message in str(caught.value)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), UsageError)


def test_the_policy_of_a_specification_is_used() -> None:
    problem = Problem("p", "q", "18")
    strict = grader_from_spec(SPEC | {"policy": {"tolerance": 0}})
    loose = grader_from_spec(SPEC | {"policy": {"tolerance": 1, "last_number": True}})
    assert strict.grade([problem], ["the answer is 18.001"])[0].verdict == "wrong"
    assert loose.grade([problem], ["I count 17.5"])[0].verdict == "correct"


def test_graders_accept_empty_batches_and_refuse_uneven_ones() -> None:
    forms: tuple[CotForm, ...] = ("ncot", "pcot")
    for form in forms:
        grader = build_grader(form, "number", workers=1)
        assert grader.grade([], []) == []
        with pytest.raises(ValueError, match="zip"):
            grader.grade([Problem("p", "q", "1")], [])
        grader.close()


def test_grading_loads_nothing_heavy() -> None:
    script = (
        "import sys, reftcli.grading.build, reftcli.grading.files\n"
        "print(sorted({'torch', 'transformers', 'trl', 'sympy', 'numpy', 'math_verify'} & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}
    assert (
        subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False).stdout
        == "[]\n"
    )
