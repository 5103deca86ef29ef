"""What of a run's folder its page shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reftcli.metrics.intervals import Interval
from reftcli.reports.run_page import write_run_page
from reftcli.reports.tables import AccuracyRow
from reftcli.runs.folder import Run, create_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = create_run(
        tmp_path,
        stage="rl",
        name="mine",
        recipe_yaml="seed: 7\n# settings of mine\n",
        record={
            "seed": 7,
            "parent": "the-warm-up",
            "dataset": "toy",
            "form": "ncot",
            "model": {"name": "tiny-model-name"},
            "data": {
                "rows": {"train": 11, "validation": 12, "test": 13},
                "chain_sources": {"train": {"given": 9, "derived": 2}},
            },
        },
    )
    made.results.mkdir()
    made.samples.mkdir()
    return made


def result(split: str, accuracy: float) -> dict[str, Any]:
    measure = {"accuracy": accuracy, "ci95": [0.1, 0.9]}
    return {"split": split, "n": 13, "accuracy": accuracy, "accuracy_ci95": [0.1, 0.9], "maj": {"4": measure}}


def sample(item: str, verdict: str, completion: str, decoding: str = "greedy") -> str:
    row = {
        "item_id": item,
        "sample_index": 0,
        "decoding": decoding,
        "prompt": f"question of {item}",
        "completion": completion,
        "predicted_answer": "5",
        "gold_answer": "6",
        "verdict": verdict,
    }
    return json.dumps(row) + "\n"


def page(run: Run, *arguments: Any) -> str:
    file = write_run_page(run, *arguments)
    assert file == run.folder / "report.html"
    return file.read_text(encoding="utf-8")


def test_a_run_that_has_only_started_has_a_page(run: Run) -> None:
    shown = page(run)
    for words in ("mine", "tiny-model-name", "toy", "ncot", "the-warm-up", "# settings of mine"):
        assert words in shown
    assert "train 11, validation 12, test 13" in shown
    assert "given: 9, derived: 2" in shown


def test_results_come_from_every_file_of_the_run(run: Run) -> None:
    for split, accuracy in (("test", 0.4321), ("validation", 0.8765)):
        (run.results / f"{split}.json").write_text(json.dumps(result(split, accuracy)))
    shown = page(run)
    for words in ("test, greedy", "43.2%", "test, maj@4", "validation, greedy", "87.6%"):
        assert words in shown


def test_results_given_replace_those_of_the_run(run: Run) -> None:
    (run.results / "test.json").write_text(json.dumps(result("test", 0.4321)))
    shown = page(run, [AccuracyRow("from elsewhere", 0.25, Interval(0.2, 0.3), 99)], ["a note of the demo"])
    assert "from elsewhere" in shown
    assert "a note of the demo" in shown
    assert "43.2%" not in shown


def test_three_greedy_completions_of_each_verdict_are_shown(run: Run) -> None:
    rows = [sample(f"right{n}", "correct", f"right completion {n}.") for n in range(5)]
    rows += [sample(f"wrong{n}", "wrong", f"wrong completion {n}.") for n in range(2)]
    rows += [sample("none", "no_answer", "completion without answer."), sample("s", "correct", "sampled.", "sampled")]
    (run.samples / "test.jsonl").write_text("".join(rows))
    shown = page(run)
    assert [n for n in range(5) if f"right completion {n}." in shown] == [0, 1, 2]
    assert [n for n in range(2) if f"wrong completion {n}." in shown] == [0, 1]
    assert "completion without answer." in shown
    assert "sampled." not in shown


def test_without_test_samples_the_newest_validation_is_shown(run: Run) -> None:
    for step in (20, 100):
        (run.samples / f"validation-step-{step}.jsonl").write_text(sample("a", "correct", f"after {step} updates."))
    assert "after 100 updates." in page(run)


def test_what_models_and_data_say_is_text_not_markup(run: Run) -> None:
    attack = "</pre><script>alert(1)</script>"
    (run.samples / "test.jsonl").write_text(sample("a", "correct", attack))
    run.update_record(dataset=attack, command=attack)
    assert "<script>alert" not in page(run)


def test_metrics_become_charts(run: Run) -> None:
    with run.metrics() as metrics:
        for step in range(1, 6):
            metrics.write({"step": step, "reward_mean": step / 10, "kl": 0.1})
    assert "<svg" in page(run)


def test_nothing_is_fetched_from_elsewhere(run: Run) -> None:
    shown = page(run).replace("http://www.w3.org", "")
    assert "http://" not in shown
    assert "https://" not in shown
