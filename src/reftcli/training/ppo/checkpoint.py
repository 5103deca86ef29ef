"""Checkpoints of the RL stage: complete or absent, with everything that going on needs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reftcli.errors import RuntimeFailure
from reftcli.models.load import save_model
from reftcli.models.lora import lora_state
from reftcli.runs.files import folder_written_aside
from reftcli.runs.folder import Run

STATE_FILE = "trainer_state.pt"


@dataclass(slots=True)
class RlState:
    """Where training stands. Random numbers need no entry: they are functions of seed, update and problem."""

    update: int = 0
    """Updates done."""
    best_accuracy: float = -1.0
    best_update: int = -1
    last_accuracy: float = -1.0
    """Of the newest validation."""
    tokens: int = 0
    """Tokens of prompts and completions in all rollouts so far."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The parts of a trainer that a checkpoint holds."""

    policy: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    value_head: nn.Module
    optimizer: Any
    lr_scheduler: Any


def save_checkpoint(run: Run, trained: Trained, state: RlState, keep: int) -> Path:
    """Writes ``checkpoints/step-N`` and removes the oldest beyond ``keep``.

    Raises:
        RuntimeFailure: the disk is full or read-only; earlier checkpoints stay as they are.
    """
    folder = run.checkpoints / f"step-{state.update}"
    with folder_written_aside(folder) as aside:
        save_model(aside / "model", trained.policy, trained.tokenizer)
        torch.save(
            {
                "state": asdict(state),
                "value_head": trained.value_head.state_dict(),
                "lora": lora_state(trained.policy),
                "optimizer": trained.optimizer.state_dict(),
                "lr_scheduler": trained.lr_scheduler.state_dict(),
                "torch_rng": torch.get_rng_state(),
            },
            aside / STATE_FILE,
        )
    for _, old in run.step_folders()[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def restore_checkpoint(folder: Path, trained: Trained) -> RlState:
    """Puts value head, LoRA layers, optimizer and schedule back; other weights were loaded from ``model/``.

    Raises:
        RuntimeFailure: the files do not fit.
    """
    try:
        saved: Mapping[str, Any] = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
        trained.value_head.load_state_dict(saved["value_head"])
        trained.policy.load_state_dict(saved["lora"], strict=False)
        trained.optimizer.load_state_dict(saved["optimizer"])
        trained.lr_scheduler.load_state_dict(saved["lr_scheduler"])
        torch.set_rng_state(saved["torch_rng"])
        return RlState(**saved["state"])
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise RuntimeFailure(f"{folder} cannot be resumed from: {error}") from error
