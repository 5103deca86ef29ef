"""Two ways for a model to say p(correct) of a completion: a linear layer on its last token, or its likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import SequenceClassifierOutput

LIKELIHOOD_KEY = "reft_likelihood"
"""In the configuration of a saved model: it is a `LikelihoodClassifier`; holds ``weights`` and ``bias``."""

_RIDGE = 1e-4
"""Keeps the fitted weights finite where likelihood tells right from wrong without a mistake."""


class LikelihoodClassifier(nn.Module):
    """p(correct) of a completion from a causal model's own predictions of its tokens.

    logit p(correct | x, e) = w_1 sum_t l_t + w_2 min_t l_t + b,   l_t = log pi(e_t | x, e_<t),   w_1, w_2 >= 0

    The model compares what it would have written with what is written, which a new linear layer has to learn from
    nothing. Best-of-k by likelihood: Chen et al. 2021 (arXiv 2107.03374); a likelihood trained on right and wrong
    samples as the verifier: V-STaR (arXiv 2402.06457, with DPO) and arXiv 2412.01981 (with cross-entropy on the outcome
    as here, and relative to a frozen copy, which is left out).
    """

    model: PreTrainedModel

    def __init__(self, model: PreTrainedModel, weights: Sequence[float] = (1.0, 0.0), bias: float = 0.0) -> None:
        super().__init__()
        self.model = model
        self.head = nn.Linear(2, 1, device=model.device)
        self._set(torch.tensor([*weights]), torch.tensor(float(bias)))

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    @torch.no_grad()
    def _set(self, weights: Tensor, bias: Tensor) -> None:
        self.head.weight.copy_(weights[None])
        self.head.bias.copy_(bias)

    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        self.model.gradient_checkpointing_enable(**kwargs)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, prompt_tokens: Tensor, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Logits [B, 2] of (not correct, correct). Rows are padded on the right; ``labels`` are Trainer's, unread."""
        z = self.head(self.evidence(input_ids, attention_mask, prompt_tokens)).squeeze(-1)
        return SequenceClassifierOutput(logits=torch.stack([torch.zeros_like(z), z], dim=-1))

    def evidence(self, input_ids: Tensor, attention_mask: Tensor, prompt_tokens: Tensor) -> Tensor:
        """Sum and least of the log-probabilities of the completions' tokens in nats, [B, 2]; 0 of an empty one.

        Only positions that predict a completion token go through the vocabulary projection.
        """
        states = self.model.base_model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        position = torch.arange(input_ids.shape[1], device=input_ids.device)
        completion_mask = (position >= prompt_tokens.clamp(min=1)[:, None]) & attention_mask.bool()
        logits = self.model.get_output_embeddings()(states[:, :-1][completion_mask[:, 1:]]).float()
        found = logits.gather(1, input_ids[completion_mask][:, None]).squeeze(1) - torch.logsumexp(logits, dim=-1)
        logprobs = torch.zeros(input_ids.shape, device=found.device).masked_scatter(completion_mask, found)
        return torch.stack([logprobs.sum(dim=1), logprobs.amin(dim=1)], dim=-1)

    def fit(self, evidence: Tensor, correct: Tensor, class_weights: Tensor | None = None) -> None:
        """The weights >= 0 and the bias that explain the labels best: logistic regression (Platt 1999).

        No weight is negative: a completion must not look worse for being likelier. Samples of two kinds (one-step and
        step by step) can make it seem so, and a pick among samples of one kind then goes wrong.

        ``evidence``: [m, 2]; ``correct``: [m]; ``class_weights``: [2], of not correct and correct samples.
        """
        mean, spread = evidence.mean(dim=0), evidence.std(dim=0, correction=0).clamp(min=1e-6)
        x, y = ((evidence - mean) / spread).double(), correct.double()
        each = (torch.ones(2) if class_weights is None else class_weights).to(y)[correct.long()]
        # The loss is convex: if the best weights of all are negative somewhere, the best allowed ones have zeros.
        fits = [_logistic_regression(x, y, each, used) for used in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0))]
        weights, bias, _ = min((fit for fit in fits if bool((fit[0] >= 0).all())), key=lambda fit: fit[2])
        self._set(weights / spread, bias - (weights / spread * mean).sum())


def _logistic_regression(x: Tensor, y: Tensor, each: Tensor, used: Sequence[float]) -> tuple[Tensor, Tensor, float]:
    """Weights [2], bias and loss; evidence that is not ``used`` (0) weighs nothing."""
    evidence = x * torch.tensor(used).to(x)
    w = torch.zeros(3, dtype=torch.float64, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=100, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(evidence @ w[:2] + w[2], y, each)
        value: Tensor = loss + _RIDGE * w[:2].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(step)  # type: ignore[no-untyped-call]
    loss = float(step().detach())
    return w.detach()[:2], w.detach()[2], loss


Classifier: TypeAlias = PreTrainedModel | LikelihoodClassifier
"""A reward model's network: called with `Encoded` batches it gives logits [B, 2] of (not correct, correct)."""


def save_classifier(
    folder: Path,
    classifier: Classifier,
    tokenizer: PreTrainedTokenizerBase,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes a folder that `load_classifier` loads. The head of a likelihood stands in the configuration.

    Args:
        weights: of the classifier, where it does not hold them itself.
    """
    state = dict(weights if weights is not None else classifier.state_dict())
    if isinstance(classifier, LikelihoodClassifier):
        model = classifier.model
        head = {"weights": state["head.weight"][0].tolist(), "bias": state["head.bias"].item()}
        setattr(model.config, LIKELIHOOD_KEY, head)
        state = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    else:
        model = classifier
    model.save_pretrained(folder, state_dict=state)
    tokenizer.save_pretrained(folder)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Prompt and completion as one sequence; the first ``prompt_tokens`` of it are the prompt's."""

    input_ids: Sequence[int]
    prompt_tokens: int


def encode(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
    """(prompt, completion) texts to tokens. A token that holds the end of one and the start of the other counts as
    the completion's."""
    if not pairs:
        return []
    prompts = list(dict.fromkeys(prompt for prompt, _ in pairs))
    ids_of = dict(zip(prompts, tokenizer(prompts, add_special_tokens=False)["input_ids"], strict=True))
    whole = tokenizer([prompt + completion for prompt, completion in pairs], add_special_tokens=False)["input_ids"]
    return [Encoded(ids, _shared(ids, ids_of[prompt])) for ids, (prompt, _) in zip(whole, pairs, strict=True)]


def _shared(ids: Sequence[int], prompt_ids: Sequence[int]) -> int:
    pairs = zip(ids, prompt_ids, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ids), len(prompt_ids)))


def padded(rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
    """A batch of rows with ``input_ids`` [l] and whole numbers, padded on the right: absolute positions stay right."""
    longest = max(len(row["input_ids"]) for row in rows)
    input_ids = torch.full((len(rows), longest), pad_token_id)
    attention_mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for i, row in enumerate(rows):
        length = len(row["input_ids"])
        input_ids[i, :length] = torch.as_tensor(row["input_ids"])
        attention_mask[i, :length] = 1
    numbers = {name: torch.tensor([row[name] for row in rows]) for name in rows[0] if name != "input_ids"}
    return {"input_ids": input_ids, "attention_mask": attention_mask, **numbers}


def class_logits(model: Classifier, batch: Mapping[str, Tensor]) -> Tensor:
    """Logits [B, 2] in fp32 of a batch from `padded` rows of `Encoded`."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    if isinstance(model, LikelihoodClassifier):
        inputs["prompt_tokens"] = batch["prompt_tokens"]
    logits: Tensor = model(**inputs).logits.float()
    return logits
