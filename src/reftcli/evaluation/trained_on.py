"""What a reward model was trained on, kept beside its weights: it must not be tested on that."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from reftcli.errors import DataError
from reftcli.evaluation.fingerprints import fingerprint, question_fingerprint
from reftcli.problems.record import Problem
from reftcli.runs.files import write_json

TRAINED_ON = "trained_on.json"
"""Beside the weights: fingerprints of the questions whose samples it was trained on."""


def write_trained_on(folder: Path, questions: Iterable[str]) -> None:
    """Keeps what `refuse_trained_on` reads beside a reward model's weights."""
    write_json(folder / TRAINED_ON, {"questions": sorted({question_fingerprint(each) for each in questions})})


def refuse_trained_on(
    folder: Path, problems: Sequence[Problem], prompt_of: Callable[[Problem], str] | None = None
) -> None:
    """Nothing happens where the reward model in a folder saw none of these, or does not say what it saw.

    Args:
        prompt_of: renders a prompt. Early versions kept prompts in the place of questions, which another template
            defeats; what they kept is looked at where this is given.

    Raises:
        DataError: it was trained on samples of some, or what it says cannot be read.
    """
    file = folder / TRAINED_ON
    if not file.is_file():
        return
    questions, prompts = _known(file, "questions"), _known(file, "prompts")
    shared = [problem for problem in problems if question_fingerprint(problem.question) in questions]
    if prompts and prompt_of is not None:
        shared += [problem for problem in problems if fingerprint(prompt_of(problem)) in prompts]
    if shared:
        first = " ".join(shared[0].question.split())
        raise DataError(
            f"the reward model in {folder} was trained on samples of {len(shared)} of these problems (first: "
            f"{first[:80]!r}); it must not be tested on problems it was trained on: measure it on other problems"
        )


def _known(file: Path, key: str) -> frozenset[str]:
    try:
        return frozenset(json.loads(file.read_text(encoding="utf-8")).get(key, ()))
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{file}: does not say what the reward model was trained on ({error}); train it again"
        ) from error
