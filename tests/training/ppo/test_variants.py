"""Settings that change what is trained: LoRA, a separate value model, chunks of logits. Each resumes to the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from reftcli.errors import Interrupted
from reftcli.evaluation.data import data_request
from reftcli.models.source import resolve_model
from reftcli.problems.load import load_problem_sets
from reftcli.recipe.schema import Recipe
from reftcli.runs.files import read_jsonl
from reftcli.runs.folder import Run
from reftcli.runs.progress import SilentProgress
from reftcli.training.stages import StageRequest, rl_stage

VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {"lora_rank": 4, "learning_rate": 1e-2},
    "separate value model": {"value_model": "separate"},
    "chunked logits": {"logprob_chunk": 16},
    "recomputed log-probabilities": {"rollout_logprobs": "recomputed"},
}


def request(recipe: Recipe, warm: Run, runs_dir: Path, name: str, resume: Run | None = None) -> StageRequest:
    sets = load_problem_sets(data_request(recipe.data))
    return StageRequest(recipe, sets, resolve_model(str(warm.final)), runs_dir, name=name, parent=warm, resume=resume)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder).state_dict())


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_trains_and_resumes_to_the_same_bits(
    variant: str, recipe: Recipe, warm: Run, runs_dir: Path, stop_after: Callable[..., Any]
) -> None:
    changed = recipe.model_copy(update={"rl": recipe.rl.model_copy(update=VARIANTS[variant])})
    whole, _ = rl_stage(request(changed, warm, runs_dir, "whole"), SilentProgress())
    with pytest.raises(Interrupted):
        rl_stage(request(changed, warm, runs_dir, "cut"), stop_after("rl", 2))
    run = Run(runs_dir / "cut")
    rl_stage(request(changed, warm, runs_dir, "cut", resume=run), SilentProgress())
    before, straight, resumed = weights(warm.final), weights(whole.final), weights(run.final)
    assert before.keys() == straight.keys() == resumed.keys()
    assert any(not torch.equal(before[name], straight[name]) for name in before)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    rows = [row for row in read_jsonl(whole.metrics_file) if "reward_mean" in row]
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-3), "the reference is the start"
    assert rows[0]["clip_fraction"] <= 0.5
    assert abs(rows[2]["kl"]) > 1e-4, "and stays it"


def test_gradient_checkpointing_runs_layers_again_and_changes_nothing_else(
    recipe: Recipe, warm: Run, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = rl_stage(request(recipe, warm, runs_dir, "plain"), SilentProgress())
    calls: list[object] = []
    checkpoint = transformers.modeling_utils.checkpoint

    def counting(*arguments: Any, **settings: Any) -> Any:
        calls.append(None)
        return checkpoint(*arguments, **settings)

    monkeypatch.setattr(transformers.modeling_utils, "checkpoint", counting)
    saving = recipe.model_copy(update={"model": recipe.model.model_copy(update={"gradient_checkpointing": True})})
    run, _ = rl_stage(request(saving, warm, runs_dir, "saving"), SilentProgress())
    assert calls
    expected, found = weights(plain.final), weights(run.final)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
