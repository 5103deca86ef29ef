"""FLOPs, traffic and time by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reftcli.planning.cost import cost_of, flops_of, forward_flops, traffic_of
from reftcli.planning.hardware import Hardware
from reftcli.planning.states import Trained

HEAD = 32_016 * 4096
MATRICES = 32 * (4 * 4096**2 + 3 * 4096 * 11_008)


def test_a_forward_pass(paper: Any) -> None:
    """100 tokens, 40 of them projected: 2 per matrix element, and 4 x 4096 x 50 of attention in 32 layers."""
    shape, _ = paper()
    assert forward_flops(shape, 100, 40) == 100 * (2 * MATRICES + 4 * 4096 * 50 * 32) + 2 * HEAD * 40


def test_a_batch_is_drawn_scored_and_trained_on_twice(paper: Any) -> None:
    """rollout 1, reference 1, and 3 in each of 2 passes: 8 forward passes of 32 sequences of 183 tokens."""
    shape, work = paper()
    flops, forward = flops_of(shape, work), forward_flops(shape, 183, 49)
    assert (flops.rollout, flops.scoring, flops.update) == (32 * forward, 32 * forward, 6 * 32 * forward)
    assert flops_of(shape, replace(work, checkpointing=True)).update == 8 * 32 * forward
    assert flops_of(shape, replace(work, lora_rank=8)).update == 4 * 32 * forward
    assert flops_of(shape, replace(work, separate_value=True)).update == 12 * 32 * forward
    assert flops_of(shape, replace(work, recomputed=True)).scoring == 64 * forward


def test_traffic_of_each_profile(paper: Any) -> None:
    """Two optimizer steps a batch, each with one micro-batch of 4 on 8 GPUs."""
    shape, work = paper()
    trained = Trained.of(shape, work)
    t = trained.trained
    found = {name: traffic_of(shape, work, name, 8, 4) for name in ("multi", "zero1", "zero2", "zero3")}  # type: ignore[arg-type]
    assert found["multi"].update == 2 * 8 * t  # all-reduce of fp32
    assert found["zero1"].update == 2 * (8 + 2) * t
    assert found["zero2"].update == 2 * (4 + 2) * t
    assert found["zero3"].update == 2 * (2 + 2 + 2) * t
    assert (found["zero3"].rollout, found["zero3"].scoring) == (2 * t, 2 * t)
    assert traffic_of(shape, work, "zero2", 8, 1).update == 2 * (4 * 4 + 2) * t  # after each of 4 micro-batches
    assert traffic_of(shape, work, "single", 1, 4).update == 0


def test_seconds_of_the_papers_batch(paper: Any) -> None:
    shape, work = paper()
    hardware = Hardware(8)
    cost = cost_of(shape, work, "zero2", 4, hardware)
    seconds = cost.seconds_per_step
    forward = 32 * forward_flops(shape, 183, 49) / (8 * 312e12 * 0.35)
    assert seconds.scoring == pytest.approx(forward)
    # 82 steps of 32 layers at 0.7 ms: reading 13.2 GB of weights takes 11 ms, starting the kernels 22 ms
    assert seconds.rollout == pytest.approx(forward + 82 * 32 * 0.7e-3, rel=1e-6)
    assert seconds.traffic == pytest.approx(12 * (shape.parameters + 4097) * 7 / 8 / (300e9 * 0.6))
    assert seconds.slowest == "rollout"
    assert cost.tokens == 65_372 * 32 * 183
    assert cost.gpu_hours == pytest.approx(cost.seconds / 3600 * 8)
    assert cost.price == pytest.approx(2 * cost.gpu_hours)


def test_a_faster_card_is_faster_only_where_it_is_the_bound(paper: Any) -> None:
    shape, work = paper()
    plain, fast = (cost_of(shape, work, "zero2", 4, Hardware(8, tflops=t)).seconds_per_step for t in (312, 624))
    assert fast.scoring == pytest.approx(plain.scoring / 2)
    assert fast.traffic == plain.traffic
    assert fast.rollout > 0.9 * plain.rollout  # decoding is bound by starting kernels


def test_machines_share_their_network_cards(paper: Any) -> None:
    shape, work = paper()
    one, two = (
        cost_of(shape, work, "zero2", 2, Hardware(16, machines)).seconds_per_step.traffic for machines in (1, 2)
    )
    assert two / one == pytest.approx(300 / (8 * 25))


def test_single_uses_one_gpu_of_many(paper: Any) -> None:
    shape, work = paper()
    cost = cost_of(shape, work, "single", 32, Hardware(8))
    assert cost.gpu_hours == pytest.approx(cost.seconds / 3600)
