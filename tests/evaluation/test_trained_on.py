from __future__ import annotations

import json
from pathlib import Path

import pytest

from reftcli.errors import DataError
from reftcli.evaluation.fingerprints import fingerprint, question_fingerprint
from reftcli.evaluation.trained_on import TRAINED_ON, refuse_trained_on, write_trained_on
from reftcli.problems.record import Problem

PROBLEMS = [Problem("a", "How many eggs?", "5"), Problem("b", "How many pens?", "6")]


def prompt_of(problem: Problem) -> str:
    return f"Question: {problem.question}\nAnswer:"


def test_a_reward_model_is_not_tested_on_what_it_was_trained_on(tmp_path: Path) -> None:
    refuse_trained_on(tmp_path, PROBLEMS)  # one that says nothing
    write_trained_on(tmp_path, ["How many cups?", "How many cups?"])
    refuse_trained_on(tmp_path, PROBLEMS)
    write_trained_on(tmp_path, ["How many cups?", " how many\nPENS ?"])
    with pytest.raises(DataError, match=r"trained on samples of 1 of these problems \(first: 'How many pens\?'\)"):
        refuse_trained_on(tmp_path, PROBLEMS)


def test_what_early_versions_kept_is_looked_at_where_prompts_can_be_rendered(tmp_path: Path) -> None:
    (tmp_path / TRAINED_ON).write_text(json.dumps({"prompts": [fingerprint(prompt_of(PROBLEMS[0]))]}))
    refuse_trained_on(tmp_path, PROBLEMS)
    refuse_trained_on(tmp_path, PROBLEMS[1:], prompt_of)
    with pytest.raises(DataError, match=r"1 of these problems \(first: 'How many eggs\?'\)"):
        refuse_trained_on(tmp_path, PROBLEMS, prompt_of)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"questions": 3}'])
def test_a_file_that_does_not_say_it_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / TRAINED_ON).write_text(content)
    with pytest.raises(DataError, match="does not say what the reward model was trained on"):
        refuse_trained_on(tmp_path, PROBLEMS)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [("How many?", " How\n many? ", True), ("How many?", "How many", False), ("3 4", "34", False)],
)
def test_fingerprints_ignore_white_space_at_most(a: str, b: str, same: bool) -> None:
    assert (fingerprint(a) == fingerprint(b)) == same
    assert (question_fingerprint(a) == question_fingerprint(b)) == same


def test_questions_that_people_call_the_same_have_one_fingerprint() -> None:
    assert question_fingerprint("Ann has 2 eggs. How many?") == question_fingerprint("ann has 2 eggs .  How many ?")
    assert fingerprint("Ann") != fingerprint("ann")
