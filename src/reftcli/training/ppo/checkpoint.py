"""Checkpoints of the RL stage: complete or absent, with everything that going on needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reftcli.errors import RuntimeFailure
from reftcli.models.lora import lora_state
from reftcli.runs.files import remove_folder
from reftcli.runs.folder import Run
from reftcli.runs.ranks import Ranks
from reftcli.training.engines import Engine
from reftcli.training.saving import check_written_by, folder_of_all, save_weights

STATE_FILE = "trainer_state.pt"


@dataclass(slots=True)
class RlState:
    """Where training stands. Random numbers need no entry: they are functions of seed, update and problem."""

    update: int = 0
    """Updates done."""
    best_accuracy: float = -1.0
    best_update: int = -1
    best_p: float = 1.0
    """Of its gain over the start: see `reftcli.training.ppo.best`."""
    highest_accuracy: float = -1.0
    highest_update: int = -1
    """Of all validations, whether or not its weights were taken as the best: what patience waits to see surpassed."""
    start_right: list[bool] | None = None
    """Which validation problems the start answered right."""
    last_accuracy: float = -1.0
    """Of the newest validation."""
    tokens: int = 0
    """Tokens of prompts and completions in all rollouts so far."""

    def __post_init__(self) -> None:
        if self.highest_update < 0 <= self.best_update:  # a checkpoint from before the two were told apart
            self.highest_accuracy, self.highest_update = self.best_accuracy, self.best_update


@dataclass(frozen=True, slots=True)
class Trained:
    """The parts of a trainer that a checkpoint holds, and who holds them."""

    policy: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    value_head: nn.Module
    engine: Engine
    lr_scheduler: Any
    ranks: Ranks


def save_checkpoint(run: Run, trained: Trained, state: RlState, keep: int) -> Path:
    """Writes ``checkpoints/step-N`` and removes the oldest beyond ``keep``. All processes call it.

    Raises:
        RuntimeFailure: the disk is full or read-only; earlier checkpoints stay as they are.
    """
    folder = run.checkpoints / f"step-{state.update}"
    with folder_of_all(folder, trained.ranks) as aside:
        save_weights(aside / "model", trained.policy, trained.tokenizer, trained.engine, trained.ranks)
        trained.engine.save(aside)
        if trained.ranks.is_main:
            torch.save({**_own_state(trained), "state": asdict(state)}, aside / STATE_FILE)
    if trained.ranks.is_main:
        for _, old in run.step_folders()[:-keep]:
            remove_folder(old)
    return folder


def _own_state(trained: Trained) -> dict[str, Any]:
    """What one process knows for all. Under DeepSpeed head, LoRA layers and moments are in DeepSpeed's own files."""
    state = {
        "engine": trained.engine.identity,
        "lr_scheduler": trained.lr_scheduler.state_dict(),
        "torch_rng": torch.get_rng_state(),
    }
    if optimizer := trained.engine.optimizer_state():
        state |= {
            "optimizer": optimizer,
            "value_head": trained.value_head.state_dict(),
            "lora": lora_state(trained.policy),
        }
    return state


def restore_checkpoint(folder: Path, trained: Trained) -> RlState:
    """Puts value head, LoRA layers, optimizer and schedule back; other weights were loaded from ``model/``.

    Raises:
        RuntimeFailure: the files do not fit.
    """
    try:
        saved: Mapping[str, Any] = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
        check_written_by(folder, saved.get("engine"), trained.engine.identity)
        if "optimizer" in saved:
            trained.value_head.load_state_dict(saved["value_head"])
            trained.policy.load_state_dict(saved["lora"], strict=False)
            trained.engine.load_optimizer_state(saved["optimizer"])
        trained.engine.load(folder, trained.lr_scheduler)
        trained.lr_scheduler.load_state_dict(saved["lr_scheduler"])
        torch.set_rng_state(saved["torch_rng"])
        return RlState(**saved["state"])
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise RuntimeFailure(f"{folder} cannot be resumed from: {error}") from error
