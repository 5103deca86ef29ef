from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from reftcli.errors import ModelUnavailable, UsageError
from reftcli.models.load import (
    load_classifier,
    load_model,
    load_tokenizer,
    save_model,
    special_token_ids,
    weights_sha256,
)
from reftcli.models.source import ModelSource, SpecialTokens, resolve_model


class FakeTokenizer:
    """Token ids as a tokenizer has them; 7 and 8 are what the alias table names."""

    def __init__(self, eos: int | None = None, pad: int | None = None) -> None:
        self.eos_token_id, self.pad_token_id = eos, pad

    def convert_tokens_to_ids(self, token: str) -> int:
        return {"<e>": 7, "<p>": 8}[token]


TABLE = SpecialTokens(pad="<p>", eos="<e>")


@pytest.mark.parametrize(
    ("tokenizer", "config", "table", "expected"),
    [
        (FakeTokenizer(1, 2), {"eos_token_id": 3, "pad_token_id": 4}, TABLE, (1, 2)),
        (FakeTokenizer(), {"eos_token_id": 3, "pad_token_id": 4}, TABLE, (3, 4)),
        (FakeTokenizer(), {"eos_token_id": [5, 6], "pad_token_id": None}, TABLE, (5, 8)),
        (FakeTokenizer(), {"eos_token_id": None}, TABLE, (7, 8)),
        (FakeTokenizer(), {"eos_token_id": [], "pad_token_id": -1}, TABLE, (7, 8)),
        (FakeTokenizer(0, None), {}, None, (0, 0)),
        (FakeTokenizer(1, 0), {"pad_token_id": 4}, None, (1, 0)),
        (FakeTokenizer(None, 9), {"eos_token_id": 3}, None, (3, 9)),
    ],
)
def test_eos_and_pad_come_from_the_tokenizer_then_the_configuration_then_the_table(
    tokenizer: FakeTokenizer, config: dict[str, Any], table: SpecialTokens | None, expected: tuple[int, int]
) -> None:
    source = ModelSource("m", "hub", "o/m", special_tokens=table)
    assert special_token_ids(source, tokenizer, SimpleNamespace(**config)) == expected  # type: ignore[arg-type]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == expected, "the tokenizer knows them from now on"


def test_a_model_without_eos_is_refused() -> None:
    with pytest.raises(UsageError, match="model m: neither its tokenizer nor its configuration names an EOS"):
        special_token_ids(ModelSource("m", "hub", "o/m"), FakeTokenizer(), SimpleNamespace())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as a folder."""
    folder = tmp_path_factory.mktemp("saved")
    loaded = load_model(resolve_model("tiny"))
    save_model(folder, loaded.model, loaded.tokenizer)
    return folder


def test_a_saved_model_loads_with_from_pretrained_and_is_the_same(saved: Path) -> None:
    original = load_model(resolve_model("tiny"))
    for model in (AutoModelForCausalLM.from_pretrained(saved), load_model(resolve_model(str(saved))).model):
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), original.model.parameters(), strict=True))
    text = "Ann has 7 books.\n"
    assert AutoTokenizer.from_pretrained(saved)(text)["input_ids"] == original.tokenizer(text)["input_ids"]
    again = load_model(resolve_model(str(saved)))
    assert (again.eos_token_id, again.pad_token_id) == (original.eos_token_id, original.pad_token_id) == (2, 0)
    assert again.model.config.pad_token_id == 0
    assert again.model.generation_config.eos_token_id == 2
    assert again.tokenizer.padding_side == "left"


def test_half_precision_weights_are_loaded_as_fp32(saved: Path, tmp_path: Path) -> None:
    loaded = load_model(resolve_model(str(saved)))
    save_model(tmp_path / "half", loaded.model.to(torch.bfloat16), loaded.tokenizer)
    again = load_model(resolve_model(str(tmp_path / "half")))
    assert {parameter.dtype for parameter in again.model.parameters()} == {torch.float32}


def test_the_hash_follows_the_weights(saved: Path, tmp_path: Path) -> None:
    loaded, source = load_model(resolve_model(str(saved))), resolve_model(str(saved))
    before = weights_sha256(source, loaded.model)
    assert before == weights_sha256(source, loaded.model)
    tiny = resolve_model("tiny")
    embedded = weights_sha256(tiny, loaded.model)
    with torch.no_grad():
        next(loaded.model.parameters())[0, 0] += 1
    assert weights_sha256(tiny, loaded.model) != embedded
    save_model(tmp_path / "moved", loaded.model, loaded.tokenizer)
    assert weights_sha256(resolve_model(str(tmp_path / "moved")), loaded.model) != before


def test_a_classifier_starts_from_the_backbone_and_has_two_classes(saved: Path) -> None:
    classifier = load_classifier(resolve_model(str(saved)), pad_token_id=0)
    backbone = load_model(resolve_model(str(saved))).model
    assert classifier.num_labels == 2
    assert classifier.config.pad_token_id == 0
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(classifier.state_dict()[name], backbone.state_dict()[name])


def test_the_embedded_model_is_no_start_for_a_classifier() -> None:
    with pytest.raises(UsageError, match="starts from a trained model"):
        load_classifier(resolve_model("tiny"), pad_token_id=0)


def break_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not weights at all, only text that is long enough")


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text("{ broken")


def change_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 100}))


def name_unknown_family(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "no-such-family"}))


@pytest.mark.parametrize("damage", [break_weights, remove_weights, break_config, change_shape, name_unknown_family])
def test_a_broken_folder_is_one_line_that_names_it(damage: Any, saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(saved, folder)
    damage(folder)
    with pytest.raises(ModelUnavailable) as caught:
        load_model(resolve_model(str(folder)))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hub_model_without_a_network_is_one_line_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for load in (load_tokenizer, load_model):
        with pytest.raises(ModelUnavailable) as caught:
            load(resolve_model("codellama"))
        assert "codellama/CodeLlama-7b-hf" in str(caught.value)
        assert "--model PATH" in str(caught.value)
        assert "\n" not in str(caught.value)
