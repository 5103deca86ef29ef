"""Computing only what is read: the last layer's feed-forward network at the positions whose hidden states are used.

Every position is needed as far as the last layer's attention, which others look through; what follows works on each
position by itself. Where a third of the tokens are completions, that saves two thirds of the last layer's largest part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from reftcli.models.packing import in_multiples


@contextmanager
def reading_only(model: PreTrainedModel, rows: Tensor) -> Iterator[None]:
    """While it lasts, last hidden states are right at these positions [n] of a forward pass over one row, [1, N, H].

    The positions are different ones. For families that keep this network in a module ``mlp`` of its own;
    `takes_own_attention` tries it. Nothing is saved where the backward pass runs the layers again (gradient
    checkpointing): that is outside of this block.
    """
    runs_again = model.is_gradient_checkpointing and torch.is_grad_enabled()
    network = None if runs_again else _last_feed_forward(model)
    if network is None:
        yield
        return
    shape: list[torch.Size] = []

    def take(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        states, *others = arguments
        if states.dim() != 3 or len(states) != 1:
            raise ValueError(f"the last layer's mlp is given {list(states.shape)}, not one row of hidden states")
        shape[:] = [states.shape]
        return in_multiples(taken(states[0], rows))[None], *others

    def put_back(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return output.new_zeros(shape[0][1:]).index_copy(0, rows, output[0, : len(rows)])[None]

    hooks = [network.register_forward_pre_hook(take), network.register_forward_hook(put_back)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _last_feed_forward(model: PreTrainedModel) -> nn.Module | None:
    last = re.compile(rf"(?:^|\.){model.config.num_hidden_layers - 1}\.mlp$")
    found = [module for name, module in model.named_modules() if last.search(name)]
    return found[0] if len(found) == 1 else None


def taken(states: Tensor, rows: Tensor) -> Tensor:
    """states[rows], [n, H], for different rows of states [N, H]: the backward pass need not add anything up."""
    found: Tensor = _Taken.apply(states, rows)  # type: ignore[no-untyped-call]
    return found


class _Taken(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = states.shape
        return states.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (rows,), (gradient,) = ctx.saved_tensors, gradients
        return gradient.new_zeros(ctx.shape).index_copy_(0, rows, gradient), None
