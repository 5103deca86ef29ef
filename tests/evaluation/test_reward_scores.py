from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from reftcli.evaluation import reward_scores
from reftcli.evaluation.reward_scores import load_and_score, score_completions, score_samples
from reftcli.evaluation.samples import SampleRecord
from reftcli.grading.interface import Verdict
from reftcli.models import verifier
from reftcli.models.load import load_classifier, load_model, save_model
from reftcli.models.source import resolve_model
from reftcli.models.tiny import tiny_tokenizer
from reftcli.recipe.schema import ModelSettings, Recipe
from reftcli.runs.progress import SilentProgress

TEXTS = ["Ann has 5 books.", "Ben", "How many apples does Cat have after all that? 7", "9 pens", "Dan loses 3 coins"]
FP32 = ModelSettings(precision="fp32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier on the embedded backbone, its head drawn large enough to tell texts apart."""
    place = tmp_path_factory.mktemp("models")
    loaded = load_model(resolve_model("tiny"))
    save_model(place / "backbone", loaded.model, loaded.tokenizer)
    classifier = load_classifier(resolve_model(str(place / "backbone")), 0)
    torch.manual_seed(0)
    torch.nn.init.normal_(classifier.score.weight, std=0.3)
    save_model(place / "classifier", classifier, loaded.tokenizer)
    return place / "classifier"


@pytest.fixture(scope="module")
def model(folder: Path) -> PreTrainedModel:
    return load_classifier(resolve_model(str(folder)), 0).eval()


def alone(model: PreTrainedModel, text: str) -> float:
    ids = tiny_tokenizer()(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    states = model.model(input_ids=ids).last_hidden_state[0, -1]
    return float(torch.softmax(model.score(states), dim=-1)[1])


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_scores_are_those_of_each_text_alone_in_the_order_given(model: PreTrainedModel, batch_size: int) -> None:
    found = score_completions(model, tiny_tokenizer(), [("", text) for text in TEXTS * 2], FP32, batch_size)
    expected = [alone(model, text) for text in TEXTS * 2]
    assert found == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.05


def record(item_id: str, index: int, completion: str, decoding: str = "sampled") -> SampleRecord:
    return SampleRecord(
        item_id=item_id,
        sample_index=index,
        decoding=decoding,  # type: ignore[arg-type]
        prompt="Q: ",
        completion=completion,
        predicted_answer=None,
        verdict=Verdict.WRONG,
    )


RECORDS = [
    record("a", 0, "5", "greedy"),
    record("b", 1, "6 pens"),
    record("a", 0, "7"),
    record("b", 0, "a longer text"),
]


def test_sampled_records_are_scored_with_their_prompt(model: PreTrainedModel) -> None:
    found = score_samples(model, tiny_tokenizer(), RECORDS, FP32, 2, SilentProgress())
    assert found.keys() == {("b", 1), ("a", 0), ("b", 0)}
    for (item_id, index), score in found.items():
        text = next(r.completion for r in RECORDS[1:] if (r.item_id, r.sample_index) == (item_id, index))
        assert score == pytest.approx(alone(model, f"Q: {text}"), abs=1e-5)


def test_a_saved_reward_model_scores_the_same(model: PreTrainedModel, folder: Path) -> None:
    expected = score_samples(model, tiny_tokenizer(), RECORDS, FP32, 2, SilentProgress())
    assert load_and_score(folder, RECORDS, Recipe(), SilentProgress()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("window", [1, 3, 100])
def test_no_more_than_a_window_is_tokens_at_a_time(
    window: int, model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [alone(model, text) for text in TEXTS * 2]
    encoded = []

    def encode(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> Any:
        encoded.append(len(pairs))
        return verifier.encode(tokenizer, pairs)

    monkeypatch.setattr(reward_scores, "WINDOW", window)
    monkeypatch.setattr(reward_scores, "encode", encode)
    found = score_completions(model, tiny_tokenizer(), [("", text) for text in TEXTS * 2], FP32, 2)
    assert found == pytest.approx(expected, abs=1e-5)
    assert max(encoded) == min(window, len(TEXTS))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_rank_scores_its_share_and_gets_all_scores(count: int, model: PreTrainedModel, in_ranks: Any) -> None:
    expected = score_samples(model, tiny_tokenizer(), RECORDS, FP32, 2, SilentProgress())
    scored: list[int] = []

    class Counting(SilentProgress):
        def task(self, title: str, total: int, unit: str) -> Any:
            scored.append(total)
            return super().task(title, total, unit)

    def work(ranks: Any) -> Any:
        found = score_samples(model, tiny_tokenizer(), iter(RECORDS), FP32, 2, Counting(), ranks)
        assert ranks.was_at == ["scoring"]
        return found

    for found in in_ranks(count, work):
        assert found == {key: pytest.approx(score, abs=1e-5) for key, score in expected.items()}, found
    assert sorted(scored) == sorted(len(range(rank, 3, count)) for rank in range(count))
