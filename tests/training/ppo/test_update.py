"""One whole update against a naive reference: loops over rows and tokens, one row at a time, every logit kept."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from reftcli.grading.interface import Grade, Verdict
from reftcli.models.load import frozen_copy
from reftcli.models.lora import add_lora
from reftcli.models.precision import autocast_for
from reftcli.problems.prompts import Prompt
from reftcli.problems.record import Problem
from reftcli.recipe.schema import RlSettings
from reftcli.rewards.shaping import Reward
from reftcli.runs.ranks import ALONE
from reftcli.sampling.interface import Completion, Decode
from reftcli.sampling.torch_sampler import TorchSampler
from reftcli.training.engines import TorchEngine
from reftcli.training.ppo.policy import (
    PolicyWithValueHead,
    ReferenceModel,
    SeparateValueModel,
    new_value_head,
    new_value_model,
)
from reftcli.training.ppo.rollout import Rollout, RolloutBatch
from reftcli.training.ppo.update import Networks, UpdateStatistics, rollout_batch, update_policy

VOCABULARY, EOS, PAD = 40, 2, 0
NO_CLIPPING = 1e12
SETTINGS = RlSettings(batch_size=1, ppo_epochs=1, vf_coef=0.5, kl_coef=0.05, max_grad_norm=NO_CLIPPING)


def small_model(seed: int, dtype: torch.dtype = torch.float64) -> GPT2LMHeadModel:
    """GPT-2, because Llama computes its norms and its softmax in fp32 whatever the weights are."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=24, n_layer=2, n_head=3, n_positions=128, initializer_range=0.2, eos_token_id=EOS
    )
    return GPT2LMHeadModel(config).to(dtype).eval()


def networks(micro: int = 64, dtype: torch.dtype = torch.float64) -> Networks:
    """A policy that has moved away from its reference, so that the KL is not 0."""
    policy, reference = small_model(1, dtype), frozen_copy(small_model(1, dtype))
    nudge(policy, 0.02, seed=5)
    return networks_of(policy, value_head(policy).to(dtype), reference, micro)


def networks_of(policy: PreTrainedModel, head: torch.nn.Module, reference: PreTrainedModel, micro: int) -> Networks:
    wrapper, accelerator = PolicyWithValueHead(policy, head), Accelerator(cpu=True)  # type: ignore[arg-type]
    engine = TorchEngine(accelerator, wrapper, None)
    return Networks(wrapper, ReferenceModel(reference), accelerator, engine, ALONE, nullcontext, micro)


def value_head(policy: PreTrainedModel) -> torch.nn.Linear:
    """As training goes on: at the start all values are 0, and the backbone has no gradient from them."""
    head = new_value_head(policy)
    nudge(head, 0.3, seed=3)
    return head


def update_by(
    nets: Networks, optimizer: Any, batch: RolloutBatch, settings: RlSettings, rng: np.random.Generator
) -> UpdateStatistics:
    engine = TorchEngine(nets.accelerator, nets.policy, optimizer)
    return update_policy(replace(nets, engine=engine), batch, settings, rng)


def nudge(module: torch.nn.Module, size: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((size * noise).to(parameter.dtype))


def rollout(prompt_ids: Sequence[int], ids: Sequence[int], reward: Reward) -> Rollout:
    prompt = Prompt(Problem("p", "?", "1"), "?", tuple(prompt_ids))
    completion = Completion(prompt, 0, tuple(ids), (), ended=bool(ids) and ids[-1] == EOS)
    verdict = Verdict.CORRECT if reward.weight else Verdict.UNGRADABLE
    return Rollout(completion, "", Grade.of(verdict), reward)


def random_rollouts(seed: int, sizes: Sequence[tuple[int, int]], end: str = "mixed") -> list[Rollout]:
    """Prompts and completions of the given lengths; tokens may be PAD and, inside prompts, EOS."""
    rng = random.Random(seed)
    rollouts = []
    for i, (prompt_length, length) in enumerate(sizes):
        ids = [rng.choice([PAD, *range(3, VOCABULARY)]) for _ in range(length)]
        if end == "always" or (end == "mixed" and i % 2 == 0):
            ids[-1] = EOS
        prompt_ids = [rng.randrange(VOCABULARY) for _ in range(prompt_length)]
        rollouts.append(rollout(prompt_ids, ids, Reward(rng.choice([0.0, 0.1, 1.0]))))
    return rollouts


MIXED = [(5, 7), (3, 1), (9, 12), (1, 4)]


# The reference ---------------------------------------------------------------------------------------------------


@dataclass
class Tokens:
    """What one forward of one row says of each completion token."""

    logprobs: list[Tensor]
    values: list[Tensor]


def read_row(
    model: PreTrainedModel, head: torch.nn.Linear | SeparateValueModel, row: Rollout, temperature: float
) -> Tokens:
    prompt_ids, ids = row.completion.prompt.token_ids, row.completion.token_ids
    output = model(input_ids=torch.tensor([[*prompt_ids, *ids]]), output_hidden_states=True, use_cache=False)
    logits, states = output.logits[0], output.hidden_states[-1][0]
    if isinstance(head, SeparateValueModel):
        own = head.model(input_ids=torch.tensor([[*prompt_ids, *ids]]), output_hidden_states=True, use_cache=False)
        states, head = own.hidden_states[-1][0], head.head
    logprobs, values = [], []
    for t, token in enumerate(ids):
        position = len(prompt_ids) + t - 1
        scaled = logits[position] / temperature
        logprobs.append(scaled[token] - torch.log(torch.exp(scaled).sum()))
        values.append((head.weight[0] * states[position]).sum() + head.bias[0])
    return Tokens(logprobs, values)


@dataclass
class Targets:
    """The frozen side of the losses, one list of floats a row."""

    old_logprobs: list[list[float]]
    old_values: list[list[float]]
    advantages: list[list[float]]
    returns: list[list[float]]


def reference_targets(nets: Networks, rollouts: Sequence[Rollout], s: RlSettings) -> Targets:
    found = Targets([], [], [], [])
    for row in rollouts:
        with torch.no_grad():
            now = read_row(nets.policy.policy, nets.policy.value_head, row, s.temperature)
            ref = read_row(nets.reference.model, nets.policy.value_head, row, s.temperature)
        n = len(now.logprobs)
        logprobs, values = [float(x) for x in now.logprobs], [float(x) for x in now.values]
        rewards = []
        for t in range(n):
            d = logprobs[t] - float(ref.logprobs[t])
            kl = d if s.kl_estimator == "k1" else math.exp(-d) - 1 + d
            process = row.reward.per_token[t] if row.reward.per_token else 0.0
            rewards.append(process - s.kl_coef * kl + (row.reward.terminal if t == n - 1 else 0.0))
        advantages = []
        for t in range(n):
            total = 0.0
            for k in range(t, n):
                next_value = values[k + 1] if k + 1 < n else 0.0
                total += (s.gamma * s.lam) ** (k - t) * (rewards[k] + s.gamma * next_value - values[k])
            advantages.append(total)
        found.old_logprobs.append(logprobs)
        found.old_values.append(values)
        found.advantages.append(advantages)
        found.returns.append([a + v for a, v in zip(advantages, values, strict=True)])
    if s.whitening:
        counted = [a for row, r in zip(found.advantages, rollouts, strict=True) if r.reward.weight for a in row]
        mean = sum(counted) / len(counted)
        deviation = math.sqrt(sum((a - mean) ** 2 for a in counted) / len(counted) + 1e-8)
        found.advantages = [[(a - mean) / deviation for a in row] for row in found.advantages]
    return found


def reference_loss(nets: Networks, rollouts: Sequence[Rollout], targets: Targets, s: RlSettings) -> Tensor:
    rows, tokens_per_row = [], []
    for b, row in enumerate(rollouts):
        if row.reward.weight == 0:
            continue
        now = read_row(nets.policy.policy, nets.policy.value_head, row, s.temperature)
        losses = []
        for t in range(len(now.logprobs)):
            advantage, goal, old = targets.advantages[b][t], targets.returns[b][t], targets.old_values[b][t]
            ratio = torch.exp(now.logprobs[t] - targets.old_logprobs[b][t])
            policy = torch.max(-advantage * ratio, -advantage * torch.clamp(ratio, 1 - s.clip_range, 1 + s.clip_range))
            near = torch.clamp(now.values[t], old - s.value_clip_range, old + s.value_clip_range)
            value = 0.5 * torch.max((now.values[t] - goal) ** 2, (near - goal) ** 2)
            losses.append(policy + s.vf_coef * value)
        rows.append(sum(losses))
        tokens_per_row.append(len(losses))
    if s.loss_average == "sequence":
        means = [total / n for total, n in zip(rows, tokens_per_row, strict=True)]
        return sum(means) / len(means)
    return sum(rows) / sum(tokens_per_row)


# The comparison --------------------------------------------------------------------------------------------------


class Recorder:
    """An optimizer that keeps the gradients it is given."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self.steps: list[dict[str, Tensor]] = []

    def step(self) -> None:
        named = self._module.named_parameters()
        self.steps.append({name: p.grad.clone() for name, p in named if p.grad is not None})

    def zero_grad(self) -> None:
        self._module.zero_grad()


def engine_gradients(
    nets: Networks, rollouts: Sequence[Rollout], settings: RlSettings, before_step: Callable[[], None] = lambda: None
) -> dict[str, Tensor]:
    batch = rollout_batch(nets, rollouts, settings)
    before_step()
    recorder = Recorder(nets.policy)
    update_by(nets, recorder, batch, settings, np.random.default_rng(0))  # type: ignore[arg-type]
    assert len(recorder.steps) == 1
    return recorder.steps[0]


def reference_gradients(
    nets: Networks, rollouts: Sequence[Rollout], settings: RlSettings, before_step: Callable[[], None] = lambda: None
) -> dict[str, Tensor]:
    targets = reference_targets(nets, rollouts, settings)
    before_step()
    nets.policy.zero_grad()
    reference_loss(nets, rollouts, targets, settings).backward()
    return {name: p.grad.clone() for name, p in nets.policy.named_parameters() if p.grad is not None}


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], relative: float) -> None:
    assert found.keys() == expected.keys()
    assert len(expected) > 10
    for name, gradient in expected.items():
        assert float(gradient.norm()) > 0, name
        assert float((found[name] - gradient).norm()) <= relative * float(gradient.norm()), name


CASES = {
    "mixed": (random_rollouts(0, MIXED), {}),
    "no EOS anywhere": (random_rollouts(1, MIXED, end="never"), {}),
    "one token each": (random_rollouts(2, [(4, 1), (2, 1), (7, 1)], end="always"), {}),
    "very different lengths": (random_rollouts(3, [(2, 60), (30, 1), (1, 2)]), {}),
    "batch of one": (random_rollouts(4, [(6, 5)]), {}),
    "token average": (random_rollouts(5, MIXED), {"loss_average": "token"}),
    "k3, discount, temperature": (
        random_rollouts(6, MIXED),
        {"kl_estimator": "k3", "gamma": 0.9, "lam": 0.8, "temperature": 0.7, "kl_coef": 0.3},
    ),
    "no whitening": (random_rollouts(7, MIXED), {"whitening": False}),
    "a row of weight 0": (
        [rollout([3, 4], [5, 6, 7], Reward(0.0, weight=0.0)), *random_rollouts(8, MIXED)],
        {},
    ),
    "a row of weight 0, token average": (
        [*random_rollouts(9, MIXED), rollout([3, 4], [5, 6, 7], Reward(0.0, weight=0.0))],
        {"loss_average": "token"},
    ),
    "process rewards": (
        [rollout([3, 4], [5, 6, EOS], Reward(1.0, per_token=(0.5, -0.25, 0.125))), *random_rollouts(10, MIXED)],
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_the_reference(name: str) -> None:
    rollouts, changes = CASES[name]
    settings = SETTINGS.model_copy(update={"batch_size": len(rollouts), **changes})
    found = engine_gradients(networks(), rollouts, settings)
    assert_same_gradients(found, reference_gradients(networks(), rollouts, settings), 1e-8)


@pytest.mark.parametrize("average", ["sequence", "token"])
def test_gradients_equal_the_reference_after_the_policy_has_moved(average: str) -> None:
    """Ratios leave the clip range, and values theirs."""
    rollouts = random_rollouts(11, MIXED)
    settings = SETTINGS.model_copy(update={"batch_size": 4, "loss_average": average, "value_clip_range": 0.05})
    ours, naive = networks(), networks()
    found = engine_gradients(ours, rollouts, settings, lambda: nudge(ours.policy, 0.03, seed=9))
    expected = reference_gradients(naive, rollouts, settings, lambda: nudge(naive.policy, 0.03, seed=9))
    assert_same_gradients(found, expected, 1e-8)


def test_the_moved_policy_of_the_test_above_is_clipped_in_part() -> None:
    nets, rollouts = networks(), random_rollouts(11, MIXED)
    settings = SETTINGS.model_copy(update={"batch_size": 4})
    batch = rollout_batch(nets, rollouts, settings)
    nudge(nets.policy, 0.03, seed=9)
    statistics = update_by(nets, Recorder(nets.policy), batch, settings, np.random.default_rng(0))  # type: ignore[arg-type]
    assert 0.1 < statistics.clip_fraction[0] < 0.9


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("chunk", [None, 3])
def test_packing_padding_and_chunks_give_the_same_gradients(packs: bool, chunk: int | None) -> None:
    rollouts = random_rollouts(12, MIXED)
    settings = SETTINGS.model_copy(update={"batch_size": 4, "temperature": 0.8})
    nets = networks()
    assert nets.packs
    nets.policy.packs, nets.policy.logprob_chunk = packs, chunk
    found = engine_gradients(nets, rollouts, settings)
    assert_same_gradients(found, reference_gradients(networks(), rollouts, settings), 1e-8)


def with_separate_value_model() -> Networks:
    nets = networks()
    value_model = new_value_model(small_model(1), "separate").double()
    nudge(value_model, 0.02, seed=6)
    return replace(nets, policy=PolicyWithValueHead(nets.policy.policy, value_model))  # type: ignore[arg-type]


def test_a_separate_value_model_gives_the_gradients_of_the_reference() -> None:
    rollouts = random_rollouts(20, MIXED)
    settings = SETTINGS.model_copy(update={"batch_size": 4, "value_model": "separate"})
    found = engine_gradients(with_separate_value_model(), rollouts, settings)
    expected = reference_gradients(with_separate_value_model(), rollouts, settings)
    assert {name.split(".")[0] for name in found} == {"policy", "value_head"}
    found = {name: gradient for name, gradient in found.items() if float(expected[name].norm()) > 0}
    expected = {name: expected[name] for name in found}
    assert_same_gradients(found, expected, 1e-8)


def with_lora(reference: bool) -> Networks:
    """The reference is the plain model: as a copy, or as the policy without its layers."""
    nets = networks()
    copied = frozen_copy(nets.policy.policy)
    add_lora(nets.policy.policy, rank=4, alpha=8, seed=0)
    nets.policy.policy.double()
    nudge(torch.nn.ParameterList(p for p in nets.policy.policy.parameters() if p.requires_grad), 0.05, seed=7)
    return replace(nets, reference=ReferenceModel(copied) if reference else None)


def test_without_its_lora_layers_the_policy_is_the_reference() -> None:
    rollouts = random_rollouts(21, MIXED)
    settings = SETTINGS.model_copy(update={"batch_size": 4})
    one = rollout_batch(with_lora(reference=True), rollouts, settings)
    other = rollout_batch(with_lora(reference=False), rollouts, settings)
    assert float(one.kl.abs().max()) > 0
    torch.testing.assert_close(one.ref_logprobs, other.ref_logprobs, rtol=1e-10, atol=1e-10)
    found = engine_gradients(with_lora(reference=False), rollouts, settings)
    assert_same_gradients(found, reference_gradients(with_lora(reference=True), rollouts, settings), 1e-8)
    assert all(".lora_" in name or name.startswith("value_head") for name in found)


def test_own_logprobs_of_a_completion_are_the_denominator_where_values_are_recomputed() -> None:
    rollouts = random_rollouts(22, MIXED)
    told = [
        replace(r, completion=replace(r.completion, logprobs=tuple(-0.5 for _ in r.completion.token_ids)))
        for r in rollouts
    ]
    settings = SETTINGS.model_copy(update={"batch_size": 4})
    batch, recomputed = rollout_batch(networks(), told, settings), rollout_batch(networks(), rollouts, settings)
    assert torch.equal(batch.old_logprobs[batch.mask], torch.full_like(batch.old_logprobs[batch.mask], -0.5))
    torch.testing.assert_close(batch.values, recomputed.values)
    torch.testing.assert_close(batch.kl, recomputed.kl)  # by one arithmetic for policy and reference
    forced = rollout_batch(networks(), told, settings.model_copy(update={"rollout_logprobs": "recomputed"}))
    torch.testing.assert_close(forced.old_logprobs, recomputed.old_logprobs)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    rollouts = random_rollouts(12, MIXED)
    settings = SETTINGS.model_copy(update={"batch_size": 4})
    nets = networks()
    nets.policy.gradient_checkpointing_enable()
    nets.policy.train()  # layers are only run again in training mode; this model has no dropout at 0
    for module in nets.policy.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    found = engine_gradients(nets, rollouts, settings)
    assert_same_gradients(found, reference_gradients(networks(), rollouts, settings), 1e-8)


@pytest.mark.parametrize("micro", [1, 2, 3])
@pytest.mark.parametrize("average", ["sequence", "token"])
def test_micro_batches_only_bound_memory(micro: int, average: str) -> None:
    rollouts = [rollout([3, 4], [5, 6, 7], Reward(0.0, weight=0.0)), *random_rollouts(13, MIXED)]
    settings = SETTINGS.model_copy(update={"batch_size": len(rollouts), "loss_average": average})
    whole = engine_gradients(networks(), rollouts, settings)
    assert_same_gradients(engine_gradients(networks(micro=micro), rollouts, settings), whole, 1e-10)


def test_what_an_ungradable_row_holds_changes_nothing() -> None:
    others, settings = random_rollouts(14, MIXED), SETTINGS.model_copy(update={"batch_size": 5})
    short = engine_gradients(networks(), [*others, rollout([3], [4], Reward(0.0, weight=0.0))], settings)
    long = engine_gradients(networks(), [*others, rollout([3, 8], [9] * 30, Reward(5.0, weight=0.0))], settings)
    alone = engine_gradients(networks(), others, settings)
    assert_same_gradients(short, alone, 1e-10)
    assert_same_gradients(long, alone, 1e-10)


def test_a_batch_that_nobody_could_grade_has_no_gradient() -> None:
    rollouts = [rollout([3], [4, 5], Reward(0.0, weight=0.0)), rollout([3, 8], [9], Reward(0.0, weight=0.0))]
    gradients = engine_gradients(networks(), rollouts, SETTINGS.model_copy(update={"batch_size": 2}))
    assert all(float(gradient.abs().max()) == 0 for gradient in gradients.values())


def test_two_epochs_over_the_batch_end_at_the_weights_of_the_reference() -> None:
    rollouts = random_rollouts(15, MIXED)
    settings = SETTINGS.model_copy(update={"batch_size": 4, "ppo_epochs": 2})
    ours, naive = networks(), networks()
    optimizer = torch.optim.SGD(ours.policy.parameters(), lr=0.05)
    batch = rollout_batch(ours, rollouts, settings)
    update_by(ours, optimizer, batch, settings, np.random.default_rng(0))
    targets = reference_targets(naive, rollouts, settings)
    step = torch.optim.SGD(naive.policy.parameters(), lr=0.05)
    for _ in range(2):
        step.zero_grad()
        reference_loss(naive, rollouts, targets, settings).backward()
        step.step()
    start = networks()
    for before, found, expected in zip(
        start.policy.parameters(), ours.policy.parameters(), naive.policy.parameters(), strict=True
    ):
        moved = float((expected - before).norm())
        assert moved > 0
        assert float((found - expected).norm()) <= 1e-8 * moved + 1e-14


def test_each_mini_batch_is_a_step_and_each_row_is_in_one_of_them() -> None:
    """Without whitening the gradients of the mini-batches, averaged, are those of the batch."""
    rollouts = random_rollouts(16, MIXED)
    settings = SETTINGS.model_copy(update={"batch_size": 4, "mini_batch_size": 2})
    nets = networks()
    recorder = Recorder(nets.policy)
    statistics = update_by(
        nets,
        recorder,
        rollout_batch(nets, rollouts, settings),
        settings,
        np.random.default_rng(0),  # type: ignore[arg-type]
    )
    assert len(recorder.steps) == len(statistics.policy_loss) == 2
    mean = {name: sum(step[name] for step in recorder.steps) / 2 for name in recorder.steps[0]}
    whole = engine_gradients(networks(), rollouts, settings.model_copy(update={"mini_batch_size": None}))
    assert_same_gradients(mean, whole, 1e-8)


def test_gradients_are_clipped_to_the_norm_of_the_setting() -> None:
    rollouts = random_rollouts(17, MIXED)
    settings = SETTINGS.model_copy(update={"batch_size": 4, "max_grad_norm": 0.01})
    nets = networks(dtype=torch.float32)
    recorder = Recorder(nets.policy)
    statistics = update_by(
        nets,
        recorder,
        rollout_batch(nets, rollouts, settings),
        settings,
        np.random.default_rng(0),  # type: ignore[arg-type]
    )
    norm = torch.stack([gradient.norm() for gradient in recorder.steps[0].values()]).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-3)
    assert statistics.grad_norm[0] > 0.01


def test_losses_reported_are_those_of_the_reference() -> None:
    rollouts, nets = random_rollouts(18, MIXED), networks()
    settings = SETTINGS.model_copy(update={"batch_size": 4})
    statistics = update_by(
        nets,
        Recorder(nets.policy),
        rollout_batch(nets, rollouts, settings),
        settings,
        np.random.default_rng(0),  # type: ignore[arg-type]
    )
    naive = networks()
    loss = reference_loss(naive, rollouts, reference_targets(naive, rollouts, settings), settings)
    found = statistics.policy_loss[0] + settings.vf_coef * statistics.value_loss[0]
    assert found == pytest.approx(float(loss), rel=1e-5)
    assert statistics.clip_fraction == [0.0]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_first_ratio_is_1_in_fp32_for_what_the_sampler_drew(temperature: float) -> None:
    """Log-probs of the sampler (decoding, left padding), of scoring and of training are one and the same."""
    nets = networks(micro=3, dtype=torch.float32)
    prompts = [Prompt(Problem(f"p{i}", "?", "1"), "?", tuple(range(3, 4 + 3 * i))) for i in range(7)]
    sampler = TorchSampler(nets.policy.policy, eos_token_id=EOS, pad_token_id=EOS, batch_size=4, context=128)
    drawn = sampler.sample(prompts, 1, Decode("sampled", 12, temperature=temperature, seed=1))
    rollouts = [Rollout(c, "", Grade.of(Verdict.CORRECT), Reward(1.0)) for c in drawn]
    assert len({len(c.token_ids) for c in drawn}) > 1
    settings = SETTINGS.model_copy(update={"batch_size": 7, "temperature": temperature})
    batch = rollout_batch(nets, rollouts, settings)
    with torch.enable_grad():
        alone = [read_row(nets.policy.policy, nets.policy.value_head, r, temperature).logprobs for r in rollouts]
    for row, completion in enumerate(drawn):
        scored = batch.old_logprobs[row, : len(completion.token_ids)]
        decoded, trained = torch.tensor(completion.logprobs), torch.stack(alone[row]).detach()
        torch.testing.assert_close(torch.exp(trained - scored), torch.ones_like(scored), rtol=0, atol=1e-4)
        torch.testing.assert_close(torch.exp(trained - decoded), torch.ones_like(scored), rtol=0, atol=1e-4)


def test_a_rollout_batch_is_whitened_over_the_rows_that_count() -> None:
    rollouts = [*random_rollouts(19, MIXED), rollout([3], [4, 5], Reward(1.0, weight=0.0))]
    batch = rollout_batch(networks(), rollouts, SETTINGS.model_copy(update={"batch_size": 5}))
    counted = batch.advantages[:4][batch.mask[:4]]
    assert float(counted.mean()) == pytest.approx(0, abs=1e-9)
    assert float(counted.var(correction=0)) == pytest.approx(1, abs=1e-5)
    assert batch.row_weight.tolist() == [1, 1, 1, 1, 0]
    padded = replace(batch)
    for name in ("old_logprobs", "ref_logprobs", "values", "entropy", "kl", "advantages", "returns"):
        assert (getattr(padded, name)[~batch.mask] == 0).all(), name


def moved_by(steps: int, precision: Literal["fp32", "bf16"]) -> float:
    """Norm of the change of all weights after AdamW steps at the paper's learning rate."""
    nets = networks(dtype=torch.float32)
    nets = replace(nets, autocast=autocast_for(precision, torch.device("cpu")))
    before = [parameter.detach().clone() for parameter in nets.policy.parameters()]
    optimizer = torch.optim.AdamW(nets.policy.parameters(), lr=3e-7, weight_decay=0.0)
    settings = SETTINGS.model_copy(update={"batch_size": 4})
    for step in range(steps):
        batch = rollout_batch(nets, random_rollouts(100 + step, MIXED), settings)
        update_by(nets, optimizer, batch, settings, np.random.default_rng(0))
    changes = [(p.detach() - b).norm() for p, b in zip(nets.policy.parameters(), before, strict=True)]
    assert all(p.dtype == torch.float32 for p in nets.policy.parameters())
    assert all(state["exp_avg"].dtype == torch.float32 for state in optimizer.state.values())
    return float(torch.stack(changes).norm())


def test_in_bf16_weights_move_as_far_as_in_fp32_at_the_papers_learning_rate() -> None:
    """A bf16 weight would never move: the spacing near 0.02 is 1.2e-4, and a step is 3e-7."""
    exact, mixed = moved_by(50, "fp32"), moved_by(50, "bf16")
    assert exact > 1e-4
    assert mixed == pytest.approx(exact, rel=0.1)


@pytest.mark.slow
def test_gradients_of_a_real_model_equal_the_reference() -> None:
    """`smollm2-q4` in fp32, with everything that is fast switched on: 1e-3 in norm."""
    from reftcli.models.load import load_model
    from reftcli.models.source import resolve_model

    loaded = load_model(resolve_model("smollm2-q4"))
    reference = frozen_copy(loaded.model)
    nudge(loaded.model, 1e-3, seed=5)
    head = value_head(loaded.model)
    nets = networks_of(loaded.model, head, reference, 2)
    assert nets.packs
    generator = torch.Generator().manual_seed(0)
    words = [torch.randint(3, 40_000, (n,), generator=generator).tolist() for n in (30, 9, 55, 12, 20, 1)]
    eos = loaded.eos_token_id
    rollouts = [
        rollout(words[0], [*words[1], eos], Reward(1.0)),
        rollout(words[2], words[3], Reward(0.1)),
        rollout(words[4], [*words[5], eos], Reward(0.0)),
        rollout(words[1], [eos], Reward(0.0, weight=0.0)),
    ]
    settings = SETTINGS.model_copy(update={"batch_size": 4, "logprob_chunk": None})
    found = engine_gradients(nets, rollouts, settings)
    expected = reference_gradients(nets, rollouts, settings)
    error = math.sqrt(sum(float((found[name] - expected[name]).norm()) ** 2 for name in expected))
    size = math.sqrt(sum(float(gradient.norm()) ** 2 for gradient in expected.values()))
    assert size > 0
    assert error <= 1e-3 * size
