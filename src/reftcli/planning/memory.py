"""Memory of one GPU, by part and by phase. The peak is the largest phase, not the sum of them.

What is held throughout is in `reftcli.planning.states`; here comes what each phase adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from reftcli.launch.profiles import Profile, zero_stage
from reftcli.planning.activations import (
    Arithmetic,
    arithmetic_bytes,
    decoded_logits,
    kept,
    kept_of_layer,
    kv_cache,
    passing,
    scored_logits,
)
from reftcli.planning.shapes import ModelShape
from reftcli.planning.states import (
    BUCKET_ELEMENTS,
    LIVE_PARAMETERS,
    PARTS,
    SUB_GROUP,
    Part,
    States,
    Trained,
    arithmetic_of,
    states_of,
)
from reftcli.planning.work import Work

Phase = Literal["start", "rollout", "validation", "scoring", "update", "step"]
"""Loading; drawing completions to train on, and to validate; reference (and policy) forward passes; the moment between
forward and backward pass; the end of the backward pass and the optimizer's step."""

Amounts = Mapping[Part, int]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one GPU by phase and part. Every phase lists all parts."""

    profile: Profile
    processes: int
    micro_batch: int
    phases: Mapping[Phase, Amounts]
    host: int
    """Bytes in main memory, over all machines."""

    @property
    def peak_phase(self) -> Phase:
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

    @property
    def peak(self) -> int:
        """Bytes of the largest phase."""
        return self.total(self.peak_phase)

    def total(self, phase: Phase) -> int:
        return sum(self.phases[phase].values())


def memory_of(shape: ModelShape, work: Work, profile: Profile, processes: int, micro_batch: int, card: int) -> Memory:
    """Every phase of a stage on one GPU of ``card`` bytes (its size matters for vLLM's share only).

    Args:
        processes: over all machines, one per GPU.
        micro_batch: sequences per forward pass on one GPU.
    """
    trained = Trained.of(shape, work)
    reference = shape.parameters if work.samples and not work.lora_rank else 0
    states = states_of(trained, profile, processes, bf16=work.bf16, reference=reference)
    count = _Count(shape, work, profile, processes, micro_batch, trained, states, card)
    phases: dict[Phase, Amounts] = {"start": count.start(reference)}
    if work.samples:
        phases["rollout"] = count.decoding(_share(work.batch, processes), work.max_tokens, work.max_prompt)
        phases["scoring"] = count.scoring()
    if work.validation_problems:
        rows = _share(work.validation_problems, processes)
        phases["validation"] = count.decoding(rows, work.validation_max_tokens, work.max_prompt)
    phases |= {"update": count.update(), "step": count.step()}
    whole = {phase: {part: amounts.get(part, 0) for part in PARTS} for phase, amounts in phases.items()}
    # Each process loads the fp32 model into main memory; under DeepSpeed its copy, too, until both are divided.
    loaded = 4 * (shape.parameters + (reference if zero_stage(profile) else 0)) * processes
    return Memory(profile, processes, micro_batch, whole, max(states.host, loaded))


def _share(total: int, processes: int) -> int:
    return max(1, -(-total // processes))


@dataclass(frozen=True, slots=True)
class _Count:
    """The phases of one stage under one profile."""

    shape: ModelShape
    work: Work
    profile: Profile
    processes: int
    micro_batch: int
    trained: Trained
    states: States
    card: int

    @property
    def stage(self) -> int:
        return zero_stage(self.profile)

    @property
    def arithmetic(self) -> Arithmetic:
        return arithmetic_of(self.profile, self.work.bf16)

    @property
    def weight(self) -> int:
        """Bytes of a weight as it stands on the GPU."""
        return 2 if self.stage and self.work.bf16 else 4

    @property
    def accumulates(self) -> bool:
        return _share(self.work.mini_batch, self.processes) > self.micro_batch

    def start(self, reference: int) -> Amounts:
        """Without DeepSpeed every process loads the whole model in fp32 on its GPU, and a copy of it as the reference.

        What DeepSpeed divides is loaded in main memory (`reftcli.models.load`), and a part of it comes to the GPU.
        """
        if self.stage:
            return self._with_engine(self.states.resident)
        policy, value = 4 * self.trained.policy, 4 * self.trained.value
        return self._with_engine({"policy": policy, "value": value, "reference": 4 * reference})

    def decoding(self, rows: int, tokens: int, prompt: int) -> Amounts:
        """Drawing completions: the cache, the choice of a token, and the prompts' forward pass, end to end."""
        parts = self.states.resident
        if self.work.vllm_share is not None:
            return parts | {"kv_cache": round(self.work.vllm_share * self.card)}
        slots = min(rows, self.work.decode_rows)
        parts["kv_cache"] = kv_cache(self.shape, slots, tokens, self.arithmetic)
        parts["logits"] = decoded_logits(self.shape, slots)
        parts["activations"] = passing(self.shape, slots, prompt, self.arithmetic)
        if self.arithmetic == "autocast":  # kept while the sampler's context lasts, for weights that are trained
            parts["casts"] = 0 if self.work.lora_rank else 2 * self._products
        if self.stage == 3:
            parts["buffers"] += self.weight * (self.trained.policy + self.trained.value)
        return parts

    def scoring(self) -> Amounts:
        """The reference's forward pass (and the policy's, now and then): nothing is kept for a backward pass.

        A layer's working room, or the hidden states and the logits (of a chunk): not both.
        """
        completion = self._completion
        layer = passing(self.shape, self.micro_batch, self.work.max_tokens, self.arithmetic)
        states = completion * self.shape.hidden * arithmetic_bytes(self.arithmetic)
        logits = scored_logits(self.shape, min(completion, self.work.logprob_chunk or completion), self.arithmetic)
        amounts: dict[Part, int] = (
            {"activations": layer} if layer > states + logits else {"activations": states, "logits": logits}
        )
        if self.arithmetic == "autocast":  # the policy is verified or scored: casts of what is trained stay
            amounts["casts"] = 2 * (self.shape.largest_matrix if self.work.lora_rank else self._products)
        buffers = self.states.buffers + self._live()
        return self._with_engine(self.states.resident | amounts | {"buffers": buffers})

    def update(self) -> Amounts:
        """From the forward pass to the first gradients: the fullest of its moments."""
        moments = [self._logits_are_scored(), self._head_has_its_gradient()]
        if self.work.checkpointing:
            moments += [self._forward_ends(), self._layer_is_made_again()]
        fullest = max(moments, key=lambda amounts: sum(amounts.values()))
        buffers = self.states.buffers + self._bucket() + self._live()
        return self._with_engine(self.states.resident | fullest | {"buffers": buffers})

    def _logits_are_scored(self) -> dict[Part, int]:
        """Everything kept, and log-probabilities in the making.

        The backward pass of the last layer needs its working room in their place.
        """
        rows, completion = self.micro_batch, self._completion
        logits = scored_logits(self.shape, completion, self.arithmetic, self.work.logprob_chunk) if completion else 0
        return {
            "activations": self._kept(),
            "logits": max(logits, passing(self.shape, rows, self.work.max_tokens, self.arithmetic)),
            "casts": self._kept_casts(),
            "gradients": self._gradients_while_accumulating(),
        }

    def _head_has_its_gradient(self) -> dict[Part, int]:
        """The gradient lies where the logits were (a bf16 copy of it where products are bf16), the head's beside it."""
        head = self._head_gradient()
        if head and self.arithmetic == "autocast":
            head += 2 * self.shape.head  # in bf16, before it becomes fp32
        logits = self._completion * self.shape.vocabulary * arithmetic_bytes(self.arithmetic)
        return {
            "activations": self._kept(),
            "logits": 0 if self.work.logprob_chunk else logits,
            "casts": self._kept_casts(),
            "gradients": self._gradients_while_accumulating() + head,
        }

    def _forward_ends(self) -> dict[Part, int]:
        """With checkpointing: the casts that autocast remembers, until its context is left, and bf16 logits."""
        logits = self._completion * self.shape.vocabulary * arithmetic_bytes(self.arithmetic)
        return {
            "activations": self._kept(),
            "logits": 0 if self.work.logprob_chunk else logits,
            "casts": self._casts(0 if self.work.lora_rank else self._all_casts()),
            "gradients": self._gradients_while_accumulating(),
        }

    def _layer_is_made_again(self) -> dict[Part, int]:
        """With checkpointing: a layer's activations, in its backward pass."""
        rows, tokens = self.micro_batch, self.work.max_tokens
        layer = kept_of_layer(self.shape, rows, tokens, self.arithmetic)
        return {
            "activations": self._kept() + layer + passing(self.shape, rows, tokens, self.arithmetic),
            "casts": self._casts(2 * self.shape.layer_matrices),
            "gradients": self._gradients_while_accumulating() + self._head_gradient(),
        }

    def _kept_casts(self) -> int:
        """A backward pass needs the casts that the forward pass made; checkpointed layers make their own again."""
        return self._casts(2 * self.shape.head if self.work.checkpointing else self._all_casts())

    @property
    def _completion(self) -> int:
        """Completion tokens of a micro-batch."""
        return self.micro_batch * self.work.max_completion

    def _kept(self) -> int:
        tokens = self.micro_batch * self.work.max_tokens
        size = kept(
            self.shape,
            self.micro_batch,
            self.work.max_tokens,
            self.work.max_completion,
            self.arithmetic,
            self.work.checkpointing,
        )
        if self.work.lora_rank and self.shape.family == "llama" and not self.work.checkpointing:
            # frozen norms keep no normalised value
            size -= self.shape.layers * tokens * 2 * self.shape.hidden * (2 if self.arithmetic == "bf16" else 4)
        return size * (2 if self.work.separate_value else 1)

    @property
    def _products(self) -> int:
        """Elements of the weights that autocast casts: embeddings are looked up in fp32."""
        return self.shape.matrices + self.shape.head

    def _all_casts(self) -> int:
        return 2 * (self._products + (self.shape.matrices if self.work.separate_value else 0))

    def _casts(self, size: int) -> int:
        return size if self.arithmetic == "autocast" else 0

    def step(self) -> Amounts:
        """The end of the backward pass: no activations any more, all gradients; then the optimizer."""
        return self._with_engine(
            self.states.resident
            | {
                "gradients": self._gradients_at_the_end() + (self._head_gradient() if self.shape.tied else 0),
                "buffers": self.states.buffers + self._bucket() + self._live(),
            }
        )

    def _with_engine(self, parts: dict[Part, int]) -> Amounts:
        """vLLM's engine holds its share all the time."""
        return parts if self.work.vllm_share is None else parts | {"kv_cache": round(self.work.vllm_share * self.card)}

    def _head_gradient(self) -> int:
        return 0 if self.work.lora_rank or not self.work.max_completion else self.weight * self.shape.head

    def _gradients_while_accumulating(self) -> int:
        """Those of earlier micro-batches of the same step."""
        t = self.trained.trained
        if not self.stage:
            return 4 * t if self.accumulates else 0
        if self.stage == 1:
            return self.states.gradients if self.work.bf16 else (4 * t if self.accumulates else 0)
        if self.stage == 2:
            return 4 * t // self.processes if self.accumulates else 0
        return self.states.gradients

    def _gradients_at_the_end(self) -> int:
        t = self.trained.trained
        if not self.stage:
            return 4 * t
        if self.stage == 1:
            return 6 * t if self.work.bf16 else 4 * t + 4 * t // self.processes
        if self.stage == 2:
            return (4 if self.work.bf16 else 8) * t // self.processes
        if self.profile == "zero3-offload":
            return 0
        return self.states.gradients + 4 * min(SUB_GROUP, t // self.processes)

    def _bucket(self) -> int:
        """ZeRO-2 makes its bucket for each step; ZeRO-3's is there for good."""
        return BUCKET_ELEMENTS * self.weight if self.stage == 2 or (self.stage == 1 and not self.work.bf16) else 0

    def _live(self) -> int:
        """Weights of the layers at work, gathered."""
        if self.stage != 3:
            return 0
        return self.weight * min(LIVE_PARAMETERS, self.trained.policy + self.trained.value)
