from __future__ import annotations

import ast
import itertools

import pytest

from reftcli.problems.programs import defines_solution, docstring_of, program_header, split_program

QUESTION = "Ann has 3 pens. How many?"


def run(program: str) -> object:
    names: dict[str, object] = {}
    exec(program, names)  # this module's own programs only
    solution = names["solution"]
    assert callable(solution)
    return solution()


@pytest.mark.parametrize(
    "question", ["How many?", "It costs $5, she's sure: \"yes\" or 'no'?", "\u20ac 5 \u2013 3", "a\nb"]
)
def test_an_ordinary_question_is_its_own_docstring(question: str) -> None:
    assert docstring_of(question) == question


def hostile_questions() -> list[str]:
    pieces = [
        '"',
        '""',
        '"""',
        "'''",
        "\\",
        "\\x",
        "\\N{",
        "\n",
        "\r",
        "\x00",
        "\ud800",
        "{x}",
        "def f():",
        "\u2028",
        "a",
    ]
    return ["".join(chosen) for n in (1, 2, 3) for chosen in itertools.product(pieces, repeat=n)]


def test_the_docstring_is_the_question_whatever_it_contains() -> None:
    questions = hostile_questions()
    assert len(questions) > 3000
    for question in questions:
        function = ast.parse(program_header(question) + "\n    return 1").body[0]
        assert isinstance(function, ast.FunctionDef)
        assert ast.get_docstring(function, clean=False) == question


GIVEN = f'def solution():\n    """{QUESTION}"""\n    pens = 3\n\n    # done\n    return pens'


def test_splitting_an_ordinary_program_keeps_every_character() -> None:
    assert program_header(QUESTION) + split_program(GIVEN) == GIVEN


@pytest.mark.parametrize(
    "program",
    [
        GIVEN,
        "def solution():\n    return 3",
        "def solution(): return 3",
        "def solution(): x = 1; return (x +\n  2)",
        'def solution():\n  """q"""\n  if True:\n    return 3',
        'def solution():\n\t"""q"""\n\tif True:\n\t\treturn 3',
        'import math\nfrom math import sqrt\n\ndef solution():\n    """q"""\n    return math.floor(sqrt(9))',
        "K = 3\n\ndef helper(x):\n    return x\n\ndef solution():\n    return helper(K)\n\nprint('ignored')",
        'def solution():\r\n    """q"""\r\n    return 3\r\n',
        "def solution():\n    '''one\n    two'''\n    # first\n    return 3",
        'def solution():\n    """\u00e9\u20ac"""\n    s = "\u20ac"; return len(s) + 2',
    ],
)
def test_header_and_body_make_a_program_again(program: str) -> None:
    body = split_program(program)
    assert body.startswith("\n    ")
    assert run(program_header(QUESTION) + body) == 3


@pytest.mark.parametrize(
    "program", ["x = 1", "def solution(:", "def other():\n    return 1", "def solution():\n return 1\n  x"]
)
def test_what_is_no_program_is_refused(program: str) -> None:
    with pytest.raises(ValueError, match=r"not valid Python|without a solution"):
        split_program(program)


def test_prose_defines_no_solution() -> None:
    assert defines_solution(GIVEN)
    assert not defines_solution("We write def solution(): later")
