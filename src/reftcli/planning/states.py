"""What is held on a GPU whatever the sequences are, for each launch profile: weights, gradients, moments, reference.

P parameters, T of them trained, n processes; bytes per parameter. With bf16, from the code of DeepSpeed 0.19
(`runtime/zero/stage_1_and_2.py`, `stage3.py`, `bf16_optimizer.py`) under the configuration of `reftcli.launch.profiles`
(fp32 accumulation of gradients, no overlap):

    profile        weights     gradients, when there are any             master and moments   reference
    single, multi  4 P         4 T                                       8 T                  4 P
    zero1          2 P         4 T for good, 2 T in a backward pass      12 T / n             2 P
    zero2          2 P         4 T / n                                   12 T / n             2 P
    zero3          2 P / n     4 T / n for good, a sub-group in a step   12 T / n             2 P / n
    zero3-offload  0           0                                         0                    0

plus what is not a state: DDP's buckets (4 T), DeepSpeed's bucket (5e8 elements), weights of layers that are gathered
(ZeRO-3: at most 1e9 elements while training, all of them to draw completions), bf16 casts of fp32 weights (2 P).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from reftcli.launch.profiles import Profile, zero_stage
from reftcli.planning.activations import Arithmetic
from reftcli.planning.shapes import ModelShape
from reftcli.planning.work import Work

Part = Literal[
    "policy", "casts", "gradients", "optimizer", "reference", "value", "activations", "logits", "kv_cache", "buffers"
]
PARTS: tuple[Part, ...] = get_args(Part)
PART_NAMES: Mapping[Part, str] = {
    "policy": "policy",
    "casts": "bf16 casts of weights",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "reference": "reference",
    "value": "value head",
    "activations": "activations",
    "logits": "logits",
    "kv_cache": "KV cache",
    "buffers": "buffers, gathered",
}

BUCKET_ELEMENTS = 500_000_000
"""``reduce_bucket_size`` of DeepSpeed, its default."""
LIVE_PARAMETERS = 1_000_000_000
"""``stage3_max_live_parameters`` of DeepSpeed, its default."""
SUB_GROUP = 1_000_000_000
"""``sub_group_size`` of DeepSpeed, its default: master weights that are stepped at once."""


@dataclass(frozen=True, slots=True)
class States:
    """Bytes per GPU that do not depend on the sequences. ``gradients`` are those that stay between the phases."""

    policy: int
    value: int
    reference: int
    optimizer: int
    gradients: int
    buffers: int
    host: int
    """Bytes in main memory for all processes together."""

    @property
    def resident(self) -> dict[Part, int]:
        return {
            "policy": self.policy,
            "value": self.value,
            "reference": self.reference,
            "optimizer": self.optimizer,
            "gradients": self.gradients,
            "buffers": self.buffers,
        }


@dataclass(frozen=True, slots=True)
class Trained:
    """Elements of the networks: all and trained, of the policy and of what gives values."""

    policy: int
    policy_trained: int
    value: int
    value_trained: int

    @property
    def trained(self) -> int:
        return self.policy_trained + self.value_trained

    @classmethod
    def of(cls, shape: ModelShape, work: Work) -> Trained:
        """A shared value head is one row with a bias; a separate model is a copy without a trained projection."""
        total = trained = shape.parameters
        if work.lora_rank:
            trained = shape.lora_parameters(work.lora_rank)
            total += trained
        if work.stage != "rl":
            return cls(total, trained, 0, 0)
        row = shape.hidden + 1
        if not work.separate_value:
            return cls(total, trained, row, row)
        copied = shape.parameters - (0 if shape.tied else shape.head)
        return cls(total, trained, shape.parameters + row, copied + row)


def arithmetic_of(profile: Profile, bf16: bool) -> Arithmetic:
    """Plain processes cast; DeepSpeed holds bf16 weights beside fp32 ones."""
    if not bf16:
        return "fp32"
    return "bf16" if zero_stage(profile) else "autocast"


def states_of(trained: Trained, profile: Profile, processes: int, *, bf16: bool, reference: int) -> States:
    """What is held of weights, gradients and moments. ``reference``: its elements, 0 where there is none."""
    stage, t = zero_stage(profile), trained.trained
    if not stage:
        buckets = 4 * t if profile == "multi" else 0
        return States(
            4 * trained.policy, 4 * trained.value, 4 * reference, optimizer=8 * t, gradients=0, buffers=buckets, host=0
        )
    weight = 2 if bf16 else 4
    if profile == "zero3-offload":
        # bf16 weights and the reference's, fp32 gradients, their copy for the step, master weights and two moments
        host = weight * (trained.policy + trained.value + reference) + 4 * t + 4 * t + 12 * t
        return States(0, 0, 0, optimizer=0, gradients=0, buffers=BUCKET_ELEMENTS * weight, host=host)
    # fp32 weights are their own master in ZeRO-3 only: stages 1 and 2 clone them.
    optimizer = (8 if stage == 3 and not bf16 else 12) * t // processes
    over = processes if stage == 3 else 1
    gradients = {1: 4 * t if bf16 else 0, 2: 0, 3: 4 * t // processes}[stage]
    buffers = BUCKET_ELEMENTS * weight if stage == 3 else 0
    policy, value, held = (weight * elements // over for elements in (trained.policy, trained.value, reference))
    return States(policy, value, held, optimizer, gradients, buffers, host=0)
