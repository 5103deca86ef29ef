from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reftcli.errors import DataError, Interrupted
from reftcli.evaluation.reward_scores import score_completions
from reftcli.evaluation.samples import SampleRecord
from reftcli.grading.interface import Verdict
from reftcli.metrics.ranking import auc
from reftcli.models.load import load_classifier, load_model, save_model
from reftcli.models.source import resolve_model
from reftcli.models.tiny import tiny_tokenizer
from reftcli.recipe.schema import ModelSettings, RerankSettings
from reftcli.runs.progress import Progress, SilentProgress
from reftcli.training.reward_model import LabelledCompletion, held_out, labelled, train_reward_model

SETTINGS = RerankSettings(epochs=6, learning_rate=1e-3, batch_size=16, micro_batch_size=8)


def record(item_id: str, completion: str, verdict: Verdict, index: int = 0) -> SampleRecord:
    return SampleRecord(
        item_id=item_id,
        sample_index=index,
        decoding="sampled",
        prompt="Question: ?\n",
        completion=completion,
        predicted_answer=None,
        verdict=verdict,
    )


def test_repeats_and_ungradable_samples_are_left_out() -> None:
    rows = labelled(
        [
            record("a", "5", Verdict.CORRECT),
            record("a", "5", Verdict.CORRECT, 1),
            record("b", "5", Verdict.WRONG),
            record("a", "6", Verdict.WRONG, 2),
            record("a", "7", Verdict.NO_ANSWER, 3),
            record("a", "8", Verdict.UNGRADABLE, 4),
        ]
    )
    assert rows == [
        LabelledCompletion("a", "Question: ?\n5", True),
        LabelledCompletion("b", "Question: ?\n5", False),
        LabelledCompletion("a", "Question: ?\n6", False),
        LabelledCompletion("a", "Question: ?\n7", False),
    ]


def test_no_problem_is_on_both_sides_of_the_split() -> None:
    rows = [LabelledCompletion(f"p{i % 20}", str(i), i % 2 == 0) for i in range(100)]
    training, kept_out = held_out(rows, 0.1, seed=0)
    assert len(training) + len(kept_out) == 100
    assert {row.item_id for row in kept_out}.isdisjoint(row.item_id for row in training)
    assert len({row.item_id for row in kept_out}) == 2
    assert held_out(rows[::-1], 0.1, seed=0)[1] == kept_out[::-1]
    assert {row.item_id for row in held_out(rows, 0.1, seed=1)[1]} != {row.item_id for row in kept_out}


def learnable(n: int = 64) -> list[LabelledCompletion]:
    """Right completions end with one word, wrong ones with another; lengths differ, so padding matters."""
    names = ("Ann", "Ben", "Cat", "Dan", "Eve")
    return [
        LabelledCompletion(
            f"p{i}", f"{names[i % 5]} has {i % 9} {'apples ' * (i % 4)}{('books', 'pens')[i % 2]}", i % 2 == 0
        )
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone")
    loaded = load_model(resolve_model("tiny"))
    save_model(folder, loaded.model, loaded.tokenizer)
    return folder


def train(
    backbone: Path, rows: list[LabelledCompletion], folder: Path, settings: RerankSettings = SETTINGS,
    progress: Progress | None = None,
) -> Any:  # fmt: skip
    torch.manual_seed(0)
    model = load_classifier(resolve_model(str(backbone)), pad_token_id=0)
    train_reward_model(
        model, tiny_tokenizer(), rows, settings, ModelSettings(), 0, folder, progress or SilentProgress()
    )
    return model


def test_a_reward_model_learns_to_tell_right_from_wrong(backbone: Path, tmp_path: Path) -> None:
    rows = learnable()
    model = train(backbone, rows, tmp_path)
    unseen = learnable(90)[64:]
    scores = score_completions(model, tiny_tokenizer(), [r.text for r in unseen], ModelSettings(), 7)
    assert auc([row.correct for row in unseen], scores) == 1.0
    assert not model.training


def test_training_is_a_function_of_its_seed(backbone: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 1})
    first, second = (train(backbone, learnable(16), tmp_path, settings) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(("correct", "share"), [(True, "1.00"), (False, "0.00")])
def test_samples_of_one_label_teach_nothing(backbone: Path, tmp_path: Path, correct: bool, share: str) -> None:
    rows = [LabelledCompletion(f"p{i}", "x", correct) for i in range(3)]
    with pytest.raises(DataError, match=f"3 distinct samples, share correct {share}"):
        train(backbone, rows, tmp_path)


def test_samples_over_the_limit_are_left_out(backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no sample has at most rerank\.max_length 1 tokens"):
        train(backbone, learnable(4), tmp_path, SETTINGS.model_copy(update={"max_length": 1}))


def test_an_interruption_ends_the_training(backbone: Path, tmp_path: Path, stop_after: Callable[..., Any]) -> None:
    with pytest.raises(Interrupted, match="nothing of it is kept"):
        train(backbone, learnable(), tmp_path, progress=stop_after("reward model", 1))
