"""Tokens, FLOPs, traffic, time and money of a run.

FLOPs of a forward pass: 2 per element of the matrices and token; attention 4 q t per token and layer, where t, the
tokens that it looks at, is half the sequence on average; the vocabulary projection, 2 V H, for completion tokens only.
A backward pass is two forward passes (one where the weights are frozen), checkpointing one more forward pass.

Traffic of a ring: n processes reduce or gather B bytes by moving B (n - 1) / n per GPU, and do both in an all-reduce.
"""

from __future__ import annotations

from dataclasses import dataclass

from reftcli.launch.profiles import Profile, zero_stage
from reftcli.planning.activations import arithmetic_bytes, cache_per_token
from reftcli.planning.hardware import Hardware
from reftcli.planning.shapes import ModelShape
from reftcli.planning.states import Trained, arithmetic_of
from reftcli.planning.work import Work


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations for one batch, over all GPUs."""

    rollout: float
    scoring: float
    update: float

    @property
    def total(self) -> float:
        return self.rollout + self.scoring + self.update


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that one GPU sends for one batch, before (n - 1) / n: to draw completions, to score, to update."""

    rollout: float
    scoring: float
    update: float


@dataclass(frozen=True, slots=True)
class Seconds:
    """Of one batch, by what it is spent on; ``validation`` is its share of one validation."""

    rollout: float
    grading: float
    scoring: float
    update: float
    traffic: float
    validation: float

    @property
    def total(self) -> float:
        return self.rollout + self.grading + self.scoring + self.update + self.traffic + self.validation

    @property
    def slowest(self) -> str:
        """The name of the largest part."""
        return max(self.__slots__, key=lambda name: float(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class Cost:
    """A whole run. ``tokens``: prompts and completions of every batch, once."""

    steps: int
    tokens: float
    flops: float
    seconds_per_step: Seconds
    traffic: Traffic
    seconds: float
    gpu_hours: float
    price: float

    def to_json(self) -> dict[str, object]:
        parts = {name: getattr(self.seconds_per_step, name) for name in Seconds.__slots__}
        return {
            "steps": self.steps,
            "tokens": round(self.tokens),
            "flops": self.flops,
            "seconds_per_step": {**parts, "total": self.seconds_per_step.total},
            "bytes_sent_per_step": {name: getattr(self.traffic, name) for name in Traffic.__slots__},
            "seconds": self.seconds,
            "gpu_hours": self.gpu_hours,
            "price_usd": self.price,
        }


def cost_of(shape: ModelShape, work: Work, profile: Profile, micro_batch: int, hardware: Hardware) -> Cost:
    """Time and money of a stage on these machines, where ``single`` uses one GPU."""
    processes = 1 if profile == "single" else hardware.gpus
    lengths = work.lengths
    flops = flops_of(shape, work)
    traffic = traffic_of(shape, work, profile, processes, micro_batch)
    rate = processes * (hardware.tflops if work.bf16 else hardware.fp32_tflops) * 1e12 * hardware.utilisation
    decoding = _decoding_s(shape, work, profile, -(-work.batch // processes), hardware) if work.samples else 0.0
    sent = (traffic.rollout + traffic.scoring + traffic.update) * (processes - 1) / processes
    seconds = Seconds(
        rollout=flops.rollout / rate + decoding,
        grading=work.batch / (hardware.grading_per_s * hardware.machines) if work.samples else 0.0,
        scoring=flops.scoring / rate,
        update=flops.update / rate + _optimizer_s(shape, work, profile, processes, micro_batch, hardware),
        traffic=sent / hardware.collective_bandwidth,
        validation=_validation_s(shape, work, profile, processes, hardware) * work.validations / work.steps,
    )
    total = seconds.total * work.steps
    hours = total / 3600 * processes
    tokens = work.steps * work.batch * (lengths.prompt + lengths.completion)
    return Cost(work.steps, tokens, flops.total * work.steps, seconds, traffic, total, hours, hours * hardware.price)


def flops_of(shape: ModelShape, work: Work) -> Flops:
    """Operations for one batch: prompts and completions drawn, scored by the reference, trained on in every pass.

    Drawing counts each token once: prompts together, completions one after another.
    """
    prompt, completion = work.lengths.prompt, work.lengths.completion
    sequence = forward_flops(shape, prompt + completion, completion if work.stage != "rerank" else 0)
    backward = 1 if work.lora_rank else 2
    per_pass = sequence * (1 + backward + (1 if work.checkpointing else 0))
    update = work.batch * work.passes * per_pass * (2 if work.separate_value else 1)
    if not work.samples:
        return Flops(0.0, 0.0, update)
    scoring = work.batch * sequence * (2 if work.recomputed else 1)
    return Flops(work.batch * sequence, scoring, update)


def forward_flops(shape: ModelShape, tokens: float, projected: float) -> float:
    """Operations of a forward pass over one sequence, ``projected`` of whose tokens reach the vocabulary."""
    attention = 4 * shape.query_size * (tokens / 2) * shape.layers
    return tokens * (2 * shape.matrices + attention) + 2 * shape.head * projected


def traffic_of(shape: ModelShape, work: Work, profile: Profile, processes: int, micro_batch: int) -> Traffic:
    """Bytes per batch. Every batch is trained on ``passes`` times in mini-batches, each one optimizer step.

    multi: all-reduce of fp32 gradients. zero1: the same, and bf16 weights gathered. zero2: bf16 gradients all-reduced
    after every micro-batch (DeepSpeed's multi-rank buckets), weights gathered. zero3: weights gathered for the forward
    and the backward pass of every micro-batch, gradients reduced and scattered; to draw, all weights once.
    """
    if processes == 1:
        return Traffic(0.0, 0.0, 0.0)
    trained = Trained.of(shape, work)
    t, held = trained.trained, trained.policy + trained.value
    steps = work.passes * (work.batch // work.mini_batch)
    micro = max(1, -(-work.mini_batch // processes // micro_batch))
    weight = 2 if work.bf16 else 4
    stage = zero_stage(profile)
    if stage == 3:
        scoring = weight * held * -(-work.batch // processes // micro_batch) if work.samples else 0
        rollout = weight * held if work.samples else 0
        return Traffic(rollout, scoring, steps * micro * weight * (2 * held + t))
    gradients = {0: 8 * t, 1: 8 * t, 2: 2 * weight * t * micro}[stage]
    return Traffic(0.0, 0.0, steps * (gradients + (weight * t if stage else 0)))


def _decoding_s(shape: ModelShape, work: Work, profile: Profile, rows: int, hardware: Hardware) -> float:
    """Seconds of the tokens after the first, on one GPU: each reads all weights and the cache of the rows alive.

    Rows come in as others end, so there are about as many steps as the longest row has, or as all rows need together.
    """
    slots, lengths = min(rows, work.decode_rows), work.lengths
    steps = max(lengths.longest, rows * lengths.completion / slots)
    alive = rows * lengths.completion / steps
    arithmetic = arithmetic_of(profile, work.bf16)
    weights = arithmetic_bytes(arithmetic) * (shape.matrices + shape.head)
    cache = alive * (lengths.prompt + lengths.completion / 2) * cache_per_token(shape, arithmetic)
    reading = (weights + cache) / (hardware.memory_bandwidth * hardware.bandwidth_use)
    # vLLM replays recorded kernels: no time to start each of them.
    starting = 0.0 if work.vllm_share is not None else shape.layers * hardware.launch_s
    return steps * max(reading, starting)


def _validation_s(shape: ModelShape, work: Work, profile: Profile, processes: int, hardware: Hardware) -> float:
    if not work.validation_problems:
        return 0.0
    return _decoding_s(shape, work, profile, -(-work.validation_problems // processes), hardware)


def _optimizer_s(
    shape: ModelShape, work: Work, profile: Profile, processes: int, micro_batch: int, hardware: Hardware
) -> float:
    """Seconds of AdamW's steps: 28 bytes read and written per parameter (weight, gradient, two moments).

    Offloaded: in main memory, and the weights come over PCIe for each forward and backward pass, gradients go back.
    """
    trained = Trained.of(shape, work)
    steps = work.passes * (work.batch // work.mini_batch)
    own = trained.trained / (processes if zero_stage(profile) else 1)
    if profile != "zero3-offload":
        return steps * 28 * own / (hardware.memory_bandwidth * hardware.bandwidth_use)
    micro = max(1, -(-work.mini_batch // processes // micro_batch))
    weight = 2 if work.bf16 else 4
    over_pcie = weight * (2 * micro * (trained.policy + trained.value) + trained.trained) / processes
    in_memory = 28 * trained.trained / hardware.machines / (hardware.host_bandwidth * hardware.bandwidth_use)
    return steps * (over_pcie / (hardware.pcie * hardware.bandwidth_use) + in_memory)
