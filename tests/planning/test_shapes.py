"""Parameter counts, against the real classes on the meta device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reftcli.errors import DataError, ModelUnavailable, UsageError
from reftcli.models.source import ALIASES, ModelSource, resolve_model
from reftcli.planning.shapes import shape_from_config, shape_from_file, shape_of

LLAMA = {
    "model_type": "llama", "vocab_size": 96, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "vocab_size": 96, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128}
OPT = {
    "model_type": "opt", "vocab_size": 96, "hidden_size": 64, "ffn_dim": 160, "num_hidden_layers": 3,
    "num_attention_heads": 4, "max_position_embeddings": 128, "word_embed_proj_dim": 64,
}  # fmt: skip
CONFIGS: tuple[dict[str, Any], ...] = (
    {**LLAMA, "tie_word_embeddings": True},
    {**LLAMA, "tie_word_embeddings": False},
    {**LLAMA, "head_dim": 32, "attention_bias": True, "mlp_bias": True},
    {**LLAMA, "model_type": "mistral", "sliding_window": None},
    {**LLAMA, "model_type": "qwen2", "tie_word_embeddings": True},
    {**LLAMA, "model_type": "qwen3", "head_dim": 16},
    OPT,
    {**OPT, "enable_bias": False},
    {**OPT, "enable_bias": False, "layer_norm_elementwise_affine": False},
    GPT2,
    {**GPT2, "n_inner": 200, "tie_word_embeddings": False},
    {**GPT2, "model_type": "codegen", "n_ctx": 128, "rotary_dim": 8},
)


def real_model(config: dict[str, Any]) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **sizes))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c['model_type']}-{len(c)}")
def test_count_is_that_of_the_real_class(config: dict[str, Any]) -> None:
    shape, model = shape_from_config(config, "it"), real_model(config)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.head == model.get_output_embeddings().weight.numel()
    head = model.get_output_embeddings()
    products = [m for m in model.modules() if type(m).__name__ in ("Linear", "Conv1D") and m is not head]
    assert shape.matrices == sum(m.weight.numel() for m in products)


@pytest.mark.parametrize(
    ("alias", "billions"),
    [
        ("codellama", 6.738546688),  # 2 x 32016 x 4096 + 32 (4 x 4096^2 + 3 x 4096 x 11008 + 2 x 4096) + 4096
        ("galactica", 6.657),
        ("galactica-125m", 0.125),
        ("codegen-350m", 0.357),
        ("codeparrot-small", 0.111),
        ("smollm2", 0.134515008),
        ("smollm2-q4", 0.134515008),
        ("tiny", 0.000928128),
    ],
)
def test_models_with_a_short_name(alias: str, billions: float) -> None:
    assert shape_of(resolve_model(alias)).parameters == pytest.approx(billions * 1e9, rel=0.01)


def test_every_alias_is_planned_without_a_hub() -> None:
    assert len(ALIASES) >= 8
    for name, alias in ALIASES.items():
        assert shape_of(resolve_model(name)).name == name
        if alias.kind == "hub":  # the same model by its full name
            assert shape_of(resolve_model(alias.target)).parameters == shape_of(resolve_model(name)).parameters


def test_the_embedded_model_exactly() -> None:
    from reftcli.models.tiny import tiny_model, tiny_tokenizer

    count = sum(parameter.numel() for parameter in tiny_model(len(tiny_tokenizer())).parameters())
    assert shape_of(resolve_model("tiny")).parameters == count


def test_lora_counts_those_of_peft() -> None:
    from reftcli.models.lora import add_lora

    for config in (LLAMA, OPT, GPT2):
        model = real_model(config)
        add_lora(model, 4, 16, 0)
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        assert shape_from_config(config, "it").lora_parameters(4) == trained, config["model_type"]


def test_a_folder_is_read_for_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert shape_of(resolve_model(str(tmp_path))).hidden == 64


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ('{"model_type": "mamba"}', UsageError, "no arithmetic for model_type 'mamba'"),
        ("{}", UsageError, "no arithmetic for model_type ''"),
        ('{"model_type": "llama"}', DataError, "hidden_size"),
        ('{"model_type": "gpt2", "n_embd": "wide"}', DataError, "config.json lacks or misstates"),
        ("[]", DataError, "is an object"),
        ("{", DataError, "cannot be read"),
    ],
)
def test_what_cannot_be_planned_says_why(text: str, error: type[Exception], says: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(error, match=says.replace("'", ".")):
        shape_from_file(tmp_path / "config.json", "it")


def test_a_hub_that_cannot_be_reached_asks_for_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def absent(*_: Any, **__: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", absent)
    with pytest.raises(ModelUnavailable, match="give a folder with --model PATH"):
        shape_of(ModelSource("someone/somewhat", "hub", "someone/somewhat"))
