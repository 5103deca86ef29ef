"""What autograd really keeps, on fake tensors: layer by layer, then whole updates of our own code."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from reftcli.planning.activations import SHORT, SHORT_PER_ELEMENT, Arithmetic, kept_of_layer, kept_per_layer
from reftcli.planning.memory import memory_of
from reftcli.planning.shapes import shape_from_config

LLAMA = {
    "model_type": "llama", "vocab_size": 96, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": True,
}  # fmt: skip
OPT = {
    "model_type": "opt", "vocab_size": 96, "hidden_size": 64, "ffn_dim": 160, "num_hidden_layers": 1,
    "num_attention_heads": 4, "max_position_embeddings": 512, "word_embed_proj_dim": 64, "activation_function": "gelu",
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "vocab_size": 96, "n_embd": 64, "n_layer": 1, "n_head": 4, "n_positions": 512}
LAYERS = {"llama": "num_hidden_layers", "opt": "num_hidden_layers", "gpt2": "n_layer"}


def kept_bytes(live: ModuleType, config: dict[str, Any], arithmetic: Arithmetic, tokens: int) -> int:
    """Bytes of the distinct tensors that a forward pass over two sequences saves, weights apart."""
    import torch

    with live.fake_world():
        policy = live.fake_policy(config, bf16=arithmetic == "bf16")
        own = {id(p.untyped_storage()) for p in (*policy.parameters(), *policy.buffers())}
        found: dict[int, int] = {}
        alive = []

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if id(storage) not in own:
                found[id(storage)] = storage.nbytes()
                alive.append(storage)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            policy(live.scoring_input(2, tokens - 1, 1), 1.0, live.autocast(arithmetic))
    return sum(found.values())


@pytest.mark.parametrize("arithmetic", ["fp32", "autocast", "bf16"])
@pytest.mark.parametrize("config", [LLAMA, OPT, GPT2], ids=lambda c: c["model_type"])
def test_a_layer_keeps_what_the_table_says(config: dict[str, Any], arithmetic: Arithmetic, live: ModuleType) -> None:
    if arithmetic == "bf16" and config is not LLAMA:
        pytest.skip("LayerNorm of bf16 weights is counted as autocast makes it on a GPU, which the CPU does not")
    key = LAYERS[config["model_type"]]

    def per_token(layers: int) -> float:
        longer, shorter = (kept_bytes(live, {**config, key: layers}, arithmetic, tokens) for tokens in (256, 224))
        return (longer - shorter) / (2 * 32)

    measured = (per_token(3) - per_token(1)) / 2
    assert kept_per_layer(shape_from_config(config, "it"), arithmetic) == pytest.approx(measured, abs=8)


@pytest.mark.parametrize("config", [LLAMA, OPT, GPT2], ids=lambda c: c["model_type"])
def test_short_sequences_keep_their_scores(config: dict[str, Any], live: ModuleType) -> None:
    key = LAYERS[config["model_type"]]
    for tokens in (32, 64, 72):  # heads of 16 elements
        three, one = (kept_bytes(live, {**config, key: layers}, "fp32", tokens) for layers in (3, 1))
        planned = kept_of_layer(shape_from_config(config, "it"), 2, tokens, "fp32")
        assert planned == pytest.approx((three - one) / 2, rel=0.01)


def test_short_is_what_attention_takes_for_short() -> None:
    from reftcli.models.short_sequences import LONGEST, PER_ELEMENT

    assert (SHORT, SHORT_PER_ELEMENT) == (LONGEST, PER_ELEMENT)


@dataclass(frozen=True)
class Case:
    """A model and an update of it; the profile that computes so on one process."""

    config: dict[str, Any]
    rows: int
    prompt: int
    completion: int
    micro_batches: int = 1
    arithmetic: Arithmetic = "fp32"
    checkpointing: bool = False
    chunk: int | None = None


CODELLAMA = {
    **LLAMA, "vocab_size": 32_016, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip
SMOLLM2 = {
    **LLAMA, "vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 10,
    "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 4096,
}  # fmt: skip
GALACTICA_125M = {
    **OPT, "vocab_size": 50_000, "hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "word_embed_proj_dim": 768, "max_position_embeddings": 2048,
}  # fmt: skip
CODEPARROT = {**GPT2, "vocab_size": 32_768, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024}
CASES = {
    "the paper's batch of one GPU, fp32": Case(CODELLAMA, 4, 134, 566),
    "the paper's batch of one GPU, autocast": Case(CODELLAMA, 4, 134, 566, arithmetic="autocast"),
    "7B in micro-batches, autocast, checkpointing": Case(CODELLAMA, 2, 134, 566, 2, "autocast", checkpointing=True),
    "SmolLM2, short": Case(SMOLLM2, 8, 90, 62),
    "SmolLM2, long": Case(SMOLLM2, 4, 134, 566),
    "SmolLM2, micro-batches": Case(SMOLLM2, 4, 100, 100, 2),
    "SmolLM2, autocast": Case(SMOLLM2, 8, 100, 200, arithmetic="autocast"),
    "SmolLM2, checkpointing": Case(SMOLLM2, 8, 134, 566, checkpointing=True),
    "SmolLM2, autocast, checkpointing": Case(SMOLLM2, 8, 134, 566, arithmetic="autocast", checkpointing=True),
    "SmolLM2, chunks": Case(SMOLLM2, 8, 134, 366, chunk=128),
    "Galactica-125M": Case(GALACTICA_125M, 4, 134, 366),
    "Galactica-125M, autocast": Case(GALACTICA_125M, 4, 134, 366, arithmetic="autocast"),
    "Codeparrot": Case(CODEPARROT, 4, 134, 366),
}


@pytest.mark.parametrize("name", CASES)
def test_an_update_needs_what_the_plan_says(name: str, live: ModuleType, plain: Any) -> None:
    """Weights, moments, gradients, activations and logits together, at the highest point of our own update."""
    import torch

    case = CASES[name]
    with live.fake_world() as count:
        policy = live.fake_policy(case.config, checkpointing=case.checkpointing)
        policy.logprob_chunk = case.chunk
        optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-6, fused=True)
        batch = live.scoring_input(case.rows, case.prompt, case.completion)
        live.update(policy, batch, optimizer, 1, case.arithmetic)  # makes the moments
        measured = count.highest(lambda: live.update(policy, batch, optimizer, case.micro_batches, case.arithmetic))
    rows = case.rows * case.micro_batches
    work = plain(
        rows, case.prompt, case.completion, bf16=case.arithmetic == "autocast", checkpointing=case.checkpointing,
        logprob_chunk=case.chunk,
    )  # fmt: skip
    shape = shape_from_config(case.config, "it")
    memory = memory_of(shape, work, "single", 1, case.rows, 0)
    planned = max(memory.total(phase) - memory.phases[phase]["reference"] for phase in ("update", "step"))
    assert planned == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize(
    "name",
    [
        "SmolLM2, long", "SmolLM2, chunks", "SmolLM2, autocast", "Galactica-125M",
        "the paper's batch of one GPU, autocast",
    ],
)  # fmt: skip
def test_scoring_needs_what_the_plan_says(name: str, live: ModuleType, plain: Any) -> None:
    case = CASES[name]
    with live.fake_world() as count:
        policy = live.fake_policy(case.config)
        batch = live.scoring_input(case.rows, case.prompt, case.completion)
        before = count.now
        measured = count.highest(lambda: live.score(policy.policy, batch, policy.packs, case)) - before
    work = plain(case.rows, case.prompt, case.completion, bf16=case.arithmetic == "autocast", logprob_chunk=case.chunk)
    memory = memory_of(shape_from_config(case.config, "it"), work, "single", 1, case.rows, 0)
    planned = sum(memory.phases["scoring"][part] for part in ("activations", "logits", "casts"))
    assert planned == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(("checkpointing", "within"), [(False, 0.05), (True, 0.2)])
def test_lora_layers_need_what_the_plan_says(checkpointing: bool, within: float, live: ModuleType, plain: Any) -> None:
    """On real tensors, since peft moves modules in a way that fake ones do not bear."""
    import torch

    from reftcli.models.lora import add_lora

    config = {**LLAMA, "vocab_size": 2000, "hidden_size": 256, "intermediate_size": 700, "num_hidden_layers": 6}
    with live.LiveBytes() as count:
        policy = live.fake_policy(config, checkpointing=checkpointing)
        add_lora(policy.policy, 16, 16, 0)
        trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)
        batch = live.scoring_input(4, 60, 60)
        live.update(policy, batch, optimizer)
        measured = count.highest(lambda: live.update(policy, batch, optimizer))
    work = plain(4, 60, 60, checkpointing=checkpointing, lora_rank=16)
    memory = memory_of(shape_from_config(config, "it"), work, "single", 1, 4, 0)
    planned = max(memory.total(phase) for phase in ("update", "step"))
    assert planned == pytest.approx(measured, rel=within)
