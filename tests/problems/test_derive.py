"""Derived programs: hand-worked cases."""

from __future__ import annotations

import math

import pytest

from reftcli.problems.derive import equation, gsm8k, mathqa
from reftcli.problems.derive.operations import OPERATIONS, apply, arity
from reftcli.problems.formats.gsm8k import GSM8K
from reftcli.problems.formats.interface import Place
from reftcli.problems.formats.mathqa import MATHQA, as_numeric
from reftcli.problems.formats.svamp import SVAMP
from reftcli.problems.programs import split_program

PLACE = Place("x.jsonl", 1, 0)


def run(program: str) -> object:
    names: dict[str, object] = {}
    exec(program, names)  # programs derived here, from the rows below
    solution = names["solution"]
    assert callable(solution)
    return solution()


def gsm8k_body(question: str, answer: str) -> list[str] | None:
    program = gsm8k.derive_program(GSM8K.parse({"question": question, "answer": answer}, PLACE))
    return None if program is None else [line.strip() for line in split_program(program).strip().split("\n")]


def test_gsm8k_steps_use_earlier_results() -> None:
    answer = "<<48/2=24>>24 in May.\n48+24 = <<48+24=72>>72 altogether.\n#### 72"
    assert gsm8k_body("She sold 48, then half.", answer) == [
        "step_1 = 48 / 2",
        "step_2 = 48 + step_1",
        "result = step_2",
        "return result",
    ]


def test_gsm8k_program_is_whole_and_runs() -> None:
    row = {"question": 'Half of "48"', "answer": "<<48/2=24>>\n#### 24"}
    program = gsm8k.derive_program(GSM8K.parse(row, PLACE))
    assert program is not None
    docstring = 'Half of "48\\"'  # only the quote at the end needs care
    assert (
        program
        == f'def solution():\n    """{docstring}"""\n    step_1 = 48 / 2\n    result = step_1\n    return result'
    )
    assert run(program) == 24


@pytest.mark.parametrize(
    ("question", "answer", "body"),
    [
        # the number 20 is in the question and its step is used already: the second 20 is the question's
        (
            "20 and 4",
            "<<5*4=20>> <<20+1=21>> <<21+20=41>>\n#### 41",
            ["step_1 = 5 * 4", "step_2 = step_1 + 1", "step_3 = step_2 + 20"],
        ),
        # a step that the result does not rest on is left out, and the rest renumbered
        ("3 and 4", "<<9+9=18>> <<3*4=12>> <<12/2=6>>\n#### 6", ["step_1 = 3 * 4", "step_2 = step_1 / 2"]),
        # the gold is not the last step
        ("3 and 4", "<<3*4=12>> <<12/4=3.0>>\n#### 12", ["step_1 = 3 * 4"]),
        # a rounded result: exact where that leads to the gold
        ("10 for 3", "<<10/3=3.33>> <<3.33*3=10>>\n#### 10", ["step_1 = 10 / 3", "step_2 = step_1 * 3"]),
        # ... and as written where it does not
        ("10 for 3", "<<10/3=3>> <<3*5=15>>\n#### 15", ["step_1 = 3 * 5"]),
        # signs, leading zeros, money, thousands, brackets
        ("q", "<<-(05-.50)*$1,000=-4500>>\n#### -4,500", ["step_1 = -(5 - 0.5) * 1000"]),
        # a step in plain text, left out of the calculator
        (
            "192 at 100",
            "<<96*2=192>> So it cost 192*100=$19,200\n#### 19200",
            ["step_1 = 96 * 2", "step_2 = step_1 * 100"],
        ),
        # a repeated number is no step
        ("6", "<<6=6>> <<6*2=12>>\n#### 12", ["step_1 = 6 * 2"]),
    ],
)
def test_gsm8k_bodies(question: str, answer: str, body: list[str]) -> None:
    found = gsm8k_body(question, answer)
    assert found is not None
    assert found[: len(body)] == body
    assert found[len(body) :] == [f"result = step_{len(body)}", "return result"]


@pytest.mark.parametrize(
    "answer",
    [
        "no annotation\n#### 5",
        "<<2+2=4>>\n#### 5",
        "<<5/0=5>>\n#### 5",
        "<<import os=5>>\n#### 5",
        "<<9**9**9=5>>\n#### 5",
    ],
)
def test_gsm8k_gives_nothing_where_annotations_do_not_lead_to_the_gold(answer: str) -> None:
    assert gsm8k_body("q", answer) is None


def mathqa_row(problem: str, formula: str, options: str, correct: str) -> dict[str, str]:
    return {"Problem": problem, "Rationale": "r", "options": options, "correct": correct, "linear_formula": formula}


def test_mathqa_choice_returns_the_letter() -> None:
    row = mathqa_row("4 questions , 5 choices ?", "power(n1,n0)|", "a ) many , b ) 625 , c ) none of these", "b")
    program = mathqa.derive_program(MATHQA.parse(row, PLACE))
    assert program is None  # one option with a number is no choice
    row["options"] = "a ) 24 , b ) 625 , c ) 1,024 , d ) none of these"
    program = mathqa.derive_program(MATHQA.parse(row, PLACE))
    assert program is not None
    assert split_program(program).split("\n")[1:] == [
        "    n0 = 4",
        "    n1 = 5",
        "    t0 = n1 ** n0",
        '    options = {"A": 24, "B": 625, "C": 1024}',
        "    result = min(options, key=lambda letter: abs(options[letter] - t0))",
        "    return result",
    ]
    assert run(program) == "B"


def test_mathqa_numeric_returns_the_value() -> None:
    formula = "circle_area(n0)|multiply(#0,const_0_25)|add(#1,const_1)"
    row = mathqa_row("radius 2 cm and 1,000 more ?", formula, "a ) 4.14 cm 2 , b ) 9", "a")
    problem = as_numeric(MATHQA.parse(row, PLACE))
    assert problem is not None
    assert (problem.question, problem.gold_answer, problem.options) == ("radius 2 cm and 1,000 more ?", "4.14", {})
    program = mathqa.derive_program(problem)
    assert program is not None
    assert split_program(program).split("\n")[1:] == [
        "    import math",
        "    n0 = 2",
        "    t0 = math.pi * n0 ** 2",
        "    t1 = t0 * 0.25",
        "    t2 = t1 + 1",
        "    result = t2",
        "    return result",
    ]
    assert run(program) == pytest.approx(math.pi + 1)


@pytest.mark.parametrize(
    ("options", "correct", "value"),
    [("a ) 3 : 4 , b ) 2 : 1", "b", "2"), ("a ) 6 \u03c0 cm , b ) 2 \u03c0 cm", "b", "6.28")],
)
def test_mathqa_options_that_are_ratios_or_multiples_of_pi(options: str, correct: str, value: str) -> None:
    row = mathqa_row(f"number {value} ?", "multiply(n0,const_1)", options, correct)
    program = mathqa.derive_program(MATHQA.parse(row, PLACE))
    assert program is not None
    assert run(program) == "B"


@pytest.mark.parametrize(
    "formula",
    [
        "",
        "add(n0,n7)",
        "add(n0,#0)",
        "add(n0)",
        "launch(n0,n1)",
        "add(n0,__import__)",
        "divide(n0,const_0)",
        "power(n0,n0)|power(#0,#0)|power(#1,#1)",
        "factorial(n0)|factorial(#0)|factorial(#1)",
        "negate(n0)|sqrt(#0)",
        "add(n0,n0)",
    ],
)
def test_mathqa_gives_nothing_where_the_formula_does_not_lead_to_the_gold(formula: str) -> None:
    row = mathqa_row("what is 9 ?", formula, "a ) 9 , b ) 50", "a")
    assert mathqa.derive_program(MATHQA.parse(row, PLACE)) is None


def test_every_operation_of_mathqa_has_a_value_and_parses() -> None:
    assert len(OPERATIONS) >= 65
    for name, text in OPERATIONS.items():
        arguments = [5, 4, 3][: arity(name)]
        value = apply(name, arguments)
        assert value is not None, name
        shown = eval(text.format(*arguments), {"math": math})  # the table's own text
        assert value == shown, name


@pytest.mark.parametrize(
    ("name", "arguments", "value"),
    [
        ("stream_speed", [19, 9], 14),
        ("reminder", [17, 5], 2),
        ("original_price_before_loss", [50, 5000], 10000),
        ("original_price_before_gain", [20, 60], 50),
        ("p_after_gain", [14, 14], 15.96),
        ("quadrilateral_area", [4, 15, 9], 48),
        ("triangle_area_three_edges", [3, 4, 5], 6),
        ("permutation", [5, 2], 20),
        ("lcm", [4, 6], 12),
        ("negate_prob", [0.25], 0.75),
        ("surface_cylinder", [8, 3], 552.92),
        ("diagonal", [3, 4], 5),
    ],
)
def test_operations(name: str, arguments: list[float], value: float) -> None:
    assert apply(name, arguments) == pytest.approx(value, abs=0.01)


def test_svamp_equation() -> None:
    row = {"Body": "Ann has 8.", "Question": "Left?", "Equation": "( 8.0 - 3.0 )", "Answer": "5.0"}
    program = equation.derive_program(SVAMP.parse(row, PLACE))
    assert program is not None
    assert split_program(program) == "\n    result = 8 - 3\n    return result"
    assert equation.derive_program(SVAMP.parse({**row, "Answer": "6"}, PLACE)) is None
