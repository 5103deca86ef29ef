"""The four ways to make one PPO update that `ppo_step.py` compares. Each runs in a process of its own.

All of them are given the same prompts, draw the very same completions (the sampler's work is done in full, then its
choice is replaced by a given token), get the same rewards and make the same number of passes with the same micro-batch.

    p1    a padded loop, as the released research scripts run it: HF generate, then padded forward passes that keep all
          logits of policy and reference, one backbone with a value head, AdamW
    p1+   the same with fp32 products sent to oneDNN, as ours are
    p2    TRL 1.12's PPOTrainer as it is: a value model of its own, a reward model that costs nothing
    ours  the engine of reft
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

EPOCHS, LEARNING_RATE, KL_COEF, VF_COEF, CLIP, VALUE_CLIP, LAM = 2, 1e-5, 0.05, 0.5, 0.2, 0.2, 0.95


@dataclass
class Work:
    """What an update is given: token ids of prompts and of the completions that must come out, and their rewards."""

    prompts: list[list[int]]
    completions: list[list[int]]
    rewards: list[float]
    micro_batch: int
    """Rows per forward pass, for all contestants."""
    mini_batch: int
    """Rows per optimizer step."""

    def slices(self, start: int = 0, end: int | None = None) -> list[slice]:
        """Rows of the forward passes over rows ``start`` to ``end``."""
        end = len(self.prompts) if end is None else end
        return [slice(first, min(first + self.micro_batch, end)) for first in range(start, end, self.micro_batch)]


class ForceTokens:
    """A logits processor that leaves one possible token per row: what has been drawn is thrown away."""

    def __init__(self, completions: list[list[int]], prompt_columns: int, pad: int) -> None:
        self._rows, self._columns, self._pad = completions, prompt_columns, pad

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self._columns
        forced = [row[step] if step < len(row) else self._pad for row in self._rows]
        torch.softmax(scores, dim=-1)  # what sampling costs
        only = torch.full_like(scores, -torch.inf)
        only[torch.arange(len(forced)), forced] = 0.0
        return only


def load() -> Any:
    from reftcli.models import onednn
    from reftcli.models.load import load_model
    from reftcli.models.source import resolve_model

    loaded = load_model(resolve_model(os.environ.get("REFT_BENCH_MODEL", "smollm2-q4")))
    torch.backends.mkldnn.matmul.fp32_precision = "none"  # `load_model` turns it on; here each contestant says
    onednn.use_onednn.cache_clear()
    loaded.model.eval()
    return loaded


# p1 and p1+ ------------------------------------------------------------------------------------------------------


class PaddedLoop:
    """Left-padded prompts, HF generate, logits of every position."""

    def __init__(self, work: Work, fast_products: bool) -> None:
        import copy

        if fast_products:
            torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        loaded = load()
        if fast_products:
            torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        self.model, self.pad, self.eos = loaded.model, 0, loaded.eos_token_id
        self.reference = copy.deepcopy(loaded.model).requires_grad_(False)
        self.head = nn.Linear(self.model.config.hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        parameters = [*self.model.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0)
        self.work = work

    def update(self) -> dict[str, float]:
        sequences, mask, start = self._generate()
        with torch.no_grad():
            scored = [self._score(sequences[rows], mask[rows], start) for rows in self.work.slices()]
            old, old_values = (torch.cat(column) for column in zip(*scored, strict=True))
            reference = torch.cat([self._reference(sequences[rows], mask[rows], start) for rows in self.work.slices()])
        completion = mask[:, start:].bool()
        advantages, returns = self._targets(old, reference, old_values, completion)
        losses: list[tuple[float, float]] = []
        per_row = 1 / completion.sum(1, keepdim=True) / self.work.mini_batch * completion
        for first in list(range(0, len(completion), self.work.mini_batch)) * EPOCHS:
            totals = [0.0, 0.0]
            for rows in self.work.slices(first, first + self.work.mini_batch):
                new, values = self._score(sequences[rows], mask[rows], start)
                ratio = torch.exp((new - old[rows]).masked_fill(~completion[rows], 0.0))
                gain = advantages[rows]
                policy = torch.max(-gain * ratio, -gain * ratio.clamp(1 - CLIP, 1 + CLIP))
                near = old_values[rows] + (values - old_values[rows]).clamp(-VALUE_CLIP, VALUE_CLIP)
                value = 0.5 * torch.max((values - returns[rows]) ** 2, (near - returns[rows]) ** 2)
                policy_loss, value_loss = (policy * per_row[rows]).sum(), (value * per_row[rows]).sum()
                (policy_loss + VF_COEF * value_loss).backward()
                totals = [totals[0] + float(policy_loss), totals[1] + float(value_loss)]
            torch.nn.utils.clip_grad_norm_([*self.model.parameters(), *self.head.parameters()], 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            losses.append((totals[0], totals[1]))
        return {"policy_loss": losses[-1][0], "value_loss": losses[0][1], "first_policy_loss": losses[0][0]}

    def _generate(self) -> tuple[Tensor, Tensor, int]:
        width = max(map(len, self.work.prompts))
        ids = torch.full((len(self.work.prompts), width), self.pad)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(self.work.prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        longest = max(map(len, self.work.completions))
        found = self.model.generate(
            input_ids=ids, attention_mask=mask, do_sample=True, top_k=0, max_new_tokens=longest,
            eos_token_id=self.eos, pad_token_id=self.pad,
            logits_processor=[ForceTokens(self.work.completions, width, self.pad)],
        )  # fmt: skip
        lengths = torch.tensor([len(row) for row in self.work.completions])
        behind = torch.arange(found.shape[1] - width)[None] < lengths[:, None]
        return found, torch.cat([mask, behind.long()], dim=1), width

    def _score(self, sequences: Tensor, mask: Tensor, start: int) -> tuple[Tensor, Tensor]:
        output = self.model(sequences, attention_mask=mask, output_hidden_states=True)
        values = self.head(output.hidden_states[-1]).squeeze(-1)[:, start - 1 : -1]
        return self._logprobs(output.logits, sequences, start), values

    def _reference(self, sequences: Tensor, mask: Tensor, start: int) -> Tensor:
        return self._logprobs(self.reference(sequences, attention_mask=mask).logits, sequences, start)

    def _logprobs(self, logits: Tensor, sequences: Tensor, start: int) -> Tensor:
        every = functional.log_softmax(logits[:, :-1], dim=-1).gather(2, sequences[:, 1:, None]).squeeze(2)
        return every[:, start - 1 :]

    def _targets(self, old: Tensor, reference: Tensor, values: Tensor, completion: Tensor) -> tuple[Tensor, Tensor]:
        rewards = -KL_COEF * (old - reference) * completion
        values = values * completion
        last = completion.sum(1) - 1
        rewards[torch.arange(len(last)), last] += torch.tensor(self.work.rewards)
        advantages = torch.zeros_like(rewards)
        following = next_value = torch.zeros(len(last))
        for t in reversed(range(rewards.shape[1])):
            delta = rewards[:, t] + next_value - values[:, t]
            following = (delta + LAM * following) * completion[:, t]
            advantages[:, t], next_value = following, values[:, t]
        returns = advantages + values
        kept = advantages[completion]
        return (advantages - kept.mean()) * torch.rsqrt(kept.var(correction=0) + 1e-8) * completion, returns


# ours ------------------------------------------------------------------------------------------------------------


class Ours:
    """Sampler, scoring and update of reft, without a run's folder around them."""

    def __init__(self, work: Work) -> None:
        from contextlib import nullcontext

        from accelerate import Accelerator

        from reftcli.models.load import LARGE_ENOUGH_FOR_ONEDNN, frozen_copy
        from reftcli.models.onednn import use_onednn
        from reftcli.problems.prompts import Prompt
        from reftcli.problems.record import Problem
        from reftcli.recipe.schema import RlSettings
        from reftcli.sampling.torch_sampler import TorchSampler
        from reftcli.training.ppo.policy import PolicyWithValueHead
        from reftcli.training.ppo.update import Networks

        loaded = load()
        if loaded.model.config.hidden_size >= LARGE_ENOUGH_FOR_ONEDNN:  # as `load_model` decides
            use_onednn()
        n = len(work.prompts)
        self.settings = RlSettings(
            batch_size=n, mini_batch_size=work.mini_batch,
            ppo_epochs=EPOCHS, kl_coef=KL_COEF, vf_coef=VF_COEF, clip_range=CLIP,
            value_clip_range=VALUE_CLIP, lam=LAM, learning_rate=LEARNING_RATE, max_grad_norm=1.0,
        )  # fmt: skip
        head = nn.Linear(loaded.model.config.hidden_size, 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        policy = PolicyWithValueHead(loaded.model, head)
        self.networks = Networks(
            policy, frozen_copy(loaded.model), Accelerator(cpu=True), nullcontext, work.micro_batch
        )
        # As transformers' Trainer makes it for us ("adamw_torch_fused").
        self.optimizer = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
        self.model, self.work = loaded.model, work
        self.prompts = [Prompt(Problem(str(i), "?", "1"), "?", tuple(ids)) for i, ids in enumerate(work.prompts)]
        sampler = TorchSampler(
            loaded.model, eos_token_id=loaded.eos_token_id, pad_token_id=0, batch_size=n, context=2048
        )
        self.sampler = sampler.with_values(head)
        _force_choices(work)

    def update(self) -> dict[str, float]:
        from reftcli.grading.interface import Grade, Verdict
        from reftcli.rewards.shaping import Reward
        from reftcli.sampling.interface import Decode
        from reftcli.training.ppo.rollout import Rollout
        from reftcli.training.ppo.update import rollout_batch, update_policy

        longest = max(map(len, self.work.completions))
        drawn = self.sampler.sample(self.prompts, 1, Decode("sampled", longest))
        assert [list(c.token_ids) for c in drawn] == self.work.completions
        rewards = map(Reward, self.work.rewards)
        grade = Grade.of(Verdict.CORRECT)
        rollouts = [Rollout(c, "", grade, reward) for c, reward in zip(drawn, rewards, strict=True)]
        batch = rollout_batch(self.networks, rollouts, self.settings)
        done = update_policy(self.networks, self.optimizer, batch, self.settings, np.random.default_rng(0))
        return {
            "policy_loss": done.policy_loss[-1],
            "value_loss": done.value_loss[0],
            "first_policy_loss": done.policy_loss[0],
        }


def _force_choices(work: Work) -> None:
    """Lets the sampler choose, and then take the given token with that token's own log-probability."""
    from dataclasses import replace

    from reftcli.sampling import torch_sampler

    decoder = torch_sampler._Decoder
    choose, current = torch_sampler.choose, SimpleNamespace(rows=[])

    def forced(logits: Tensor, decode: Any, uniform: Tensor | None) -> Any:
        choice = choose(logits, decode, uniform)
        wanted = []
        for row in current.rows:
            ids = work.completions[int(row.prompt.problem.item_id)]
            wanted.append(ids[min(len(row.token_ids), len(ids) - 1)])
        tokens = torch.tensor(wanted)
        logprobs = torch.log_softmax(logits, dim=-1).gather(1, tokens[:, None]).squeeze(1)
        return replace(choice, tokens=tokens, logprobs=logprobs)

    plain = decoder._choose

    def choosing(self: Any, rows: list[Any], logits: Tensor, hidden: Tensor | None) -> Tensor:
        current.rows = rows
        return plain(self, rows, logits, hidden)

    torch_sampler.choose, decoder._choose = forced, choosing


# p2 --------------------------------------------------------------------------------------------------------------


class FreeReward(nn.Module):
    """A reward model with the interface that TRL calls, at no cost."""

    base_model_prefix = "backbone"

    def __init__(self, rewards: Sequence[float]) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden_size=1)
        self.rewards = torch.tensor(rewards)

    def backbone(self, input_ids: Tensor, **_: Any) -> Any:
        return SimpleNamespace(hidden_states=[torch.zeros((*input_ids.shape, 1))])

    def score(self, hidden: Tensor) -> Tensor:
        return self.rewards[: len(hidden), None, None].expand(hidden.shape)


class Stock:
    """PPOTrainer runs all updates in one call: a callback stops it between them."""

    def __init__(self, work: Work, updates: int, wait: Callable[[dict[str, float] | None], None]) -> None:
        import copy

        from datasets import Dataset
        from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, TrainerCallback
        from trl.experimental.ppo import PPOConfig, PPOTrainer

        from reftcli.models.smollm2_q4 import expanded_folder

        loaded = load()
        tokenizer = loaded.tokenizer
        tokenizer.pad_token_id = 0  # with pad == EOS the trainer masks EOS out
        value = AutoModelForSequenceClassification.from_pretrained(
            str(expanded_folder()), dtype=torch.float32, num_labels=1
        )
        n, micro = len(work.prompts), work.micro_batch
        columns = max(map(len, work.prompts))
        generate = loaded.model.generate
        places = {tuple(prompt): place for place, prompt in enumerate(work.prompts)}

        def forced(input_ids: Tensor, **settings: Any) -> Any:
            """TRL shuffles prompts and generates some at a time: the rows are found again by their tokens."""
            texts = [[token for token in row if token] for row in input_ids.tolist()]
            rows = [work.completions[places[tuple(text)]] for text in texts]
            return generate(input_ids=input_ids, **settings, logits_processor=[ForceTokens(rows, columns, 0)])

        loaded.model.generate = forced
        self.model = loaded.model

        class Waits(TrainerCallback):  # type: ignore[misc]
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                wait(None)

            def on_log(self, _: Any, state: Any, __: Any, logs: Any = None, **___: Any) -> None:
                state.last = logs

            def on_step_end(self, _: Any, state: Any, __: Any, **___: Any) -> None:
                wait({"policy_loss": state.last["loss/policy_avg"], "value_loss": state.last["loss/value_avg"]})

        data = Dataset.from_dict({"input_ids": work.prompts})
        config = PPOConfig(
            output_dir=os.environ.get("TMPDIR", "/tmp"),
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=work.mini_batch // micro,
            num_mini_batches=n // work.mini_batch,
            num_ppo_epochs=EPOCHS,
            total_episodes=n * updates,
            learning_rate=LEARNING_RATE,
            kl_coef=KL_COEF,
            vf_coef=VF_COEF,
            cliprange=CLIP,
            cliprange_value=VALUE_CLIP,
            temperature=1.0,
            response_length=max(map(len, work.completions)),
            stop_token_id=loaded.eos_token_id,
            bf16=False,
            gradient_checkpointing=False,
            local_rollout_forward_batch_size=micro,
            num_sample_generations=0,
            report_to="none",
            save_strategy="no",
            eval_strategy="no",
            use_cpu=True,
            lr_scheduler_type="constant",
            disable_tqdm=True,
        )
        self.trainer = PPOTrainer(
            args=config, processing_class=tokenizer, model=loaded.model, ref_model=copy.deepcopy(loaded.model),
            reward_model=FreeReward(work.rewards), value_model=value, train_dataset=data, eval_dataset=data,
            data_collator=DataCollatorWithPadding(tokenizer), callbacks=[Waits()],
        )  # fmt: skip


# The process -----------------------------------------------------------------------------------------------------


def main() -> None:
    """``ppo_contestants.py NAME UPDATES``: work as JSON on the first line of standard input, then a line per update."""
    name, updates = sys.argv[1], int(sys.argv[2])
    work = Work(**json.loads(sys.stdin.readline()))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    import accelerate
    import transformers
    import trl.experimental.ppo

    del accelerate, transformers, trl
    imported_mb = _resident_mb()
    threads = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    before: list[Tensor] = []
    started = [0.0]

    def answer(losses: dict[str, float] | None, model: nn.Module) -> None:
        seconds = time.perf_counter() - started[0]
        if losses is None:
            before.extend(p.detach().clone() for p in list(model.parameters())[:3])
            row: dict[str, Any] = {"ready": True, "imported_mb": imported_mb}
        else:
            pairs = zip(model.parameters(), before, strict=False)
            moved = float(sum((p.detach() - b).norm() ** 2 for p, b in pairs)) ** 0.5
            row = {"seconds": seconds, **losses, "moved": moved, "peak_mb": _peak_mb(), "imported_mb": imported_mb}
        answers.write(json.dumps(row) + "\n")
        answers.flush()
        if not sys.stdin.readline():
            sys.exit(0)
        started[0] = time.perf_counter()

    for losses, model in _contest(name, work, updates, answer):
        answer(losses, model)


def _contest(name: str, work: Work, updates: int, answer: Any) -> Iterator[tuple[dict[str, float] | None, nn.Module]]:
    if name == "p2":
        stock = Stock(work, updates, lambda losses: answer(losses, stock.model))
        stock.trainer.train()
        return
    contestant = Ours(work) if name == "ours" else PaddedLoop(work, fast_products=name == "p1+")
    yield None, contestant.model
    for _ in range(updates):
        yield contestant.update(), contestant.model


def _resident_mb() -> float:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 2**20


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
