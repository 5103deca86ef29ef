"""The sampler on a real model: greedy output is HF generate's, token for token, on real prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from reftcli.models.load import load_model
from reftcli.models.source import resolve_model
from reftcli.problems.prompts import PromptBuilder
from reftcli.problems.record import Problem
from reftcli.sampling.interface import Decode
from reftcli.sampling.torch_sampler import TorchSampler

DATA = Path(__file__).resolve().parents[3] / "shared/data/svamp/svamp_python_sdp.json"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not DATA.exists(), reason="../shared/data is absent")]

PROMPTS, TOKENS, NEAR = 64, 40, 1e-3


def test_greedy_equals_generate_on_64_prompts() -> None:
    """A completion may leave HF's where the two best logits are as good as equal; what follows is another text."""
    loaded = load_model(resolve_model("smollm2-q4"))
    builder = PromptBuilder(loaded.tokenizer, "pcot", "paper", loaded.eos_token_id)
    rows = json.loads(DATA.read_text())[:PROMPTS]
    prompts = [builder.prompt(Problem(r["item_id"], r["question"], str(r["answer_value"]))) for r in rows]
    sampler = TorchSampler(
        loaded.model,
        eos_token_id=loaded.eos_token_id,
        pad_token_id=loaded.pad_token_id,
        batch_size=16,
        context=2048,
    )
    assert sampler.own_attention
    differing = []
    # Three more of each, whose prompts are held once for all of them: another way of computing the same.
    sharing = {(c.prompt.problem.item_id, c.token_ids) for c in sampler.sample(prompts, 4, Decode("greedy", TOKENS))}
    alone = sampler.sample(prompts, 1, Decode("greedy", TOKENS))
    apart = sharing ^ {(c.prompt.problem.item_id, c.token_ids) for c in alone}
    assert len({item_id for item_id, _ in apart}) <= PROMPTS // 8, apart
    for completion in alone:
        ids = torch.tensor([completion.prompt.token_ids])
        expected = loaded.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=TOKENS,
            eos_token_id=loaded.eos_token_id,
            pad_token_id=loaded.pad_token_id,
            return_dict_in_generate=True,
            output_logits=True,
        )
        theirs = expected.sequences[0, ids.shape[1] :].tolist()
        if list(completion.token_ids) == theirs:
            continue
        pairs = zip(completion.token_ids, theirs, strict=False)
        place = next(i for i, (ours, other) in enumerate(pairs) if ours != other)
        best, second = expected.logits[place][0].topk(2).values.tolist()
        differing.append((completion.prompt.problem.item_id, place, best - second))
    assert all(gap < NEAR for _, _, gap in differing), differing
    assert len(differing) <= PROMPTS // 8, differing
