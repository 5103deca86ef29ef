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
from reftcli.recipe.schema import ModelSettings, RerankSettings, Scorer
from reftcli.runs.progress import Progress, SilentProgress
from reftcli.training.reward_model import LabelledCompletion, class_weights, held_out, labelled, train_reward_model

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
        LabelledCompletion("a", "Question: ?\n", "5", True),
        LabelledCompletion("b", "Question: ?\n", "5", False),
        LabelledCompletion("a", "Question: ?\n", "6", False),
        LabelledCompletion("a", "Question: ?\n", "7", False),
    ]


def test_no_problem_is_on_both_sides_of_the_split() -> None:
    rows = [LabelledCompletion(f"p{i % 20}", "?", str(i), i % 2 == 0) for i in range(100)]
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
            f"p{i}", f"{names[i % 5]} has", f" {i % 9} {'apples ' * (i % 4)}{('books', 'pens')[i % 2]}", i % 2 == 0
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
    model = load_classifier(resolve_model(str(backbone)), 0, settings.scorer)
    train_reward_model(
        model, tiny_tokenizer(), rows, settings, ModelSettings(), 0, folder, progress or SilentProgress()
    )
    return model


@pytest.mark.parametrize("scorer", ["head", "likelihood"])
def test_a_reward_model_learns_to_tell_right_from_wrong(backbone: Path, tmp_path: Path, scorer: Scorer) -> None:
    rows = learnable()
    model = train(backbone, rows, tmp_path, SETTINGS.model_copy(update={"scorer": scorer}))
    unseen = learnable(90)[64:]
    scores = score_completions(model, tiny_tokenizer(), [(r.prompt, r.completion) for r in unseen], ModelSettings(), 7)
    assert auc([row.correct for row in unseen], scores) == 1.0
    assert not model.training


@pytest.mark.parametrize("scorer", ["head", "likelihood"])
def test_training_only_the_head_leaves_the_model_as_it_was(backbone: Path, tmp_path: Path, scorer: Scorer) -> None:
    model = train(
        backbone, learnable(), tmp_path, SETTINGS.model_copy(update={"epochs": 1, "scorer": scorer, "trained": "head"})
    )
    before = load_classifier(resolve_model(str(backbone)), 0, scorer).state_dict()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == ({"score.weight"} if scorer == "head" else {"head.weight", "head.bias"})


@pytest.mark.parametrize("scorer", ["head", "likelihood"])
def test_training_is_a_function_of_its_seed(backbone: Path, tmp_path: Path, scorer: Scorer) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 1, "scorer": scorer})
    first, second = (train(backbone, learnable(16), tmp_path, settings) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(("correct", "share"), [(True, "1.00"), (False, "0.00")])
def test_samples_of_one_label_teach_nothing(backbone: Path, tmp_path: Path, correct: bool, share: str) -> None:
    rows = [LabelledCompletion(f"p{i}", "?", "x", correct) for i in range(3)]
    with pytest.raises(DataError, match=f"3 distinct samples, share correct {share}"):
        train(backbone, rows, tmp_path)


def test_samples_over_the_limit_are_left_out(backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no sample has at most rerank\.max_length 1 tokens"):
        train(backbone, learnable(4), tmp_path, SETTINGS.model_copy(update={"max_length": 1}))


def test_an_interruption_ends_the_training(backbone: Path, tmp_path: Path, stop_after: Callable[..., Any]) -> None:
    with pytest.raises(Interrupted, match="its samples are kept"):
        train(backbone, learnable(), tmp_path, progress=stop_after("reward model", 1))


@pytest.mark.parametrize(
    ("correct", "balanced", "weights"),
    [
        ([True, False, False, False], True, (4 / 6, 2.0)),  # 3 x 2/3 = 1 x 2: as much in all
        ([True, False, False, False], False, (1.0, 1.0)),
        ([True, False], True, (1.0, 1.0)),
        ([True, True], True, (1.0, 1.0)),  # nothing to balance
    ],
)
def test_class_weights_hand_worked(correct: list[bool], balanced: bool, weights: tuple[float, float]) -> None:
    assert class_weights(correct, balanced) == pytest.approx(weights)


def test_balanced_weights_move_p_towards_the_rarer_class(backbone: Path, tmp_path: Path) -> None:
    """Samples that cannot be told apart: p(correct) is the share of correct ones, or a half when balanced."""
    rows = [LabelledCompletion(f"p{i}", "?", f" {i % 2}", i % 8 < 2) for i in range(64)]
    settings = SETTINGS.model_copy(update={"epochs": 20})
    found = []
    for weights in ("none", "balanced"):
        model = train(backbone, rows, tmp_path, settings.model_copy(update={"class_weights": weights}))
        found.append(score_completions(model, tiny_tokenizer(), [("?", " 0"), ("?", " 1")], ModelSettings(), 2))
    assert found[0] == pytest.approx([0.25, 0.25], abs=0.1)
    assert found[1] == pytest.approx([0.5, 0.5], abs=0.1)


def test_micro_batches_do_not_change_the_loss_of_a_step(backbone: Path, tmp_path: Path) -> None:
    one_step = {"epochs": 0.2, "batch_size": 16, "class_weights": "balanced"}
    models = [
        train(backbone, learnable(16), tmp_path, SETTINGS.model_copy(update={**one_step, "micro_batch_size": micro}))
        for micro in (16, 4)
    ]
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        assert torch.allclose(a, b, atol=3e-4)  # Adam's first step is lr * sign where gradients are rounding noise
