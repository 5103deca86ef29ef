from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from reftcli.errors import DataError, UsageError
from reftcli.evaluation.results import Results, default_ks, derive_results
from reftcli.evaluation.samples import SampleRecord, read_samples
from reftcli.grading.interface import Verdict
from reftcli.metrics.intervals import wilson

GOLD = "3.333"


def close(item_id: str, a: str, b: str) -> bool:
    return abs(float(a) - float(b)) <= 1e-2


def row(item_id: str, index: int | None, answer: str | None, **changes: Any) -> SampleRecord:
    """A row graded against GOLD; index None is the greedy one."""
    verdict = Verdict.NO_ANSWER
    if answer is not None:
        verdict = Verdict.CORRECT if close(item_id, answer, GOLD) else Verdict.WRONG
    fields: dict[str, Any] = {
        "item_id": item_id,
        "split": "test",
        "sample_index": index or 0,
        "decoding": "greedy" if index is None else "sampled",
        "prompt": "Question: ?",
        "completion": f"The answer is {answer}",
        "predicted_answer": answer,
        "gold_answer": GOLD,
        "verdict": verdict,
        "score": float(verdict is Verdict.CORRECT),
    }
    return SampleRecord(**{**fields, **changes})


def sampled(item_id: str, *answers: str | None) -> list[SampleRecord]:
    return [row(item_id, i, answer) for i, answer in enumerate(answers)]


def three_problems() -> list[SampleRecord]:
    return [
        row("p1", None, "3.333"),
        *sampled("p1", "4", "3.33", "3.3333", "5"),  # the equal answers win
        row("p2", None, "7"),
        *sampled("p2", "7", "7", "3.333", None),  # the vote is wrong, one sample is right
        row("p3", None, None),
        *sampled("p3", None, None, None, None),  # nobody answers
    ]


def derive(records: list[SampleRecord], ks: list[int] | None = None, seed: int = 0) -> Results:
    return derive_results(records, close, ks, seed)


def test_three_problems_hand_worked() -> None:
    results = derive(three_problems())
    assert results.n == 3
    assert results.per_problem["greedy"] == {"p1": 1.0, "p2": 0.0, "p3": 0.0}
    assert results.per_problem["sample_mean"] == {"p1": 0.5, "p2": 0.25, "p3": 0.0}
    assert results.per_problem["oracle"] == {"p1": 1.0, "p2": 1.0, "p3": 0.0}
    assert results.per_problem["maj@4"] == {"p1": 1.0, "p2": 0.0, "p3": 0.0}
    assert results.per_problem["maj@1"] == results.per_problem["sample_mean"]
    # Pairs of p1 (4 a a' 5): 4a 4, 4a' 4, 45 4, aa' right, a5 right, a'5 right. Of p2 (7 7 a -): only "a -" is right.
    assert results.per_problem["maj@2"] == pytest.approx({"p1": 3 / 6, "p2": 1 / 6, "p3": 0.0})
    assert results.per_problem["pass@2"] == pytest.approx({"p1": 5 / 6, "p2": 3 / 6, "p3": 0.0})
    assert results.per_problem["pass@4"] == results.per_problem["oracle"]
    assert results.measures["greedy"].accuracy == pytest.approx(1 / 3)
    assert results.measures["greedy"].ci95 == wilson(1, 3)
    assert results.measures["sample_mean"].accuracy == pytest.approx(0.25)
    assert results.measures["maj@4"].ci95 == wilson(1, 3)
    assert not any(name.startswith("rerank") for name in results.measures)


def test_measures_and_per_problem_share_their_keys() -> None:
    results = derive(three_problems())
    assert set(results.measures) == set(results.per_problem)
    assert {"greedy", "sample_mean", "oracle", "maj@1", "maj@2", "maj@4", "pass@1"} <= set(results.measures)
    for measured in results.measures.values():
        assert 0 <= measured.ci95.low <= measured.accuracy <= measured.ci95.high <= 1


def test_verdicts_are_counted_and_ungradable_problems_listed() -> None:
    records = [*three_problems(), row("p0", None, None, verdict=Verdict.UNGRADABLE, score=None, why="timeout")]
    results = derive(records)
    assert results.verdicts["greedy"] == {"correct": 1, "wrong": 1, "no_answer": 1, "ungradable": 1}
    assert results.verdicts["sampled"] == {"correct": 3, "wrong": 4, "no_answer": 5, "ungradable": 0}
    assert results.ungradable == ("p0",)
    assert results.n == 4
    assert results.per_problem["greedy"]["p0"] == 0.0


def test_nothing_depends_on_the_order_of_rows() -> None:
    records = [*three_problems(), *sampled("p4", "3.333", "1", "2", "3.333")]
    records = [r for r in records if r.decoding == "sampled"]
    shuffled = records[:]
    random.Random(0).shuffle(shuffled)
    assert derive(shuffled) == derive(records)


def test_missing_samples_count_as_no_answer() -> None:
    results = derive([row("p1", None, "3.333"), *sampled("p1", "3.333", "3.333"), *sampled("p2", "3.333")])
    assert (results.n, results.samples_per_problem) == (2, 2)
    assert results.missing == {"greedy": 1, "sampled": 1}
    assert results.per_problem["greedy"] == {"p1": 1.0, "p2": 0.0}
    assert results.per_problem["sample_mean"] == {"p1": 1.0, "p2": 0.5}
    assert results.per_problem["maj@2"] == {"p1": 1.0, "p2": 1.0}
    assert results.per_problem["pass@1"] == {"p1": 1.0, "p2": 0.5}


def test_the_representative_of_the_winner_decides() -> None:
    # 3.340 and 3.347 are one candidate; only the first is within the tolerance of the gold answer.
    assert derive(sampled("p", "3.340", "3.347")).per_problem["maj@2"] == {"p": 1.0}
    assert derive(sampled("p", "3.347", "3.340")).per_problem["maj@2"] == {"p": 0.0}


def test_a_verdict_of_no_answer_does_not_vote() -> None:
    records = [row("p", i, "9", verdict=Verdict.NO_ANSWER) for i in range(2)] + [row("p", 2, "3.333")]
    assert derive(records).per_problem["maj@3"] == {"p": 1.0}


def test_rerank_picks_the_best_answered() -> None:
    records = [
        row("p1", 0, "4", rm_score=0.3),
        row("p1", 1, "3.333", rm_score=0.8),
        row("p1", 2, None, rm_score=0.9),
        row("p2", 0, "3.333", rm_score=0.2),
        row("p2", 1, "4", rm_score=0.4),
        row("p2", 2, None),
    ]
    results = derive(records, ks=[1, 3])
    assert results.per_problem["rerank@3"] == {"p1": 1.0, "p2": 0.0}
    assert results.per_problem["rerank@1"] == pytest.approx({"p1": 1 / 3, "p2": 1 / 3})
    assert list(results.by_k("rerank")) == [1, 3]


def test_rerank_needs_every_answered_sample_scored() -> None:
    with pytest.raises(DataError, match="1 answered samples have no rm_score"):
        derive([row("p", 0, "4", rm_score=0.3), row("p", 1, "5")])


def test_the_json_has_the_contracts_keys() -> None:
    found = derive(three_problems(), ks=[2, 4]).to_json("demo", "gsm8k", "test", "samples/test.jsonl")
    assert {k: found[k] for k in ("run", "dataset", "split", "n", "samples_file")} == {
        "run": "demo",
        "dataset": "gsm8k",
        "split": "test",
        "n": 3,
        "samples_file": "samples/test.jsonl",
    }
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["accuracy_ci95"] == list(wilson(1, 3))
    assert list(found["maj"]) == list(found["pass"]) == ["2", "4"]
    assert found["maj"]["4"] == {"accuracy": pytest.approx(1 / 3), "ci95": list(wilson(1, 3))}
    assert "rerank" not in found
    assert found["oracle"]["accuracy"] == pytest.approx(2 / 3)
    assert found["verdicts"]["greedy"]["wrong"] == 1
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_greedy_only_and_samples_only() -> None:
    greedy = derive([row("p", None, "3.333")]).to_json("r", "d", "test", "f")
    assert (greedy["accuracy"], greedy["maj"], greedy["pass"]) == (1.0, {}, {})
    only_samples = derive(sampled("p", "3.333", "1")).to_json("r", "d", "test", "f")
    assert (only_samples["accuracy"], only_samples["accuracy_ci95"]) == (None, None)
    assert only_samples["missing"] == {"greedy": 0, "sampled": 0}


@pytest.mark.parametrize(
    ("total", "ks"),
    [(0, ()), (1, (1,)), (2, (1, 2)), (8, (1, 2, 5, 8)), (100, (1, 2, 5, 10, 20, 50, 100))],
)
def test_default_ks(total: int, ks: tuple[int, ...]) -> None:
    assert default_ks(total) == ks


@pytest.mark.parametrize("k", [0, 5])
def test_a_k_that_is_not_there_is_a_usage_error(k: int) -> None:
    with pytest.raises(UsageError, match=f"k = {k} is not possible: there are 4 samples a problem"):
        derive(three_problems(), ks=[2, k])


def test_no_rows_and_double_rows_are_data_errors() -> None:
    with pytest.raises(DataError, match="no samples"):
        derive([])
    with pytest.raises(DataError, match="problem p has sample 1 twice"):
        derive([*sampled("p", "1", "2"), row("p", 1, "2")])
    with pytest.raises(DataError, match="problem p has greedy completion twice"):
        derive([row("p", None, "1"), row("p", None, "1", sample_index=3)])


def test_a_row_survives_the_file() -> None:
    for record in (row("p", 3, "4", rm_score=0.25, logprob=-3.5, step=7, reward=0.1), row("p", None, None)):
        again = SampleRecord.from_json(json.loads(json.dumps(record.to_json())), "f:1")
        assert again == record


def test_the_rows_keys_are_the_contracts() -> None:
    contract = (
        "item_id, split, sample_index, decoding, prompt, completion, predicted_answer, gold_answer, verdict, score, "
        "reward, why, logprob, step"
    )
    assert ", ".join(row("p", 0, "4").to_json()) == contract
    assert row("p", 0, "4", rm_score=0.5).to_json()["rm_score"] == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verdict": "maybe"}, 'verdict must be one of correct, wrong, no_answer, ungradable (got "maybe")'),
        ({"verdict": ["correct"]}, "verdict must be one of"),
        ({"decoding": "beam"}, "decoding must be one of greedy, sampled"),
        ({"sample_index": True}, "sample_index must be integer (got true)"),
        ({"sample_index": None}, "sample_index must be integer (got null)"),
        ({"predicted_answer": 18}, "predicted_answer must be text or null (got 18)"),
        ({"score": "1"}, "score must be number or null"),
        ({"logprob": float("nan")}, "logprob must be number or null"),
        ({"completion": None}, "completion must be text (got null)"),
        ({"item_id": 3, "score": "1"}, "item_id must be text in UTF-8 (got 3); score must be number"),
        ({"sample_index": 2**70}, "sample_index must be integer (got 1180591620717411303424)"),
        ({"step": -(2**63)}, "step must be integer or null"),
        ({"logprob": 10**400}, "logprob must be number or null"),
        ({"rm_score": -1.0}, "rm_score must be number from 0 to 1 or null (got -1.0)"),
        ({"rm_score": 7}, "rm_score must be number from 0 to 1 or null (got 7)"),
        ({"item_id": "a\ud800"}, 'item_id must be text in UTF-8 (got "a\\ud800")'),
        ({"split": "\udfff"}, "split must be text in UTF-8"),
    ],
)
def test_a_bad_row_says_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as error:
        SampleRecord.from_json({**row("p", 0, "4").to_json(), **changes}, "samples.jsonl:7")
    assert str(error.value).startswith("samples.jsonl:7: ")
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["item_id", "sample_index", "decoding", "predicted_answer", "verdict"])
def test_a_row_without_a_needed_key(name: str) -> None:
    fields = row("p", 0, "4").to_json()
    del fields[name]
    with pytest.raises(DataError, match=f"f:1: {name} is missing"):
        SampleRecord.from_json(fields, "f:1")


def test_read_samples(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    records = three_problems()
    path.write_text("\n".join(json.dumps({**r.to_json(), "extra": 1}) for r in records) + "\n\n", encoding="utf-8")
    assert read_samples(path) == records


@pytest.mark.parametrize("line", [b'{"item_id": ', b"[1]", b'"text"', b"\xff\xfe", b"[" * 100_000])
def test_a_broken_line_names_file_and_line(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes(json.dumps(row("p", 0, "4").to_json()).encode() + b"\n" + line + b"\n")
    with pytest.raises(DataError, match=r"samples\.jsonl:2: "):
        read_samples(path)


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.jsonl: cannot be read"):
        read_samples(tmp_path / "none.jsonl")
