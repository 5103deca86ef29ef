"""The four ways to make one PPO update that `ppo_step.py` compares. Each runs in a process of its own.

All of them are given the same prompts, draw the very same completions (the sampler's work is done in full, then its
choice is replaced by a given token), get the same rewards and make the same number of passes with the same micro-batch.

    p1    a padded loop, as the released research scripts run it: HF generate, then padded forward passes that keep all
          logits of policy and reference, one backbone with a value head, AdamW
    p1+   the same with the products of linear layers sent to oneDNN, as ours are
    p2    TRL 1.12's PPOTrainer as it is: a value model of its own, a reward model that costs nothing
    ours  the engine of reft
    floor no contestant: only the products of linear layers, see `ppo_floor.py`
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
from ppo_floor import Floor
from torch import Tensor, nn
from torch.nn import functional

MODEL = "smollm2-q4"
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

    def settings(self) -> Any:
        """As `RlSettings`."""
        from reftcli.recipe.schema import RlSettings

        return RlSettings(
            batch_size=len(self.prompts), mini_batch_size=self.mini_batch,
            ppo_epochs=EPOCHS, kl_coef=KL_COEF, vf_coef=VF_COEF, clip_range=CLIP,
            value_clip_range=VALUE_CLIP, lam=LAM, learning_rate=LEARNING_RATE, max_grad_norm=1.0,
        )  # fmt: skip


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


def new_head(model: Any) -> nn.Linear:
    """A value head whose values are 0, so that all contestants begin with the same."""
    head = nn.Linear(model.config.hidden_size, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def load(model: str = MODEL, onednn: bool = False) -> Any:
    """A model whose linear layers compute through oneDNN, or do not: `load_model` itself decides by size."""
    import reftcli.models.load as loading
    from reftcli.models.onednn import use_onednn
    from reftcli.models.source import resolve_model

    loading.LARGE_ENOUGH_FOR_ONEDNN = sys.maxsize
    loaded = loading.load_model(resolve_model(model))
    if onednn:
        use_onednn(loaded.model)
    loaded.model.eval()
    return loaded


# p1 and p1+ ------------------------------------------------------------------------------------------------------


class PaddedLoop:
    """Left-padded prompts, HF generate, logits of every position."""

    def __init__(self, loaded: Any, settings: Any, micro_batch: int) -> None:
        import copy

        self.model, self.pad, self.eos = loaded.model, 0, loaded.eos_token_id
        self.reference = copy.deepcopy(loaded.model).requires_grad_(False)
        self.head = new_head(self.model)
        self.parameters = [*self.model.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=settings.learning_rate, weight_decay=0.0)
        self.settings, self.micro_batch = settings, micro_batch

    def learn(self, sequences: Tensor, mask: Tensor, start: int, rewards: list[float]) -> dict[str, float]:
        """An update on completions that begin in column ``start``: ``mask`` is 1 at every token that counts."""
        everything = self._slices(range(len(sequences)))
        with torch.no_grad():
            scored = [self._score(sequences[rows], mask[rows], start) for rows in everything]
            old, old_values = (torch.cat(column) for column in zip(*scored, strict=True))
            reference = torch.cat([self._reference(sequences[rows], mask[rows], start) for rows in everything])
        completion = mask[:, start:].bool()
        advantages, returns = self._targets(old, reference, old_values, completion, rewards)
        losses: list[tuple[float, float]] = []
        for chosen in self._mini_batches(len(sequences)):
            totals, weight = [0.0, 0.0], self._weight(completion[chosen])
            for rows in self._slices(chosen):
                new, values = self._score(sequences[rows], mask[rows], start)
                counted, gain = completion[rows], advantages[rows]
                ratio = torch.exp((new - old[rows]).masked_fill(~counted, 0.0))
                near_ratio = ratio.clamp(1 - self.settings.clip_range, 1 + self.settings.clip_range)
                policy = torch.max(-gain * ratio, -gain * near_ratio)
                clip = self.settings.value_clip_range
                near = old_values[rows] + (values - old_values[rows]).clamp(-clip, clip)
                value = 0.5 * torch.max((values - returns[rows]) ** 2, (near - returns[rows]) ** 2)
                per_token = weight(counted)
                policy_loss, value_loss = (policy * per_token).sum(), (value * per_token).sum()
                (policy_loss + self.settings.vf_coef * value_loss).backward()
                totals = [totals[0] + float(policy_loss), totals[1] + float(value_loss)]
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            losses.append((totals[0], totals[1]))
        return {"policy_loss": losses[-1][0], "value_loss": losses[0][1], "first_policy_loss": losses[0][0]}

    def generate(self, prompts: Sequence[Sequence[int]], **settings: Any) -> tuple[Tensor, Tensor, int]:
        """Sequences, the mask of the prompts, and the column where completions begin."""
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), self.pad)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        found = self.model.generate(
            input_ids=ids, attention_mask=mask, do_sample=True, top_k=0,
            eos_token_id=self.eos, pad_token_id=self.pad, **settings,
        )  # fmt: skip
        return found, mask, width

    def order(self, n: int) -> list[int]:
        """In which the rows of an epoch come."""
        return list(range(n))

    def _mini_batches(self, n: int) -> Iterator[list[int]]:
        size = self.settings.mini_batch_size or n
        for _ in range(self.settings.ppo_epochs):
            order = self.order(n)
            yield from (order[first : first + size] for first in range(0, n, size))

    def _slices(self, rows: Sequence[int]) -> list[list[int]]:
        """Rows of the forward passes."""
        size = self.micro_batch
        return [list(rows[first : first + size]) for first in range(0, len(rows), size)]

    def _weight(self, mini: Tensor) -> Callable[[Tensor], Tensor]:
        """What a token of this mini-batch counts in a loss."""
        if self.settings.loss_average == "token":
            return lambda counted: counted / mini.sum()
        return lambda counted: counted / counted.sum(1, keepdim=True) / len(mini)

    def _score(self, sequences: Tensor, mask: Tensor, start: int) -> tuple[Tensor, Tensor]:
        output = self.model(sequences, attention_mask=mask, output_hidden_states=True)
        values = self.head(output.hidden_states[-1]).squeeze(-1)[:, start - 1 : -1]
        return self._logprobs(output.logits, sequences, start), values

    def _reference(self, sequences: Tensor, mask: Tensor, start: int) -> Tensor:
        return self._logprobs(self.reference(sequences, attention_mask=mask).logits, sequences, start)

    def _logprobs(self, logits: Tensor, sequences: Tensor, start: int) -> Tensor:
        every = functional.log_softmax(logits[:, :-1], dim=-1).gather(2, sequences[:, 1:, None]).squeeze(2)
        return every[:, start - 1 :]

    def _targets(
        self, old: Tensor, reference: Tensor, values: Tensor, completion: Tensor, terminal: list[float]
    ) -> tuple[Tensor, Tensor]:
        rewards = -self.settings.kl_coef * (old - reference) * completion
        values = values * completion
        last = completion.sum(1) - 1
        rewards[torch.arange(len(last)), last] += torch.tensor(terminal)
        advantages = torch.zeros_like(rewards)
        following = next_value = torch.zeros(len(last))
        for t in reversed(range(rewards.shape[1])):
            delta = rewards[:, t] + next_value - values[:, t]
            following = (delta + self.settings.lam * following) * completion[:, t]
            advantages[:, t], next_value = following, values[:, t]
        returns = advantages + values
        kept = advantages[completion]
        return (advantages - kept.mean()) * torch.rsqrt(kept.var(correction=0) + 1e-8) * completion, returns


class ForcedPaddedLoop(PaddedLoop):
    """With completions that are given."""

    def __init__(self, work: Work, onednn: bool) -> None:
        super().__init__(load(MODEL, onednn), work.settings(), work.micro_batch)
        self.work = work

    def update(self) -> dict[str, float]:
        completions, longest = self.work.completions, max(map(len, self.work.completions))
        forced = ForceTokens(completions, max(map(len, self.work.prompts)), self.pad)
        found, mask, start = self.generate(self.work.prompts, max_new_tokens=longest, logits_processor=[forced])
        lengths = torch.tensor([len(row) for row in completions])
        behind = torch.arange(found.shape[1] - start)[None] < lengths[:, None]
        return self.learn(found, torch.cat([mask, behind.long()], dim=1), start, self.work.rewards)


# ours ------------------------------------------------------------------------------------------------------------


class Ours:
    """Sampler, scoring and update of reft, without a run's folder around them."""

    def __init__(self, work: Work) -> None:
        from contextlib import nullcontext

        from accelerate import Accelerator

        from reftcli.models.load import frozen_copy
        from reftcli.problems.prompts import Prompt
        from reftcli.problems.record import Problem
        from reftcli.runs.ranks import ALONE
        from reftcli.sampling.torch_sampler import TorchSampler
        from reftcli.training.engines import TorchEngine
        from reftcli.training.ppo.policy import PolicyWithValueHead, ReferenceModel
        from reftcli.training.ppo.update import Networks

        loaded = load(onednn=True)
        n = len(work.prompts)
        self.settings = work.settings()
        head, accelerator = new_head(loaded.model), Accelerator(cpu=True)
        policy = PolicyWithValueHead(loaded.model, head)
        # As transformers' Trainer makes it for us ("adamw_torch_fused").
        optimizer = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
        engine = TorchEngine(accelerator, policy, optimizer)
        reference = ReferenceModel(frozen_copy(loaded.model))
        self.networks = Networks(policy, reference, accelerator, engine, ALONE, nullcontext, work.micro_batch)
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
        done = update_policy(self.networks, batch, self.settings, np.random.default_rng(0))
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


Updates = Iterator[tuple[dict[str, float] | None, nn.Module | None]]
"""What each update found and the network that moved; nothing yet before the first."""


def main(contest: Callable[[str, dict[str, Any], int, Any], Updates]) -> None:
    """``PROGRAM NAME UPDATES``: work as JSON on the first line of standard input, then a line per update."""
    name, updates = sys.argv[1], int(sys.argv[2])
    given = json.loads(sys.stdin.readline())
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
    started = [0.0, 0.0]

    def answer(found: dict[str, float] | None, model: nn.Module | None) -> None:
        seconds, cpu_seconds = time.perf_counter() - started[0], time.process_time() - started[1]
        parameters = [] if model is None else list(model.parameters())[:3]
        if found is None:
            before.extend(p.detach().clone() for p in parameters)
            row: dict[str, Any] = {"ready": True, "imported_mb": imported_mb}
        else:
            row = {"seconds": seconds, "cpu_seconds": cpu_seconds, **found}
            if parameters:
                pairs = zip(parameters, before, strict=True)
                row["moved"] = float(sum((p.detach() - b).norm() ** 2 for p, b in pairs)) ** 0.5
            row |= {"peak_mb": _peak_mb(), "imported_mb": imported_mb}
        answers.write(json.dumps(row) + "\n")
        answers.flush()
        if not sys.stdin.readline():
            sys.exit(0)
        started[:] = [time.perf_counter(), time.process_time()]

    for found, model in contest(name, given, updates, answer):
        answer(found, model)


def _contest(name: str, given: dict[str, Any], updates: int, answer: Any) -> Updates:
    work = Work(**given)
    if name == "p2":
        stock = Stock(work, updates, lambda losses: answer(losses, stock.model))
        stock.trainer.train()
        return
    contestant = _contestant(name, work)
    yield None, contestant.model
    for _ in range(updates):
        yield contestant.update(), contestant.model


def _contestant(name: str, work: Work) -> Any:
    if name == "ours":
        return Ours(work)
    if name == "floor":
        return Floor(work, load(onednn=True).model, LEARNING_RATE, EPOCHS)
    return ForcedPaddedLoop(work, onednn=name == "p1+")


def _resident_mb() -> float:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 2**20


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(_contest)
