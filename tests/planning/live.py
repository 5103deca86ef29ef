"""Bytes of live tensors while our own code runs on fake ones: exact, for any size, without memory or arithmetic."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AutoConfig, AutoModelForCausalLM

from reftcli.training.ppo import policy as policy_module
from reftcli.training.ppo.policy import PolicyWithValueHead, ScoringInput, reference_logprobs, turn_off_dropout


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        if storage in self._seen:
            return
        size = storage.nbytes()
        self._seen[storage] = size
        weakref.finalize(storage, self._freed, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _freed(self, size: int) -> None:
        self.now -= size

    def highest(self, run: Callable[[], None]) -> int:
        """Bytes at the highest point of a call."""
        self.peak = self.now
        run()
        return self.peak


@contextmanager
def fake_world() -> Iterator[LiveBytes]:
    """Within it tensors have shapes and sizes, and nothing else."""
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
        yield live


def fake_policy(config: dict[str, Any], *, bf16: bool = False, checkpointing: bool = False) -> PolicyWithValueHead:
    """The trained network of a configuration in Hugging Face's spelling, with a shared value head."""
    sizes = {key: value for key, value in config.items() if key != "model_type"}
    dtype = torch.bfloat16 if bf16 else torch.float32
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **sizes), dtype=dtype)
    if checkpointing:
        model.gradient_checkpointing_enable()
    with patch.object(policy_module, "takes_own_attention", lambda _: config["model_type"] != "codegen"):
        wrapper = PolicyWithValueHead(model, nn.Linear(model.config.hidden_size, 1, dtype=dtype))
    turn_off_dropout(wrapper)
    wrapper.train(checkpointing)
    return wrapper


def scoring_input(rows: int, prompt: int, completion: int) -> ScoringInput:
    length = prompt + completion
    ids = torch.zeros(rows * length, dtype=torch.long)
    count = rows * completion
    return ScoringInput(
        ids, (length,) * rows, torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.long)
    )


def autocast(arithmetic: str) -> Any:
    return nullcontext if arithmetic == "fp32" else partial(torch.autocast, "cpu", torch.bfloat16)


def update(policy: Any, batch: ScoringInput, optimizer: Any, micro_batches: int = 1, arithmetic: str = "fp32") -> None:
    """An optimizer step as `reftcli.training.ppo.update` makes it."""
    for _ in range(micro_batches):
        logprobs, values, _ = policy(batch, 1.0, autocast(arithmetic))
        (logprobs.mean() + values.mean()).backward()
        del logprobs, values
    if optimizer is not None:
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
    policy.zero_grad()


def score(model: Any, batch: ScoringInput, packs: bool, case: Any) -> None:
    reference_logprobs(model, batch, 1.0, autocast(case.arithmetic), packs, case.chunk)
