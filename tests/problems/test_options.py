from __future__ import annotations

import pytest

from reftcli.problems.options import options_of, parse_options, render_options, split_options


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a ) 38 , b ) 27.675 , c ) 30", {"A": "38", "B": "27.675", "C": "30"}),
        ("a ) 15,600 , b ) 15,750", {"A": "15,600", "B": "15,750"}),
        ("a ) a ) 3 , b ) 2 , c ) c ) 5", {"A": "3", "B": "2", "C": "5"}),
        ("a ) a ) 11 , b ) b ) 18 , c ) d ) 36", {"A": "11", "B": "18", "C": "36"}),
        ("['a ) 4', 'b ) 4 \u03c0', 'c ) 16']", {"A": "4", "B": "4 \u03c0", "C": "16"}),
        ("a ) 3 ( a + b ) , b ) 5", {"A": "3 ( a + b )", "B": "5"}),
        ("(A) 5 (B) 7 (C) 9", {"A": "5", "B": "7", "C": "9"}),
        ("A. red\nB. blue", {"A": "red", "B": "blue"}),
        ("A) 5\nB) 7", {"A": "5", "B": "7"}),
        ("a ) only one", {}),
        ("no options at all", {}),
    ],
)
def test_parse_options(text: str, options: dict[str, str]) -> None:
    assert parse_options(text) == options


@pytest.mark.parametrize(
    "question",
    [
        "how many ?\na ) 1 , b ) 2 , c ) 3",
        "how many ?\n['a ) 1', 'b ) 2', 'c ) 3']",
        "how many ?\nA) 1\nB) 2\nC) 3",
        "how many ? a ) 1 , b ) 2 , c ) 3",
    ],
)
def test_options_are_found_at_the_end_of_a_question(question: str) -> None:
    assert split_options(question) == ("how many ?", {"A": "1", "B": "2", "C": "3"})


def test_a_question_without_options_stays_whole() -> None:
    question = "f ( a ) = 3 and a . b ) is a slip ?"
    assert split_options(question) == (question, {})


@pytest.mark.parametrize(
    "value",
    [{"a": 1, "b": "2"}, ["1", "2"], "a ) 1 , b ) 2", {"label": ["A", "B"], "text": ["1", "2"]}, ["A) 1", "B) 2"]],
)
def test_options_given_in_any_dress(value: object) -> None:
    assert options_of(value) == {"A": "1", "B": "2"}


def test_options_render_as_mathqa_writes_them() -> None:
    text = "a ) 38 , b ) none of these"
    assert render_options(parse_options(text)) == text
