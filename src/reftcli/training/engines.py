"""How gradients are added up and weights are kept: by torch alone (one process or DDP), or by DeepSpeed's ZeRO.

The equations do not know which; what differs is when gradients travel, who clips them, and where the fp32 weights are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import Tensor, nn

from reftcli.models.precision import under_deepspeed

_FOLDER = "deepspeed"
_TAG = "state"


class Engine(Protocol):
    """Steps a module that accelerate has prepared. All processes call every method."""

    @property
    def identity(self) -> str:
        """What a saved optimizer state fits: another engine cannot go on with it."""
        ...

    def accumulating(self, *, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward pass of a micro-batch; gradients travel with the last one of a step only."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss. Over processes they are averaged."""
        ...

    def step(self, max_grad_norm: float) -> float:
        """Clips, changes the weights, forgets the gradients; returns the norm before clipping."""
        ...

    def weights(self, module: nn.Module, *, wanted: bool) -> dict[str, Tensor] | None:
        """The whole fp32 weights of a module, where the module itself does not hold them; else None.

        Args:
            wanted: by this process; all of them must ask, and the others get an empty dictionary.
        """
        ...

    def whole_weights(self) -> AbstractContextManager[None]:
        """Within the block every process holds all weights, so that completions can be drawn."""
        ...

    def optimizer_state(self) -> Mapping[str, Any]:
        """What one process can keep for all; empty where each has a part of its own."""
        ...

    def load_optimizer_state(self, state: Mapping[str, Any]) -> None: ...

    def save(self, folder: Path) -> None:
        """Each process's own part of the state, if it has one."""
        ...

    def load(self, folder: Path, lr_scheduler: Any) -> None:
        """Each process's own part again; the schedule goes on setting the learning rates in force."""
        ...


class TorchEngine:
    """Every process holds everything."""

    identity = "torch"

    def __init__(self, accelerator: Accelerator, module: nn.Module, optimizer: Any) -> None:
        self._accelerator, self._module, self._optimizer = accelerator, module, optimizer

    @contextmanager
    def accumulating(self, *, last: bool) -> Iterator[None]:
        with nullcontext() if last else self._accelerator.no_sync(self._module):
            yield

    def backward(self, loss: Tensor) -> None:
        self._accelerator.backward(loss)

    def step(self, max_grad_norm: float) -> float:
        norm = self._accelerator.clip_grad_norm_(self._module.parameters(), max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return float("nan") if norm is None else float(norm)

    def weights(self, module: nn.Module, *, wanted: bool) -> dict[str, Tensor] | None:
        return None

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        yield

    def optimizer_state(self) -> Mapping[str, Any]:
        state: Mapping[str, Any] = self._optimizer.state_dict()
        return state

    def load_optimizer_state(self, state: Mapping[str, Any]) -> None:
        self._optimizer.load_state_dict(state)

    def save(self, folder: Path) -> None:
        return None

    def load(self, folder: Path, lr_scheduler: Any) -> None:
        return None


class DeepSpeedEngine:
    """Moments, gradients (ZeRO-2) and weights (ZeRO-3) are divided over the processes; master weights are fp32.

    Clipping is DeepSpeed's own, from its configuration: see `use_max_grad_norm`.
    """

    def __init__(self, accelerator: Accelerator, module: Any, frozen: Mapping[str, Tensor] | None = None) -> None:
        self._accelerator, self._engine, self._frozen = accelerator, module, frozen or {}
        self._stage = int(module.zero_optimization_stage())

    @property
    def identity(self) -> str:
        return _identity(self._stage, self._accelerator.num_processes)

    @contextmanager
    def accumulating(self, *, last: bool) -> Iterator[None]:
        self._engine.set_gradient_accumulation_boundary(is_boundary=last)
        yield

    def backward(self, loss: Tensor) -> None:
        self._engine.backward(loss)

    def step(self, max_grad_norm: float) -> float:
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return float("nan") if norm is None else float(norm)

    def weights(self, module: nn.Module, *, wanted: bool) -> dict[str, Tensor] | None:
        return full_weights(module, wanted=wanted, frozen=self._frozen)

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        from trl.models.utils import unwrap_model_for_generation

        with unwrap_model_for_generation(self._engine, self._accelerator):
            yield

    def optimizer_state(self) -> Mapping[str, Any]:
        return {}

    def load_optimizer_state(self, state: Mapping[str, Any]) -> None:
        return None

    def save(self, folder: Path) -> None:
        self._engine.save_checkpoint(str(folder / _FOLDER), tag=_TAG)

    def load(self, folder: Path, lr_scheduler: Any) -> None:
        loaded, _ = self._engine.load_checkpoint(
            str(folder / _FOLDER), tag=_TAG, load_lr_scheduler_states=False, load_optimizer_states=True
        )
        if loaded is None:
            raise OSError(f"{folder / _FOLDER} holds no state of DeepSpeed's")
        # Loading makes new parameter groups; with offload the schedule holds another optimizer, which has the old ones.
        lr_scheduler.optimizer.param_groups = self._engine.optimizer.param_groups


def engine_of(
    accelerator: Accelerator, module: nn.Module, optimizer: Any, frozen: Mapping[str, Tensor] | None = None
) -> Engine:
    """The engine that accelerate has prepared the module for.

    Args:
        frozen: exact weights that are not trained, for DeepSpeed, which keeps rounded ones.
    """
    if uses_deepspeed(accelerator) and hasattr(module, "zero_optimization_stage"):  # else it was never prepared
        return DeepSpeedEngine(accelerator, module, frozen)
    return TorchEngine(accelerator, module, optimizer)


def engine_identity(processes: int) -> str:
    """`Engine.identity` of what accelerate was launched with, before an engine exists."""
    if not under_deepspeed():
        return TorchEngine.identity
    plugin = AcceleratorState().deepspeed_plugin
    return _identity(int(plugin.hf_ds_config.get_value("zero_optimization.stage")), processes)


def _identity(stage: int, processes: int) -> str:
    return f"deepspeed zero{stage} on {processes} processes"


def uses_deepspeed(accelerator: Accelerator) -> bool:
    """Whether accelerate was launched with a DeepSpeed configuration."""
    return bool(accelerator.distributed_type == DistributedType.DEEPSPEED)


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Within the block this process holds the module's own weights whole, also under ZeRO-3. All processes enter it.

    For what uses weights several times: each call of a module would gather them anew, and processes whose data differ
    do not make the same number of calls.
    """
    # What DeepSpeed holds for the module around this one is whole already, and not ours to give back.
    divided = [
        p for p in module.parameters() if (status := getattr(p, "ds_status", None)) and status.name != "AVAILABLE"
    ]
    if not divided:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(divided):
        yield


@torch.no_grad()
def beyond_bf16(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the weights that bf16 rounds. DeepSpeed makes its fp32 master weights from the rounded ones."""
    if not under_deepspeed():
        return {}
    return {
        name: weight.detach().cpu().clone()
        for name, weight in module.named_parameters()
        if weight.dtype == torch.float32 and not torch.equal(weight.bfloat16().float(), weight)
    }


@torch.no_grad()
def set_masters(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Puts `beyond_bf16` back, into the fp32 master weights, so that training starts where it was to start."""
    if not weights:
        return
    from deepspeed.utils import safe_get_full_fp32_param, safe_set_full_fp32_param

    for name, parameter in module.named_parameters():
        if name in weights and parameter.dtype == torch.bfloat16 and parameter.requires_grad:
            master = safe_get_full_fp32_param(parameter)
            safe_set_full_fp32_param(parameter, weights[name].to(master.device).view_as(master))


@torch.no_grad()
def full_weights(module: nn.Module, *, wanted: bool, frozen: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Master weights of a module under DeepSpeed, in fp32 on the CPU, gathered one after another.

    Buffers come as they are, and so do frozen weights that are not among those given. Only the process that wants them
    keeps them.
    """
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param

    found: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            master = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
            if wanted:
                whole = (frozen or {}).get(name, parameter.data) if master is None else master
                found[name] = whole.detach().float().cpu().clone()
    if wanted:
        parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
        found |= {k: v.detach().cpu() for k, v in module.state_dict().items() if k not in parameters}
    return found
