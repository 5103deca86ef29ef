from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reftcli.errors import DataError, RuntimeFailure, UsageError
from reftcli.problems import load
from reftcli.problems.check import check_problem_sets
from reftcli.problems.datasets import DATASETS, load_hub_split, resolve_dataset
from reftcli.problems.load import SPLITS, DataRequest, ProblemSets, load_problem_file, load_problem_sets
from reftcli.problems.splits import normalised_question


def gsm8k_rows(first: int, count: int) -> list[dict[str, str]]:
    return [
        {"question": f"What is {n} + 1?", "answer": f"It is <<{n}+1={n + 1}>>{n + 1}.\n#### {n + 1}"}
        for n in range(first, first + count)
    ]


def mathqa_row(n: int, right: str = "") -> dict[str, str]:
    options = f"a ) {right or n} , b ) {n + 1} , c ) none of these"
    return {"Problem": f"half of {2 * n} ?", "options": options, "correct": "a", "linear_formula": "divide(n0,const_2)"}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, list[Any]], str]:
    def write_rows(name: str, rows: list[Any]) -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write_rows


def ids(sets: ProblemSets) -> dict[str, list[str]]:
    return {split: [p.item_id for p in sets.split(split)] for split in SPLITS}


def test_missing_splits_are_carved_the_same_in_every_stage(write: Callable[..., str]) -> None:
    path = write("train.jsonl", gsm8k_rows(0, 100))
    request = DataRequest(path, "pcot", validation_size=10, test_size=20)
    sets = load_problem_sets(request)
    assert [len(sets.split(split)) for split in SPLITS] == [70, 10, 20]
    assert ids(sets) == ids(load_problem_sets(request))
    ncot = load_problem_sets(DataRequest(path, "ncot", validation_size=10, test_size=20))
    assert ids(sets) == ids(ncot)


def test_provenance_says_where_everything_came_from(write: Callable[..., str]) -> None:
    rows = [*gsm8k_rows(0, 39), {"question": "Odd?", "answer": "nothing to compute\n#### 3"}]
    path = write("train.jsonl", rows)
    sets = load_problem_sets(DataRequest(path, "pcot", validation_size=4, test_size=20, split_seed=7))
    found = json.loads(json.dumps(sets.provenance))
    assert found["rows"] == {"train": 26, "validation": 4, "test": 10}
    assert found["splits"]["train"]["path"] == path
    assert len(found["splits"]["train"]["sha256"]) == 64
    assert (found["splits"]["train"]["rows"], found["splits"]["train"]["format"]) == (40, "GSM8K")
    assert found["splits"]["test"] == {"carved_from": "train", "seed": 7, "asked": 20, "problems": 10}
    counts: dict[str, int] = {}
    for split in found["chain_sources"].values():
        for source, count in split.items():
            counts[source] = counts.get(source, 0) + count
    assert counts == {"derived from annotations": 39, "none": 1}
    assert found["warnings"] == ["test: 10 problems carved, not 20: at most one in 4 of 40"]


def test_split_files_are_used_whole_and_never_leak_into_validation(write: Callable[..., str]) -> None:
    train, test = write("train.jsonl", gsm8k_rows(0, 80)), write("test.jsonl", gsm8k_rows(60, 40))
    sets = load_problem_sets(DataRequest("gsm8k", "ncot", train=train, test=test, validation_size=10))
    assert [len(sets.split(split)) for split in SPLITS] == [70, 10, 40]
    tested = {normalised_question(p.question) for p in sets.test}
    assert not tested & {normalised_question(p.question) for p in sets.validation}
    assert sets.provenance["warnings"] == ["test: 20 of 40 questions are in train too"]


def test_ids_that_collide_between_files_are_prefixed(write: Callable[..., str]) -> None:
    train = write("a.jsonl", [{**row, "id": n} for n, row in enumerate(gsm8k_rows(0, 8))])
    test = write("b.jsonl", [{**row, "id": n} for n, row in enumerate(gsm8k_rows(50, 2))])
    sets = load_problem_sets(DataRequest(train, "ncot", test=test, validation_size=0))
    assert [p.item_id for p in sets.test] == ["test-0", "test-1"]


def test_a_file_for_evaluation_is_used_whole(write: Callable[..., str]) -> None:
    problems = load_problem_file(write("test.jsonl", gsm8k_rows(0, 5)), "pcot")
    assert [p.item_id for p in problems] == [f"test_{n}" for n in range(5)]
    assert all("pcot" in p.chains for p in problems)


def test_mathqa_numeric_drops_options_and_what_is_no_number(write: Callable[..., str]) -> None:
    path = write("dev.jsonl", [*(mathqa_row(n) for n in range(1, 8)), mathqa_row(9, right="3 : 4")])
    choice = load_problem_file(path, "pcot")
    assert len(choice) == 8
    assert {p.answer_kind for p in choice} == {"choice"}
    for request in (
        DataRequest(path, "pcot", answer="number", validation_size=0, test_size=0),
        DataRequest("mathqa-numeric", "pcot", train=path, validation_size=0, test_size=0),
    ):
        sets = load_problem_sets(request)
        assert [p.gold_answer for p in sets.train] == [str(n) for n in range(1, 8)]
        assert {p.answer_kind for p in sets.train} == {"number"}
        assert not any(p.options or "none of these" in p.question for p in sets.train)
        assert sets.provenance["warnings"] == [f"{path}: 1 of 8 dropped: the right option is no number"]


def test_the_answer_kind_can_be_set(write: Callable[..., str]) -> None:
    path = write("rows.jsonl", gsm8k_rows(0, 4))
    assert {p.answer_kind for p in load_problem_file(path, "ncot", "text")} == {"text"}
    with pytest.raises(DataError, match=r"rows.jsonl:1: answer kind choice .* no options"):
        load_problem_file(path, "ncot", "choice")


def test_mixed_kinds_of_answers_are_pointed_at(write: Callable[..., str]) -> None:
    path = write(
        "rows.jsonl", [{"question": f"q{n}", "answer": answer} for n, answer in enumerate(["1", "2", "many", "4"])]
    )
    sets = load_problem_sets(DataRequest(path, "ncot", validation_size=0, test_size=0))
    assert sets.provenance["warnings"] == [
        f"{path}: kinds of answers are mixed (3 number, 1 text; text first at {path}:3)"
    ]


def test_no_problem_left(write: Callable[..., str]) -> None:
    path = write("dev.jsonl", [mathqa_row(1, right="1 : 2")])
    with pytest.raises(DataError, match="no problem is left"):
        load_problem_sets(DataRequest(path, "ncot", answer="number"))
    with pytest.raises(DataError, match="no problem is left"):
        load_problem_file(path, "ncot", "number")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gsm8", "did you mean gsm8k"),
        ("zzzz", "known are gsm8k, svamp"),
        ("no/such.json", "no such file: no/such.json"),
        ("rows.jsonl", "no such file"),
        (".", "is a folder"),
    ],
)
def test_names_and_paths_that_mean_nothing(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_dataset(name)


def test_hub_ids_mean_the_named_data_set() -> None:
    assert resolve_dataset("openai/gsm8k") == DATASETS["gsm8k"]
    assert resolve_dataset("mathqa-numeric") == DATASETS["mathqa-numeric"]
    assert resolve_dataset("toy") == "toy"


class FakeHub:
    """Answers as ``datasets.load_dataset`` does, and remembers what it was asked."""

    def __init__(self, rows: dict[str, list[Any]]) -> None:
        self.rows = rows
        self.calls: list[tuple[tuple[str, ...], dict[str, str]]] = []

    def __call__(self, *arguments: str, **keywords: str) -> list[Any]:
        self.calls.append((arguments, keywords))
        return self.rows[keywords["split"]]


def test_hub_splits_are_asked_for_by_id_configuration_and_revision() -> None:
    hub = FakeHub({"train": gsm8k_rows(0, 3), "validation": [mathqa_row(3)]})
    loaded = load_hub_split(DATASETS["gsm8k"], "train", hub)
    assert [p.source for p in loaded.problems] == [f"openai/gsm8k/train:{n}" for n in (1, 2, 3)]
    load_hub_split(DATASETS["mathqa"], "validation", hub)
    assert hub.calls == [
        (("openai/gsm8k", "main"), {"split": "train"}),
        (("allenai/math_qa",), {"split": "validation", "revision": "refs/convert/parquet"}),
    ]


def test_the_library_itself_reads_small_files_of_the_same_shape(tmp_path: Path, write: Callable[..., str]) -> None:
    datasets = pytest.importorskip("datasets")
    path = write("train.jsonl", gsm8k_rows(0, 3))

    def local(*_: str, split: str) -> Any:
        return datasets.load_dataset("json", data_files={split: path}, split=split, cache_dir=str(tmp_path / "cache"))

    loaded = load_hub_split(DATASETS["gsm8k"], "train", local)
    assert [p.gold_answer for p in loaded.problems] == ["1", "2", "3"]
    assert loaded.sha256 == load_hub_split(DATASETS["gsm8k"], "train", FakeHub({"train": gsm8k_rows(0, 3)})).sha256


def test_named_data_set_uses_its_own_test_split_and_carves_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub({"train": gsm8k_rows(0, 40), "test": gsm8k_rows(100, 9)})
    monkeypatch.setattr(load, "load_hub_split", lambda entry, split: load_hub_split(entry, split, hub))
    sets = load_problem_sets(DataRequest("gsm8k", "pcot", validation_size=10))
    assert [len(sets.split(split)) for split in SPLITS] == [30, 10, 9]
    assert sets.provenance["splits"]["test"]["path"] == "openai/gsm8k/test"


def test_a_hub_out_of_reach_is_one_line_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: str, **__: str) -> Any:
        raise ConnectionError("Couldn't reach the Hub\nand more")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RuntimeFailure) as caught:
        load_hub_split(DATASETS["svamp"], "test", unreachable)
    message = str(caught.value)
    assert "\n" not in message
    assert "ChilleD/SVAMP cannot be loaded from the hub (Couldn't reach the Hub)" in message
    assert "unset HF_HUB_OFFLINE" in message
    assert "--dataset PATH" in message


def test_toy_is_generated() -> None:
    sets = load_problem_sets(DataRequest("toy", "pcot", level=1, train_size=30, validation_size=5, test_size=6))
    assert [len(sets.split(split)) for split in SPLITS] == [30, 5, 6]
    assert sets.provenance["splits"]["train"]["path"] == "toy"
    with pytest.raises(UsageError, match="level"):
        load_problem_sets(DataRequest("toy", "pcot", level=9))
    with pytest.raises(UsageError, match="do not go with"):
        load_problem_sets(DataRequest("toy", "pcot", test="x.json"))


def test_check_names_each_kind_of_trouble(write: Callable[..., str]) -> None:
    rows = gsm8k_rows(0, 10)
    train = write("train.jsonl", [*rows, rows[0], {"question": "what is 1 + 1 ?", "answer": "No sum.\n#### 3"}])
    test = write("test.jsonl", [rows[4], {"question": "x" * 2000, "answer": "#### 3"}])
    sets = load_problem_sets(DataRequest(train, "pcot", test=test, validation_size=0))
    report = check_problem_sets(sets)
    found = {(finding.kind, finding.split): finding.count for finding in report.findings}
    assert found == {
        ("duplicate", "train"): 2,
        ("missing_chain", "train"): 1,
        ("empty_split", "validation"): 0,
        ("long_question", "test"): 1,
        ("overlap", "test"): 1,
        ("conflicting_golds", ""): 2,
        ("loading", ""): 1,
    }
    assert report.ok
    plain = json.loads(json.dumps(report.as_dict()))
    assert plain["problems"] == {"train": 12, "validation": 0, "test": 2}
    assert len(report.rows()) == len(plain["findings"]) == 7
    duplicates = next(finding for finding in plain["findings"] if finding["kind"] == "duplicate")
    assert duplicates["examples"] == [f"{train}:11", f"{train}:12"]


def test_check_finds_training_data_without_any_chain(write: Callable[..., str]) -> None:
    path = write("rows.jsonl", [{"question": f"q{n}", "answer": n} for n in range(8)])
    report = check_problem_sets(load_problem_sets(DataRequest(path, "pcot", validation_size=1, test_size=1)))
    assert not report.ok
