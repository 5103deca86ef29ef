"""Sizes of a model's parts, from its ``config.json`` or from the table of our aliases. No weights and no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from reftcli.errors import DataError, ModelUnavailable, UsageError
from reftcli.models.source import ALIASES, ModelSource

Family = Literal["llama", "opt", "gpt2", "codegen"]
"""Layers of one make. llama: RMSNorm, gated MLP, rotary positions (also mistral, qwen2, qwen3)."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder. All sizes count elements; ``context`` counts tokens."""

    name: str
    family: Family
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    context: int
    tied: bool
    layer_extras: int
    """Elements of a layer outside its matrices: norms and biases."""
    other_extras: int
    """Elements outside layers, embedding and head: positions, last norm, the head's bias."""

    @property
    def query_size(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Elements of a token's keys in one layer; its values are as many."""
        return self.kv_heads * self.head_dim

    @property
    def gated(self) -> bool:
        return self.family == "llama"

    @property
    def layer_matrices(self) -> int:
        """Q, K, V and the output projection, then the MLP: three matrices where it is gated, else two."""
        attention = self.hidden * (2 * self.query_size + 2 * self.kv_size)
        return attention + (3 if self.gated else 2) * self.hidden * self.intermediate

    @property
    def matrices(self) -> int:
        """Elements that a token is multiplied with on its way through the backbone (the head comes on top)."""
        return self.layers * self.layer_matrices

    @property
    def head(self) -> int:
        """Elements of the vocabulary projection."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All of them; tied ones once."""
        embeddings = self.head if self.tied else 2 * self.head
        return embeddings + self.layers * (self.layer_matrices + self.layer_extras) + self.other_extras

    @property
    def largest_matrix(self) -> int:
        return max(self.head, self.hidden * self.intermediate)

    def lora_parameters(self, rank: int) -> int:
        """Of LoRA layers beside every linear layer but the head: rank x (inputs + outputs) each."""
        h, q, kv, i = self.hidden, self.query_size, self.kv_size, self.intermediate
        joined = self.family in ("gpt2", "codegen")  # one matrix for queries, keys and values
        attention = (h + q + 2 * kv) if joined else (h + q) + 2 * (h + kv)
        mlp = (3 if self.gated else 2) * (h + i)
        return rank * self.layers * (attention + q + h + mlp)


def shape_of(source: ModelSource) -> ModelShape:
    """The shape of a model: from the table for aliases, else from its configuration.

    Raises:
        ModelUnavailable: the configuration cannot be reached.
        UsageError: a family that the plan has no arithmetic for.
        DataError: the configuration cannot be read.
    """
    known = next((name for name, alias in ALIASES.items() if source.name in (name, alias.target)), None)
    if known is not None and source.kind != "folder":
        return _TABLE[known]
    if source.kind == "folder":
        return shape_from_file(Path(source.target) / "config.json", source.name)
    return shape_from_file(_from_hub(source), source.name)


def shape_from_file(file: Path, name: str) -> ModelShape:
    """The shape in a ``config.json``; raises as `shape_of`."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as JSON ({error})") from error
    if not isinstance(config, dict):
        raise DataError(f"{file}: a model's configuration is an object, this is a {type(config).__name__}")
    return shape_from_config(config, name)


def shape_from_config(config: Mapping[str, Any], name: str) -> ModelShape:
    """The shape that a configuration in Hugging Face's spelling describes; raises as `shape_of`."""
    kind = str(config.get("model_type", ""))
    reader = _READERS.get(kind)
    if reader is None:
        raise UsageError(
            f"{name}: no arithmetic for model_type {kind!r}, only for {', '.join(_READERS)} (reft itself may run it)"
        )
    try:
        return reader(config, name)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(f"{name}: config.json lacks or misstates {error}") from error


def _llama(config: Mapping[str, Any], name: str) -> ModelShape:
    kind = config["model_type"]
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_dim = int(config.get("head_dim") or (128 if kind == "qwen3" else hidden // heads))
    intermediate, layers = int(config["intermediate_size"]), int(config["num_hidden_layers"])
    query, kv = heads * head_dim, kv_heads * head_dim
    extras = 2 * hidden
    if config.get("attention_bias"):
        extras += query + 2 * kv + hidden
    elif kind == "qwen2":
        extras += query + 2 * kv
    if config.get("mlp_bias"):
        extras += 2 * intermediate + hidden
    if kind == "qwen3":
        extras += 2 * head_dim
    return ModelShape(
        name, "llama", hidden, layers, heads, kv_heads, head_dim, intermediate,
        vocabulary=int(config["vocab_size"]), context=int(config.get("max_position_embeddings") or 2048),
        tied=bool(config.get("tie_word_embeddings", False)), layer_extras=extras, other_extras=hidden,
    )  # fmt: skip


def _opt(config: Mapping[str, Any], name: str) -> ModelShape:
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    if int(config.get("word_embed_proj_dim") or hidden) != hidden:
        raise UsageError(f"{name}: no arithmetic for OPT with projected embeddings (word_embed_proj_dim)")
    ffn, context = int(config["ffn_dim"]), int(config["max_position_embeddings"])
    bias = bool(config.get("enable_bias", True))
    norm = 2 * hidden if config.get("layer_norm_elementwise_affine", True) else 0
    last_norm = norm if config.get("do_layer_norm_before", True) and not config.get("_remove_final_layer_norm") else 0
    return ModelShape(
        name, "opt", hidden, int(config["num_hidden_layers"]), heads, heads, hidden // heads, ffn,
        vocabulary=int(config["vocab_size"]), context=context, tied=bool(config.get("tie_word_embeddings", True)),
        layer_extras=2 * norm + (5 * hidden + ffn if bias else 0),
        other_extras=(context + 2) * hidden + last_norm,  # OPT's positions start at 2
    )  # fmt: skip


def _gpt2(config: Mapping[str, Any], name: str) -> ModelShape:
    hidden, heads = int(config["n_embd"]), int(config["n_head"])
    inner, context = int(config.get("n_inner") or 4 * hidden), int(config.get("n_positions") or 1024)
    return ModelShape(
        name, "gpt2", hidden, int(config["n_layer"]), heads, heads, hidden // heads, inner,
        vocabulary=int(config["vocab_size"]), context=context, tied=bool(config.get("tie_word_embeddings", True)),
        layer_extras=4 * hidden + 3 * hidden + hidden + inner + hidden,
        other_extras=context * hidden + 2 * hidden,
    )  # fmt: skip


def _codegen(config: Mapping[str, Any], name: str) -> ModelShape:
    hidden, heads = int(config["n_embd"]), int(config["n_head"])
    inner, vocabulary = int(config.get("n_inner") or 4 * hidden), int(config["vocab_size"])
    return ModelShape(
        name, "codegen", hidden, int(config["n_layer"]), heads, heads, hidden // heads, inner,
        vocabulary=vocabulary, context=int(config.get("n_positions") or 2048),
        tied=bool(config.get("tie_word_embeddings", False)),
        layer_extras=2 * hidden + inner + hidden, other_extras=2 * hidden + vocabulary,
    )  # fmt: skip


_READERS: Mapping[str, Callable[[Mapping[str, Any], str], ModelShape]] = {
    "llama": _llama, "mistral": _llama, "qwen2": _llama, "qwen3": _llama,
    "opt": _opt, "gpt2": _gpt2, "codegen": _codegen,
}  # fmt: skip


def _from_hub(source: ModelSource) -> Path:
    """The configuration of a hub model: from the cache, else downloaded (a kilobyte)."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    from reftcli.problems.datasets import no_waiting_for_an_absent_hub

    cached = try_to_load_from_cache(source.target, "config.json", revision=source.revision)
    if isinstance(cached, str):
        return Path(cached)
    try:
        with no_waiting_for_an_absent_hub():
            return Path(hf_hub_download(source.target, "config.json", revision=source.revision))
    except Exception as error:
        raise ModelUnavailable(
            f"cannot get config.json of {source.target} from the hub ({type(error).__name__}); give a folder with "
            f"--model PATH (only its config.json is read), or one of {', '.join(ALIASES)}"
        ) from error


def _llama_like(name: str, hidden: int, intermediate: int, layers: int, heads: int, kv: int, vocabulary: int,
                context: int, tied: bool) -> ModelShape:  # fmt: skip
    return _llama(
        {
            "model_type": "llama", "hidden_size": hidden, "intermediate_size": intermediate,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv,
            "vocab_size": vocabulary, "max_position_embeddings": context, "tie_word_embeddings": tied,
        },
        name,
    )  # fmt: skip


def _galactica(name: str, hidden: int, layers: int, heads: int) -> ModelShape:
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "ffn_dim": 4 * hidden}
    return _opt({"vocab_size": 50_000, "max_position_embeddings": 2048, **sizes}, name)


_SMOLLM2 = _llama_like("smollm2", 576, 1536, 30, 9, 3, vocabulary=49_152, context=8192, tied=True)
_TABLE: Mapping[str, ModelShape] = {
    "codellama": _llama_like("codellama", 4096, 11_008, 32, 32, 32, vocabulary=32_016, context=16_384, tied=False),
    "galactica": _galactica("galactica", 4096, 32, 32),
    "galactica-125m": _galactica("galactica-125m", 768, 12, 12),
    "codegen-350m": _codegen({"n_embd": 1024, "n_head": 16, "n_layer": 20, "vocab_size": 51_200}, "codegen-350m"),
    "codeparrot-small": _gpt2({"n_embd": 768, "n_head": 12, "n_layer": 12, "vocab_size": 32_768}, "codeparrot-small"),
    "smollm2": _SMOLLM2,
    "smollm2-q4": replace(_SMOLLM2, name="smollm2-q4"),
    "tiny": _llama_like("tiny", 128, 384, 4, 4, 4, vocabulary=586, context=1024, tied=True),
}
"""The models that have a short name, so that planning them needs no hub. A test walks the table of aliases."""
