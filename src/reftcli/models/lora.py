"""LoRA by peft: small trained matrices beside frozen weights, in a model that otherwise stays what it was.

The layers are put into the model in place, so its class, its backbone and its head are those of the plain model.
Without them it is the model that it started from, which is why RL needs no second copy as its reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from reftcli.errors import UsageError

_ADAPTER = "default"


def add_lora(model: PreTrainedModel, rank: int, alpha: float, seed: int) -> None:
    """Puts LoRA layers beside all linear layers but the head, and freezes everything else.

    Raises:
        UsageError: the model has no layer that takes them.
    """
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", bias="none", task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
        except ValueError as error:
            raise UsageError(f"LoRA does not fit {type(model).__name__}: {error}") from error


def has_lora(model: nn.Module) -> bool:
    """Whether `add_lora` was here."""
    return any(isinstance(module, LoraLayer) for module in model.modules())


@contextmanager
def without_lora(model: nn.Module) -> Iterator[None]:
    """While it lasts, the model computes as if it had never been trained."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The trained matrices, by name."""
    return {name: tensor for name, tensor in model.state_dict().items() if ".lora_" in name}


@torch.no_grad()
def merged_state(model: nn.Module, weights: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Weights of the plain model with the trained matrices added in, under the plain model's names.

    Args:
        weights: all weights of ``model``, where it does not hold them itself.
    """
    state = model.state_dict() if weights is None else weights
    deltas = {
        f"{name}.weight": _delta(module, name, state)
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    merged: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        merged[plain] = tensor + deltas[plain] if plain in deltas else tensor
    return merged


def _delta(layer: LoraLayer, name: str, state: Mapping[str, Tensor]) -> Tensor:
    """What a layer adds to its base weight:   B A * alpha / rank   (transposed for Conv1D)."""
    a, b = (state[f"{name}.{part}.{_ADAPTER}.weight"] for part in ("lora_A", "lora_B"))
    delta: Tensor = (b @ a) * layer.scaling[_ADAPTER]
    return delta.t() if getattr(layer, "fan_in_fan_out", False) else delta
