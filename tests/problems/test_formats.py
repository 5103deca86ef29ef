"""Every format: one good row, and rows that are refused with their reason."""

from __future__ import annotations

from typing import Any

import pytest

from reftcli.problems.formats.interface import BadRow, Place
from reftcli.problems.formats.reft import without_answer_line
from reftcli.problems.formats.table import FORMATS, recognise
from reftcli.problems.record import Problem

PLACE = Place("folder/train.json", 7, 3)
PROGRAM = 'def solution():\n    """How many?"""\n    return 3'
MATHQA = {
    "Problem": "x is 4 and y is 5 . what is y ^ x ?",
    "Rationale": '"5 ^ 4 = 625 . answer : c ."',
    "options": "a ) 24 , b ) 120 , c ) 625 , d ) 720 , e ) 1024",
    "correct": "c",
    "annotated_formula": "power(5, 4)",
    "linear_formula": "power(n1,n0)|",
    "category": "general",
}
GSM8K = {"question": "Half of 48?", "answer": "It is 48/2 = <<48/2=24>>24.\n#### 1,024"}
USER = [{"role": "user", "content": "How many?"}]

# format, row, what its problem has
GOOD: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "ReFT",
        {"item_id": "svamp_0", "question": "How many?", "answer_value": "203.0", "answer_cot": PROGRAM},
        {"item_id": "svamp_0", "gold_answer": "203", "answer_kind": "number", "chains": {"pcot": PROGRAM}},
    ),
    (
        "ReFT",
        {
            "question": "How many?",
            "answer_value": "203.0",
            "answer_cot": "29 * 7 = 203.\n\nTherefore, the answer is <203>.",
        },
        {"item_id": "train_3", "chains": {"ncot": "29 * 7 = 203."}, "chain_sources": {"ncot": "given"}},
    ),
    (
        "ReFT",
        {"item_id": "mathqa_0", "question": "what ?\na ) 38 , b ) 27.675 , c ) 30", "answer_value": "a"},
        {"gold_answer": "A", "answer_kind": "choice", "options": {"A": "38", "B": "27.675", "C": "30"}, "chains": {}},
    ),
    (
        "GSM8K",
        GSM8K,
        {"question": "Half of 48?", "gold_answer": "1024", "chains": {"ncot": "It is 48/2 = 24."}},
    ),
    (
        "plain",
        {"id": 9, "question": "How many?", "answer": 5},
        {"item_id": "9", "gold_answer": "5", "answer_kind": "number"},
    ),
    ("plain", {"question": "Who?", "answer": "Ada Lovelace"}, {"answer_kind": "text"}),
    ("plain", {"question": "Simplify.", "answer": "\\frac{x}{2}"}, {"answer_kind": "math"}),
    ("plain", {"question": "How far?", "answer": "18 dollars"}, {"answer_kind": "number", "gold_answer": "18 dollars"}),
    (
        "plain",
        {"question": "Which?", "answer": "blue", "options": ["red", "blue"]},
        {"answer_kind": "choice", "gold_answer": "B", "options": {"A": "red", "B": "blue"}},
    ),
    (
        "MathQA",
        MATHQA,
        {
            "question": f"{MATHQA['Problem']}\n{MATHQA['options']}",
            "gold_answer": "C",
            "answer_kind": "choice",
            "chains": {"ncot": "5 ^ 4 = 625"},
        },
    ),
    (
        "SVAMP",
        {
            "ID": "chal-1",
            "Body": "Ann has 8 pens",
            "Question": "How many?",
            "Equation": "( 8.0 - 3.0 )",
            "Answer": "5.0",
        },
        {"item_id": "chal-1", "question": "Ann has 8 pens. How many?", "gold_answer": "5"},
    ),
    (
        "OpenAI-style",
        {"messages": [{"role": "developer", "content": "Be brief."}, *USER], "reference_answer": "5", "topic": "x"},
        {"question": "Be brief.\n\nHow many?", "gold_answer": "5"},
    ),
    (
        "OpenAI-style",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "How many?"}]}], "answer": 5.5},
        {"question": "How many?", "gold_answer": "5.5"},
    ),
    (
        "TRL",
        {"prompt": "How many?", "completion": PROGRAM, "answer": "3"},
        {"question": "How many?", "gold_answer": "3", "chains": {"pcot": PROGRAM}},
    ),
    (
        "TRL",
        {"prompt": USER, "completion": [{"role": "assistant", "content": "It is 3."}], "ground_truth": "so #### 3"},
        {"question": "How many?", "gold_answer": "3", "chains": {"ncot": "It is 3."}},
    ),
    ("TRL", {"prompt": USER, "solution": "3"}, {"gold_answer": "3", "chains": {}}),
]


def parse(row: dict[str, Any]) -> tuple[str, Problem]:
    format_ = recognise([row])
    assert format_ is not None
    return format_.name, format_.parse(row, PLACE)


@pytest.mark.parametrize(("name", "row", "expected"), GOOD)
def test_a_good_row(name: str, row: dict[str, Any], expected: dict[str, Any]) -> None:
    found, problem = parse(row)
    assert found == name
    assert {key: getattr(problem, key) for key in expected} == expected
    assert problem.source == "folder/train.json:7"
    assert problem.row == row
    assert set(problem.chains) == set(problem.chain_sources)


def test_every_format_of_the_table_has_a_good_row() -> None:
    assert {name for name, _, _ in GOOD} == {format_.name for format_ in FORMATS}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "How many?", "answer_value": None}, "no gold answer: needs `answer_value`"),
        ({"question": "How many?", "answer_value": " "}, "no gold answer: `answer_value` is empty"),
        ({"question": "", "answer_value": "3"}, "`question` is empty"),
        ({"question": 3, "answer_value": "3"}, "`question` is not text but int"),
        ({"question": "q", "answer_value": True}, "not text or a number but bool"),
        ({"question": "q", "answer_value": float("nan")}, "is nan"),
        ({"question": "q", "answer_value": "3", "answer_cot": ["x"]}, "`answer_cot` is not text but list"),
        ({"question": "q", "answer_value": "3", "answer_cot": "def solution():\n  return ("}, "not valid Python"),
        ({"question": "q\na ) 1 , b ) 2", "answer_value": "e"}, "'e' is none of the options A, B"),
        ({"question": "q", "answer": "It is 3\n#### "}, "nothing stands after `####`"),
        ({**MATHQA, "options": "24 or 120"}, "cannot read the options"),
        ({**MATHQA, "correct": "f"}, "`correct` is 'f'"),
        ({**MATHQA, "Problem": None}, "no `Problem`"),
        ({"Body": "b", "Question": "q", "Answer": None}, "no gold answer: needs `Answer`"),
        ({"messages": USER, "topic": "x"}, "no gold answer: needs `gold_answer` or"),
        (
            {"messages": [*USER, {"role": "assistant", "content": "5"}], "answer": "5"},
            "from 'assistant', not from 'user'",
        ),
        ({"messages": [], "answer": "5"}, "`messages` is not a list of messages"),
        ({"messages": [{"content": "x"}], "answer": "5"}, r"`messages\[0\]` has no role"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}], "answer": "5"}, "content that is not text"),
        ({"prompt": "How many?", "completion": "5"}, "no gold answer"),
        ({"prompt": "How many?", "answer": {"x": 1}}, "not text or a number but dict"),
    ],
)
def test_a_bad_row_says_why(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        parse(row)


@pytest.mark.parametrize(
    ("chain", "kept"),
    [
        ("It is 7.\n\nTherefore, the answer is <7>.", "It is 7."),
        ("It is half. Therefore, the answer is <50%>.", "It is half."),
        ("A duplicate. The answer is <1,203.5>.", "A duplicate."),
        ("It is 7.\nSo the final answer is: 7", "It is 7."),
        ("Therefore, the answer is <7>.", "Therefore, the answer is <7>."),
        ("so the final answer is still 12.0 Skittles.", "so the final answer is still 12.0 Skittles."),
        ("The answer is found by adding. 3 + 4 = 7", "The answer is found by adding. 3 + 4 = 7"),
    ],
)
def test_a_chain_loses_its_own_answer_line(chain: str, kept: str) -> None:
    assert without_answer_line(chain) == kept


def test_one_odd_first_row_does_not_decide_the_format() -> None:
    found = recognise([{"question": "q", "answer": "3"}, GSM8K, GSM8K])
    assert found is not None
    assert found.name == "GSM8K"
    assert recognise([{"text": "x"}]) is None
