"""The floor of a PPO update: what is left of it when only the products of its linear layers are made, and the step.

Not a way to learn: inputs are random, attention, norms, losses and everything between are left out. What is there is
what no engine that computes the same update can leave out, at the speed of the same library on the same cores:

    decoding    a pass over all weights for every step, with the rows that have not ended; the prompts, once
    reference   a pass over prompts and completions, logits of completion tokens only
    training    PPO epochs x (a pass, and twice its work for the gradients), in micro-batches of whole rows
    step        AdamW over all weights
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ppo_contestants import Work


class Floor:
    """The products of one update on a model's own layers."""

    def __init__(self, work: Work, model: Any, learning_rate: float, epochs: int) -> None:
        self.model, self.epochs = model, epochs
        self.head: nn.Module = model.lm_head
        self.layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not self.head]
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0, fused=True)
        self.rows = [
            (len(prompt), len(completion)) for prompt, completion in zip(work.prompts, work.completions, strict=True)
        ]
        self.micro_batch = work.micro_batch

    def update(self) -> dict[str, float]:
        with torch.no_grad():
            self._decode()
            self._pass(sum(map(sum, self.rows)), self._completion_tokens(self.rows))
        for _ in range(self.epochs):
            for first in range(0, len(self.rows), self.micro_batch):
                rows = self.rows[first : first + self.micro_batch]
                self._pass(sum(map(sum, rows)), self._completion_tokens(rows), gradients=True)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return {}

    def _decode(self) -> None:
        from reftcli.models.onednn import prepacked

        self._pass(sum(prompt for prompt, _ in self.rows), len(self.rows))
        with prepacked(self.model, len(self.rows)):
            for step in range(1, max(completion for _, completion in self.rows)):
                live = sum(completion > step for _, completion in self.rows)
                self._pass(live, live)

    def _pass(self, tokens: int, predicted: int, gradients: bool = False) -> None:
        for layer in self.layers:
            self._product(layer, tokens, gradients)
        self._product(self.head, predicted, gradients)

    @staticmethod
    def _product(layer: Any, tokens: int, gradients: bool) -> None:
        found: Tensor = layer(torch.ones(tokens, layer.in_features, requires_grad=gradients))
        if gradients:
            found.backward(torch.ones_like(found))

    @staticmethod
    def _completion_tokens(rows: list[tuple[int, int]]) -> int:
        return sum(completion for _, completion in rows)
