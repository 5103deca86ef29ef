"""Work as a recipe gives it, and the helper that counts live bytes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reftcli.models.source import resolve_model
from reftcli.planning.shapes import ModelShape, shape_of
from reftcli.planning.work import Lengths, Work, lengths_of, work_of
from reftcli.recipe.layers import resolve_recipe


@pytest.fixture(scope="session")
def live() -> ModuleType:
    """`tests/planning/live.py`, which loads torch."""
    spec = importlib.util.spec_from_file_location("planning_live", Path(__file__).with_name("live.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["planning_live"] = module
    spec.loader.exec_module(module)
    return module


def paper_work(**changes: Any) -> tuple[ModelShape, Work]:
    """CodeLlama-7B on GSM8K with programs, as the packaged recipe says, and ``--set`` assignments."""
    recipe = resolve_recipe("codellama-7b/gsm8k-pcot", {}, [f"{key}={value}" for key, value in changes.items()])
    shape = shape_of(resolve_model("codellama"))
    return shape, work_of(recipe, "rl", shape, 6_973, lengths_of(recipe))


def plain_work(rows: int, prompt: int, completion: int, **changes: Any) -> Work:
    """One batch of equal sequences, trained on once; fp32 unless told."""
    values: dict[str, Any] = {
        "stage": "rl", "batch": rows, "mini_batch": rows, "micro_batch": None, "passes": 2, "steps": 1, "problems": rows,
        "lengths": Lengths(prompt, completion, completion, "given"), "max_tokens": prompt + completion,
        "max_prompt": prompt, "max_completion": completion, "decode_rows": rows, "validation_problems": 0,
        "validation_max_tokens": prompt + completion, "validations": 0, "bf16": False, "checkpointing": False,
        "logprob_chunk": None, "lora_rank": None, "separate_value": False, "recomputed": False, "vllm_share": None,
    }  # fmt: skip
    return Work(**{**values, **changes})


@pytest.fixture
def paper() -> Any:
    return paper_work


@pytest.fixture
def plain() -> Any:
    return plain_work
