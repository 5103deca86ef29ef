"""Builds graders: from settings, and from the specification saved beside the samples they graded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

from reftcli.errors import UsageError
from reftcli.grading.answers import NcotGrader
from reftcli.grading.interface import Grader
from reftcli.grading.policy import AnswerPolicy
from reftcli.grading.program import ProgramGrader
from reftcli.problems.record import AnswerKind, CotForm

_KEYS = ("type", "form", "answer", "policy", "timeout_s")


def build_grader(
    form: CotForm,
    answer: AnswerKind,
    *,
    policy: AnswerPolicy | None = None,
    timeout_s: float = 2.0,
    workers: int | None = None,
) -> Grader:
    """The grader of a form of chain of thought and a kind of answer. ``timeout_s``: CPU seconds a program, > 0."""
    if form not in get_args(CotForm):
        raise UsageError(f"grader: form must be one of {', '.join(get_args(CotForm))} (got {form!r})")
    if answer not in get_args(AnswerKind):
        raise UsageError(f"grader: answer must be one of {', '.join(get_args(AnswerKind))} (got {answer!r})")
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)) or not 0.05 <= timeout_s <= 3600:
        raise UsageError(f"grader: timeout_s must be between 0.05 and 3600 (got {timeout_s!r})")
    if form == "ncot":
        return NcotGrader(answer, policy, timeout_s)
    return ProgramGrader(answer, policy, timeout_s, workers)


def grader_from_spec(spec: Mapping[str, Any], *, workers: int | None = None) -> Grader:
    """The grader whose ``spec`` this is. Raises UsageError, naming the problem, for one that cannot be read."""
    if not isinstance(spec, Mapping):
        raise UsageError(f"grader specification: expected an object, got {type(spec).__name__}")
    if spec.get("type") != "answer":
        raise UsageError(f"grader specification: unknown type {spec.get('type')!r}; known: answer")
    unknown = sorted(set(spec) - set(_KEYS))
    if unknown:
        raise UsageError(f"grader specification: unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}")
    missing = [key for key in ("form", "answer") if key not in spec]
    if missing:
        raise UsageError(f"grader specification: {missing[0]!r} is missing")
    policy = spec.get("policy", {})
    if not isinstance(policy, Mapping):
        raise UsageError("grader specification: policy must be an object")
    return build_grader(
        cast(CotForm, spec["form"]),
        cast(AnswerKind, spec["answer"]),
        policy=AnswerPolicy.from_mapping(policy),
        timeout_s=spec.get("timeout_s", 2.0),
        workers=workers,
    )
