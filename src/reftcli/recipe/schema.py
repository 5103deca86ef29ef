"""The one definition of every setting: type, default, bounds and help.

YAML keys, ``--set`` keys, flags and ``docs/recipes.md`` all come from here. The defaults are the paper's
(arXiv 2401.08967 and its released scripts) where it has one.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from reftcli.grading.policy import AnswerPolicy, Percent
from reftcli.problems.record import AnswerKind, CotForm
from reftcli.rewards.shaping import RewardTable
from reftcli.runs.trackers import TRACKERS

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A group of settings; unknown keys are errors."""

    # Defaults are validated too: else 40 is written as 40, and read again as 40.0, with another recipe_sha256.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class ModelSettings(Section):
    """The base model."""

    name: str | None = Field(
        None, description="alias, hub id or folder; a stage that starts FROM a run takes its model"
    )
    revision: str | None = Field(None, description="branch, tag or commit on the hub")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="of matrix products; weights stay fp32. auto: bf16 on a GPU that has it",
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass to save memory")


class DataSettings(Section):
    """The problems and their splits."""

    dataset: str = Field("gsm8k", description="name, or path of a JSON array or JSONL file")
    cot: CotForm = Field("pcot", description="ncot: natural language; pcot: a Python program")
    answer: AnswerKind | None = Field(None, description="kind of answer; default: what the data set says")
    train: str | None = Field(None, description="path of the training problems")
    validation: str | None = Field(None, description="path of the validation problems")
    test: str | None = Field(None, description="path of the test problems")
    train_size: Positive | None = Field(None, description="use only so many training problems (seeded choice)")
    validation_size: Positive = Field(500, description="problems carved from train where there is no validation file")
    test_size: Positive = Field(500, description="problems carved from train where there is no test file")
    split_seed: int = Field(0, description="decides which problems are carved; keep it the same in all stages")
    level: Annotated[int, Field(ge=1, le=3)] | None = Field(None, description="toy only: number of steps; default all")


class PromptSettings(Section):
    """How a problem is shown to the model."""

    template: str = Field("paper", description="paper, chat (the tokenizer's), or a text file with {question}")


class WarmupSettings(Section):
    """Supervised fine-tuning on (question, chain of thought)."""

    schedule_epochs: Rate = Field(40, description="epochs that the learning-rate schedule spans")
    stop_epoch: Rate | None = Field(2, description="epochs that are run; null: all of the schedule (plain SFT)")
    learning_rate: Rate = Field(1e-5, description="peak learning rate")
    lr_schedule: Literal["linear", "constant", "cosine"] = Field("linear", description="shape after the LR warm-up")
    lr_warmup: Share = Field(0.1, description="share of the schedule in which the learning rate rises")
    batch_size: Positive = Field(48, description="examples per optimizer step, over all devices")
    micro_batch_size: Positive | None = Field(None, description="examples per forward pass and device; default: all")
    max_length: Positive = Field(
        1024, description="tokens of prompt and target; longer examples are dropped and counted"
    )
    weight_decay: NonNegative = Field(0.0, description="AdamW weight decay")
    max_grad_norm: Rate = Field(1.0, description="gradient clipping")
    validation_limit: Positive | None = Field(None, description="validate on so many problems; default: all")
    checkpoints_per_epoch: Positive = Field(1, description="how often a checkpoint that --resume can use is written")

    @property
    def epochs(self) -> float:
        """Epochs that are run."""
        return self.schedule_epochs if self.stop_epoch is None else self.stop_epoch

    @model_validator(mode="after")
    def _stop_within_schedule(self) -> WarmupSettings:
        if self.stop_epoch is not None and self.stop_epoch > self.schedule_epochs:
            raise ValueError(f"stop_epoch {self.stop_epoch:g} is after the schedule's end, {self.schedule_epochs:g}")
        return self


class RewardSettings(Section):
    """What each verdict earns; an ungradable completion has no reward at all."""

    correct: Share = Field(1.0, description="the right answer")
    wrong: Share = Field(0.1, description="an answer that is wrong; 0 is safer for choices, where guessing pays")
    no_answer: Share = Field(0.0, description="no answer: nothing found, or the program failed")


class RlSettings(Section):
    """PPO on graded completions."""

    epochs: Rate = Field(300, description="passes over the training problems; `updates` overrides it")
    updates: Positive | None = Field(None, description="number of PPO updates (one rollout batch each)")
    batch_size: Positive = Field(32, description="rollouts per update, over all devices")
    mini_batch_size: Positive | None = Field(None, description="rollouts per optimizer step; default: the whole batch")
    micro_batch_size: Positive | None = Field(
        None, description="rollouts per forward pass and device; default: mini-batch"
    )
    ppo_epochs: Positive = Field(2, description="passes over a rollout batch")
    learning_rate: Rate = Field(3e-7, description="learning rate")
    lr_schedule: Literal["linear", "constant", "cosine"] = Field("constant", description="shape over all updates")
    weight_decay: NonNegative = Field(0.0, description="AdamW weight decay")
    max_grad_norm: Rate = Field(1.0, description="gradient clipping")
    kl_coef: NonNegative = Field(0.01, description="beta, the price of a nat of KL to the reference model")
    kl_estimator: Literal["k1", "k3"] = Field("k1", description="k1: log ratio (paper); k3: lower variance")
    gamma: Share = Field(1.0, description="discount")
    lam: Share = Field(0.95, description="lambda of GAE")
    clip_range: Rate = Field(0.2, description="clip of the probability ratio")
    value_clip_range: Rate = Field(0.2, description="clip of the value's change")
    vf_coef: NonNegative = Field(5.0, description="weight of the value loss")
    loss_average: Literal["sequence", "token"] = Field(
        "sequence", description="mean per completion, then over completions (paper); or over all tokens (TRL)"
    )
    whitening: bool = Field(True, description="advantages to mean 0 and variance 1 over the global batch")
    max_prompt_tokens: Positive = Field(300, description="longer prompts are dropped from training and counted")
    max_total_tokens: Positive = Field(700, description="prompt and completion")
    temperature: Rate = Field(1.0, description="of the rollouts")
    reward: RewardSettings = RewardSettings()
    truncated: Literal["grade", "zero"] = Field("grade", description="reward of a completion cut off by the limit")
    max_ungradable: Share = Field(0.05, description="end the run when more rollouts than this cannot be graded")
    shuffle_gold: bool = Field(
        False, description="control experiment: golds are shuffled among problems, and a wrong answer earns 0"
    )
    value_model: Literal["shared", "separate"] = Field(
        "shared", description="a value head on the policy's backbone (paper), or a model of its own: twice the memory"
    )
    lora_rank: Positive | None = Field(
        None, description="train LoRA layers of this rank beside frozen weights; default: all weights are trained"
    )
    lora_alpha: Rate = Field(16, description="LoRA layers count alpha / rank")
    rollout_logprobs: Literal["decoded", "recomputed"] = Field(
        "decoded",
        description="log-probabilities and values of rollouts: as they were decoded, or by another forward pass",
    )
    verify_every: Annotated[int, Field(ge=0)] = Field(
        25, description="updates between comparisons of decoded log-probabilities with recomputed ones; 0: never"
    )
    logprob_chunk: Positive | None = Field(
        None, description="logits of at most so many tokens at once: slower, for tight memory; default: all"
    )
    validate_every: Positive = Field(50, description="updates between greedy validations; the best one is kept")
    validation_limit: Positive | None = Field(500, description="validate on so many problems")
    best: Literal["highest", "significant"] = Field(
        "highest",
        description="what `best/` is: the update of the highest validation accuracy; or that only where it beats the "
        "start beyond chance (McNemar, p below 0.05 over all validations), else the start",
    )
    patience: Positive | None = Field(
        None, description="end after so many validations without a better one; default: all updates are made"
    )
    checkpoint_every: Positive = Field(50, description="updates between checkpoints that --resume can use")
    keep: Positive = Field(2, description="checkpoints kept, besides best")

    @property
    def reward_table(self) -> RewardTable:
        """The rewards in force: under `shuffle_gold` only a match with the (shuffled) gold pays."""
        if self.shuffle_gold:
            return RewardTable(correct=self.reward.correct, wrong=0.0, no_answer=0.0)
        return RewardTable(self.reward.correct, self.reward.wrong, self.reward.no_answer)

    @model_validator(mode="after")
    def _sizes_fit(self) -> RlSettings:
        mini = self.mini_batch_size or self.batch_size
        if self.batch_size % mini:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of mini_batch_size {mini}")
        if self.lora_rank is not None and self.value_model == "separate":
            raise ValueError("lora_rank trains no second model: use value_model: shared")
        if self.max_total_tokens <= self.max_prompt_tokens:
            room = f"max_prompt_tokens {self.max_prompt_tokens}"
            raise ValueError(f"max_total_tokens {self.max_total_tokens} leaves no room after {room}")
        return self


class SamplingSettings(Section):
    """Completions for eval, vote and rerank."""

    k: Positive = Field(100, description="completions per problem for voting")
    temperature: Rate = Field(1.0, description="of the sampled completions")
    top_k: Annotated[int, Field(ge=0)] = Field(0, description="keep the k most likely tokens; 0: off")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="keep the smallest set of this probability")
    max_new_tokens: Positive = Field(724, description="limit of a completion")
    batch_size: Positive = Field(64, description="completions decoded at once on a device")
    backend: Literal["torch", "vllm"] = Field(
        "torch",
        description="what draws completions in every stage: torch, the model itself; vllm, an engine on a GPU (a run "
        "that is resumed or repeated is then not bit for bit the same)",
    )
    vllm_mode: Literal["colocate", "server"] = Field(
        "colocate", description="the engine is in this process, on its GPU; or `vllm serve` runs on other GPUs"
    )
    vllm_server_url: str | None = Field(
        None, description="of the server, for vllm_mode server; default: port 8000 of this machine"
    )
    vllm_gpu_memory: Annotated[float, Field(gt=0, le=1)] = Field(
        0.3, description="share of the GPU's memory for the engine and its weights, for vllm_mode colocate"
    )
    vllm_max_length: Positive | None = Field(
        None, description="most tokens of prompt and completion in the vLLM engine; default: the model's context"
    )


Scorer = Literal["head", "likelihood"]


class RerankSettings(Section):
    """The reward model: a binary classifier of completions."""

    samples_from: Literal["warmup", "policy", "both"] = Field(
        "warmup", description="whose samples are labelled: the warm-up's (paper), those of the model it picks for, both"
    )
    samples_per_problem: Positive = Field(100, description="completions of each of them for each training problem")
    problems: Positive | None = Field(None, description="use so many training problems; default: all")
    k: Positive | None = Field(None, description="candidates to pick from; default: sampling.k")
    scorer: Scorer = Field(
        "head",
        description="p(correct) by a new linear layer on the last token (paper), or by the likelihood that the model "
        "itself gives to the completion's tokens (sum and least; logistic regression on the labels)",
    )
    trained: Literal["all", "head"] = Field(
        "all", description="all weights (paper), or only what makes p(correct) of a model that stays as it is"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: right and wrong samples weigh the same in all; p(correct) is then for such a mix"
    )
    epochs: Rate = Field(3, description="passes over the labelled completions")
    learning_rate: Rate = Field(1e-6, description="peak learning rate, linear decay")
    lr_warmup: Share = Field(0.1, description="share of the schedule in which the learning rate rises")
    batch_size: Positive = Field(24, description="completions per optimizer step")
    micro_batch_size: Positive | None = Field(None, description="completions per forward pass; default: all")
    max_length: Positive = Field(700, description="tokens of question and completion; longer ones are dropped")
    weight_decay: NonNegative = Field(0.0, description="AdamW weight decay")


class GradingSettings(Section):
    """Judging answers."""

    tolerance: NonNegative = Field(1e-2, description="largest difference between equal numbers")
    percent: Percent = Field("drop", description="5% is 5 (drop) or 0.05 (fraction)")
    decimal_comma: bool = Field(False, description="read 3,5 as three and a half and 1.000 as a thousand")
    number_words: bool = Field(False, description='read "twenty-five" and "5 million"')
    option_text: bool = Field(True, description="multiple choice: accept the text of an option for its letter")
    last_number: bool = Field(False, description="take the last number of a text without a final answer; pays guesses")
    timeout_s: Rate = Field(2.0, description="seconds of CPU time that a program may take")
    workers: Positive | None = Field(None, description="processes that run programs; default: one per core")

    @property
    def policy(self) -> AnswerPolicy:
        """How answers are read and compared."""
        return AnswerPolicy(**{field.name: getattr(self, field.name) for field in dataclasses.fields(AnswerPolicy)})


class Recipe(Section):
    """Every setting of a ReFT experiment: one cell of the paper's table."""

    description: str = Field("", description="what this recipe is, and what it was run on")
    seed: int = Field(42, ge=0, lt=2**31, description="of everything random")
    report_to: str = Field(
        "none", description="where metrics go besides metrics.jsonl: tensorboard, wandb, trackio; several with commas"
    )
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    prompt: PromptSettings = PromptSettings()
    warmup: WarmupSettings = WarmupSettings()
    rl: RlSettings = RlSettings()
    sampling: SamplingSettings = SamplingSettings()
    rerank: RerankSettings = RerankSettings()
    grading: GradingSettings = GradingSettings()

    @property
    def trackers(self) -> tuple[str, ...]:
        """The trackers that `report_to` names."""
        return () if self.report_to == "none" else tuple(self.report_to.split(","))

    @field_validator("report_to", mode="before")
    @classmethod
    def _known_trackers(cls, value: object) -> str:
        """One spelling: a list is joined, nothing is none."""
        parts = [str(part) for part in value] if isinstance(value, list | tuple) else str(value or "none").split(",")
        names = list(dict.fromkeys(part.strip().lower() for part in parts if part.strip()))
        if unknown := [name for name in names if name not in (*TRACKERS, "none")]:
            raise ValueError(f"no tracker {unknown[0]!r}; there are {', '.join(TRACKERS)}, and none")
        return ",".join(name for name in names if name != "none") or "none"
