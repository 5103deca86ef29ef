"""States of each profile by hand, DeepSpeed's own estimators, and what settings change."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from reftcli.launch.profiles import PROFILES, Profile
from reftcli.models.source import resolve_model
from reftcli.planning.memory import Memory, memory_of
from reftcli.planning.shapes import shape_from_config, shape_of
from reftcli.planning.states import BUCKET_ELEMENTS, LIVE_PARAMETERS, PARTS, SUB_GROUP, States, Trained, states_of

P = 6_738_546_688  # CodeLlama-7B
GB = 10**9


def states(profile: Profile, processes: int, *, bf16: bool = True, parameters: int = P) -> States:
    return states_of(Trained(parameters, parameters, 0, 0), profile, processes, bf16=bf16, reference=parameters)


@pytest.mark.parametrize(
    ("profile", "processes", "policy", "reference", "optimizer", "gradients", "buffers"),
    [
        # per parameter: fp32 weights 4, reference 4, two moments 8; DDP's buckets 4
        ("single", 1, 4 * P, 4 * P, 8 * P, 0, 0),
        ("multi", 8, 4 * P, 4 * P, 8 * P, 0, 4 * P),
        # bf16 weights 2, reference 2; master and moments 12, over 8; stage 1 keeps whole fp32 gradients for good
        ("zero1", 8, 2 * P, 2 * P, 12 * P // 8, 4 * P, 0),
        ("zero2", 8, 2 * P, 2 * P, 12 * P // 8, 0, 0),
        ("zero3", 8, 2 * P // 8, 2 * P // 8, 12 * P // 8, 4 * P // 8, 2 * BUCKET_ELEMENTS),
        ("zero3-offload", 8, 0, 0, 0, 0, 2 * BUCKET_ELEMENTS),
    ],
)
def test_states_by_hand(
    profile: Profile, processes: int, policy: int, reference: int, optimizer: int, gradients: int, buffers: int
) -> None:
    found = states(profile, processes)
    assert (found.policy, found.reference, found.optimizer, found.gradients, found.buffers) == (
        policy, reference, optimizer, gradients, buffers,
    )  # fmt: skip


def test_fp32_weights_are_their_own_master_in_zero3_only() -> None:
    assert states("zero2", 4, bf16=False).optimizer == 12 * P // 4
    assert states("zero3", 4, bf16=False).optimizer == 8 * P // 4
    assert states("zero2", 4, bf16=False).policy == 4 * P


def test_codellama_under_zero2_on_eight_gpus_by_hand(paper: Any) -> None:
    """The paper's setting. 4 of 32 rollouts on a GPU, at most 700 tokens each, 566 of them completion."""
    shape, work = paper()
    memory = memory_of(shape, work, "zero2", 8, 4, 0)
    update, step, validation = (memory.phases[phase] for phase in ("update", "step", "validation"))
    assert update["policy"] == update["reference"] == pytest.approx(13.48 * GB, rel=1e-3)
    assert update["optimizer"] == pytest.approx(10.11 * GB, rel=1e-3)
    # a layer keeps 16 h + 6 q + 4 kv + 8 i = 26 x 4096 + 8 x 11008 = 194,560 bytes of a token; 32 layers, 2,800 tokens
    assert update["activations"] == pytest.approx(32 * 2800 * 194_560, rel=0.01)
    # 2,264 completion tokens x 32,016 x (2 + 4) bytes
    assert update["logits"] == pytest.approx(0.435 * GB, rel=0.1)
    assert step["gradients"] == 4 * (P + 4097) // 8
    # 63 of 500 problems, 700 + 64 columns; keys and values of 4096 in 32 layers, 2 bytes; and one layer's copy
    assert validation["kv_cache"] == pytest.approx(63 * 764 * 2 * 4096 * 32 * 2 * 33 / 32, rel=1e-6)
    assert update["value"] == 2 * 4097
    assert memory.peak_phase == "validation"
    assert memory.peak == pytest.approx(64.9 * GB, rel=0.01)


def test_the_peak_is_the_largest_phase_and_not_the_sum(paper: Any) -> None:
    shape, work = paper()
    for profile in PROFILES:
        memory = memory_of(shape, work, profile, 1 if profile == "single" else 8, 1, 0)
        totals = [sum(amounts.values()) for amounts in memory.phases.values()]
        assert memory.peak == max(totals) < sum(totals)
        assert all(set(amounts) == set(PARTS) and min(amounts.values()) >= 0 for amounts in memory.phases.values())
        assert set(memory.phases) == {"start", "rollout", "scoring", "validation", "update", "step"}


# DeepSpeed's estimators ------------------------------------------------------------------------------------------

MODELS = ("codellama", "galactica", "smollm2", "codegen-350m")
CLUSTERS = ((1, 1), (8, 1), (8, 4), (4, 16))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("gpus", "nodes"), CLUSTERS)
def test_zero2_against_deepspeeds_estimator(name: str, gpus: int, nodes: int) -> None:
    """Theirs: 2 + 18 / n. It counts bf16 and fp32 gradients; accumulating in fp32 keeps one partition, of 4 / n."""
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    parameters, n = shape_of(resolve_model(name)).parameters, gpus * nodes
    _, theirs = estimate_zero2_model_states_mem_needs(parameters, gpus, nodes, cpu_offload=False)
    found = states("zero2", n, parameters=parameters)
    ours = found.policy + found.optimizer + 4 * parameters // n  # the last: gradients in the step
    assert ours + 2 * parameters / n == pytest.approx(theirs, rel=1e-6)
    assert ours == pytest.approx(theirs, rel=0.11)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("gpus", "nodes"), CLUSTERS)
def test_zero3_against_deepspeeds_estimator(name: str, gpus: int, nodes: int) -> None:
    """Theirs: 18 / n and one layer. The states are the same; ours count the layers that are gathered at once by
    DeepSpeed's own limit, its bucket, and the copy of a sub-group's gradients that its step makes."""
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs

    shape, n = shape_of(resolve_model(name)), gpus * nodes
    _, theirs, layer = estimate_zero3_model_states_mem_needs(
        shape.parameters, shape.largest_matrix, gpus, nodes, cpu_offload=False
    )
    found = states("zero3", n, parameters=shape.parameters)
    assert found.policy + found.optimizer + found.gradients == pytest.approx(theirs - layer, rel=1e-6)
    assert 2 * min(LIVE_PARAMETERS, shape.parameters) >= layer / 2  # theirs: weights and gradients of it


@pytest.mark.parametrize("name", MODELS)
def test_offloaded_states_against_deepspeeds_estimator(name: str) -> None:
    """Theirs: 18 in main memory, times a margin of 1.5. Ours: 22, for what the step copies, without a margin."""
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs

    parameters = shape_of(resolve_model(name)).parameters
    theirs, on_gpu, layer = estimate_zero3_model_states_mem_needs(parameters, 0, 8, 1, cpu_offload=True)
    assert (on_gpu, layer) == (0, 0)
    found = states_of(Trained(parameters, parameters, 0, 0), "zero3-offload", 8, bf16=True, reference=0)
    assert found.policy + found.optimizer + found.gradients == 0
    assert theirs / 1.5 <= found.host <= theirs


# What settings change --------------------------------------------------------------------------------------------


def small(work: Any, profile: Profile = "single", processes: int = 1, micro_batch: int = 8) -> Memory:
    return memory_of(shape_of(resolve_model("smollm2")), work, profile, processes, micro_batch, 0)


def test_gqa_makes_the_cache_smaller(plain: Any) -> None:
    """SmolLM2 has 3 heads of keys for 9 of queries: 30 layers x 2 x 192 x 4 bytes a token."""
    cache = small(plain(8, 100, 100)).phases["rollout"]["kv_cache"]
    assert cache == pytest.approx(8 * 264 * 30 * 2 * 192 * 4 * 31 / 30, rel=1e-6)


def test_micro_batches_save_activations_and_cost_kept_gradients(plain: Any) -> None:
    whole, half = (small(plain(8, 100, 100), micro_batch=size) for size in (8, 4))
    assert half.phases["update"]["activations"] * 2 == whole.phases["update"]["activations"]
    gradients = 4 * (134_515_008 + 577)
    assert half.phases["update"]["gradients"] - whole.phases["update"]["gradients"] == gradients
    assert half.phases["step"] == whole.phases["step"]


@pytest.mark.parametrize("phase", ["update", "scoring"])
def test_chunks_bound_the_logits(phase: str, plain: Any) -> None:
    without, chunked = (small(plain(8, 100, 400, logprob_chunk=chunk)) for chunk in (None, 64))
    assert chunked.phases[phase].get("logits", 0) < without.phases[phase]["logits"] / 2


def test_checkpointing_keeps_one_stream_a_layer(plain: Any) -> None:
    update = small(plain(8, 100, 400, checkpointing=True)).phases["update"]
    assert update["activations"] < small(plain(8, 100, 400)).phases["update"]["activations"] / 5


def test_lora_needs_no_reference_and_small_moments(plain: Any) -> None:
    memory = small(plain(8, 100, 100, lora_rank=8))
    assert memory.phases["update"]["reference"] == 0
    shape = shape_of(resolve_model("smollm2"))
    assert memory.phases["update"]["optimizer"] == 8 * (shape.lora_parameters(8) + 577)
    assert memory.phases["step"]["gradients"] == 4 * (shape.lora_parameters(8) + 577)


def test_a_separate_value_model_is_a_second_model(plain: Any) -> None:
    shared, separate = (small(plain(8, 100, 100, separate_value=value)).phases["update"] for value in (False, True))
    assert shared["value"] == 4 * 577
    assert separate["value"] == 4 * (134_515_008 + 577)
    assert separate["optimizer"] == pytest.approx(2 * shared["optimizer"], rel=1e-4)
    assert separate["activations"] == 2 * shared["activations"]


def test_plain_profiles_cast_weights_under_bf16(plain: Any) -> None:
    shape = shape_of(resolve_model("smollm2"))
    products = shape.matrices + shape.head
    memory = small(plain(8, 100, 100, bf16=True))
    assert memory.phases["update"]["casts"] == memory.phases["rollout"]["casts"] == 2 * products
    assert small(plain(8, 100, 100, bf16=True), "zero2", 2).phases["update"]["casts"] == 0


def test_zero3_gathers_all_weights_to_draw(plain: Any) -> None:
    memory = small(plain(8, 100, 100, bf16=True), "zero3", 4, 2)
    assert memory.phases["rollout"]["buffers"] == 2 * BUCKET_ELEMENTS + 2 * (134_515_008 + 577)
    head = 2 * 49_152 * 576  # tied: that of the embedding is made beside it
    assert memory.phases["step"]["gradients"] == pytest.approx(2 * (134_515_008 + 577) + head)  # with its copy
    assert SUB_GROUP > 134_515_008


def test_vllm_holds_its_share_all_the_time(paper: Any) -> None:
    shape, work = paper()
    memory = memory_of(shape, replace(work, vllm_share=0.3), "zero2", 8, 4, 80 * GB)
    for phase in ("rollout", "validation", "update", "step"):
        assert memory.phases[phase]["kv_cache"] == 24 * GB  # type: ignore[index]


def test_codegen_keeps_its_scores(plain: Any) -> None:
    config = {"model_type": "codegen", "vocab_size": 512, "n_embd": 256, "n_layer": 2, "n_head": 4, "n_positions": 2048}
    shape = shape_from_config(config, "it")
    short, long = (memory_of(shape, plain(1, size, size), "single", 1, 1, 0).phases["update"] for size in (100, 1000))
    assert long["activations"] > 15 * short["activations"]  # more than the ten times as many tokens


def test_drawing_needs_what_the_plan_says(live: ModuleType, plain: Any) -> None:
    """On real tensors: the cache and what else decoding makes, without the CPU's copy of the weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from reftcli.problems.prompts import Prompt
    from reftcli.problems.record import Problem
    from reftcli.sampling import torch_sampler
    from reftcli.sampling.interface import Decode

    config = {
        "model_type": "llama", "vocab_size": 2000, "hidden_size": 256, "intermediate_size": 512,
        "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 512,
    }  # fmt: skip
    rows, prompt, completion = 16, 100, 60
    model = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in config.items() if k != "model_type"}))
    prompts = [Prompt(Problem(str(i), "?", "1"), "?", tuple(range(3 + i, prompt + 3 + i - i % 3))) for i in range(rows)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_sampler, "prepacked", lambda *_: torch.no_grad())
        sampler = torch_sampler.TorchSampler(model, eos_token_id=-1, pad_token_id=0, batch_size=rows, context=512)
        with live.LiveBytes() as count:
            measured = count.highest(lambda: sampler.sample(prompts, 1, Decode("sampled", completion)))
    memory = memory_of(shape_from_config(config, "it"), plain(rows, prompt, completion), "single", 1, rows, 0)
    planned = sum(memory.phases["rollout"][part] for part in ("kv_cache", "activations", "logits"))
    assert planned == pytest.approx(measured, rel=0.2)
