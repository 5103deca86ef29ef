"""The real files: every row loads, and the share of derived programs that give the gold answer does not fall."""

from __future__ import annotations

from pathlib import Path

import pytest

from reftcli.problems.load import load_problem_file
from reftcli.problems.numbers import plain_number
from reftcli.problems.programs import program_header, split_program
from reftcli.problems.record import AnswerKind, Problem


def run(program: str) -> object:
    names: dict[str, object] = {}
    exec(program, names)  # derived by this room: assignments and arithmetic over numbers
    solution = names["solution"]
    assert callable(solution)
    return solution()


def agrees(problem: Problem) -> bool:
    value = run(problem.chains["pcot"])
    if problem.answer_kind == "choice":
        return value == problem.gold_answer
    gold = plain_number(problem.gold_answer)
    assert isinstance(value, int | float)
    assert gold is not None
    return abs(value - float(gold)) <= 0.01 + 1e-9


@pytest.mark.parametrize(
    ("name", "answer", "problems", "share"),
    [
        ("gsm8k/train.jsonl", None, 7473, 0.954),
        ("mathqa/dev.json", None, 4475, 0.664),
        ("mathqa/dev.json", "number", 4204, 0.624),
    ],
)
def test_derived_programs_give_the_gold_answer(
    real_data: Path, name: str, answer: AnswerKind | None, problems: int, share: float
) -> None:
    loaded = load_problem_file(real_data / name, "pcot", answer)
    assert len(loaded) == problems
    derived = [problem for problem in loaded if "pcot" in problem.chains]
    assert len(derived) / len(loaded) >= share
    assert all(agrees(problem) for problem in derived)
    for problem in derived[::10]:
        assert program_header(problem.question) + split_program(problem.chains["pcot"]) == problem.chains["pcot"]


def test_gsm8k_rationales_lose_their_annotations(real_data: Path) -> None:
    loaded = load_problem_file(real_data / "gsm8k" / "train.jsonl", "ncot")
    assert {problem.answer_kind for problem in loaded} == {"number"}
    assert not any(mark in problem.chains["ncot"] for problem in loaded for mark in ("<<", ">>", "####"))
    assert not any("," in problem.gold_answer for problem in loaded)


def test_svamp_chains(real_data: Path) -> None:
    ncot = load_problem_file(real_data / "svamp" / "svamp_nl.json", "ncot")
    assert len(ncot) == 3076
    assert not any("the answer is <" in problem.chains["ncot"].lower() for problem in ncot)
    assert not any(problem.gold_answer.endswith(".0") for problem in ncot)
    pcot = load_problem_file(real_data / "svamp" / "svamp_python_sdp.json", "pcot")
    assert len(pcot) == 3043
    whole = [program_header(problem.question) + split_program(problem.chains["pcot"]) for problem in pcot]
    same = sum(program == problem.chains["pcot"] for program, problem in zip(whole, pcot, strict=True))
    assert same == 3043 - 37  # the 37 whose docstring is not quite the question


def test_mathqa_loads_with_options(real_data: Path) -> None:
    loaded = load_problem_file(real_data / "mathqa" / "dev.json", "ncot")
    assert all(len(problem.options) == 5 and problem.gold_answer in problem.options for problem in loaded)
    as_released = sum(p.question == f"{p.row['Problem'].strip()}\n{p.row['options']}" for p in loaded)
    assert as_released >= 4290  # the rest are printed lists and doubled letters, written as the others are
