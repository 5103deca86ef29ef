"""Every touch of TRL's PPOTrainer, in one place.

TRL has PPOTrainer up to 1.12 (``trl.experimental.ppo``); 1.13 removed it (huggingface/trl pull request 7020), which is
why ``trl`` is pinned below 1.13. What we take from it: the joining of policy and value function into one module, the
optimizer, the schedule, accelerate and DeepSpeed preparation. What it cannot do (see ``docs/design.md``) is overridden
in `reftcli.training.ppo.trainer`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import trl.experimental.ppo.ppo_trainer as _ppo_trainer
from torch import nn
from trl.experimental.ppo import PPOConfig, PPOTrainer

from reftcli.training.ppo.policy import PolicyWithValueHead

__all__ = ["NoRewardModel", "PPOConfig", "PPOTrainer", "shared_backbone", "use_max_grad_norm"]


class NoRewardModel(nn.Module):
    """Stands where PPOTrainer insists on a network: rewards come from graders, and LoRA needs no second reference."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden_size=1)


@contextmanager
def shared_backbone() -> Iterator[None]:
    """While ``PPOTrainer.__init__`` runs, it joins policy and value head in our module instead of its own.

    Its own wrapper runs a second backbone for the values. DeepSpeed must not wrap the empty reward model either.
    """
    wrapper, prepare = _ppo_trainer.PolicyAndValueWrapper, _ppo_trainer.prepare_deepspeed

    def prepare_real_models(model: nn.Module, accelerator: Any) -> Any:
        return model if isinstance(model, NoRewardModel) else prepare(model, accelerator)

    _ppo_trainer.PolicyAndValueWrapper = PolicyWithValueHead
    _ppo_trainer.prepare_deepspeed = prepare_real_models
    try:
        yield
    finally:
        _ppo_trainer.PolicyAndValueWrapper, _ppo_trainer.prepare_deepspeed = wrapper, prepare


@contextmanager
def use_max_grad_norm(max_grad_norm: float) -> Iterator[None]:
    """While ``PPOTrainer.__init__`` runs, DeepSpeed is told to clip at our setting: TRL leaves it at 1.

    Where DeepSpeed has no part, nothing happens.
    """
    prepare = _ppo_trainer.Accelerator.prepare

    def prepare_clipping(accelerator: Any, *objects: Any, **kwargs: Any) -> Any:
        plugin = getattr(accelerator.state, "deepspeed_plugin", None)
        if plugin is not None:
            plugin.deepspeed_config["gradient_clipping"] = max_grad_norm
        return prepare(accelerator, *objects, **kwargs)

    _ppo_trainer.Accelerator.prepare = prepare_clipping
    try:
        yield
    finally:
        _ppo_trainer.Accelerator.prepare = prepare
