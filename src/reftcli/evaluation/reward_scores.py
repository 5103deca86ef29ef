"""The reward model at work: p(correct) of completions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reftcli.evaluation.samples import SampleRecord
from reftcli.models.load import load_classifier, load_tokenizer
from reftcli.models.precision import autocast_for
from reftcli.models.source import resolve_model
from reftcli.recipe.schema import ModelSettings, Recipe
from reftcli.runs.progress import Progress, Task

CORRECT_CLASS = 1
"""Index of "correct" among the classifier's two outputs."""


@torch.no_grad()
def score_completions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    model_settings: ModelSettings,
    batch_size: int,
    task: Task | None = None,
) -> list[float]:
    """p(correct) in [0, 1] of each prompt-and-completion text, in order."""
    autocast = autocast_for(model_settings.precision, model.device)
    scores = [0.0] * len(texts)
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = tokenizer.pad({"input_ids": [encoded[i] for i in rows]}, return_tensors="pt").to(model.device)
        with autocast():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        for i, p in zip(rows, torch.softmax(logits.float(), dim=-1)[:, CORRECT_CLASS].tolist(), strict=True):
            scores[i] = p
        if task:
            task.advance(len(rows))
    return scores


def score_samples(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[SampleRecord],
    model_settings: ModelSettings,
    batch_size: int,
    progress: Progress,
) -> dict[tuple[str, int], float]:
    """p(correct) of each sampled record, by (item_id, sample_index)."""
    sampled = [record for record in records if record.decoding == "sampled"]
    texts = [record.prompt + record.completion for record in sampled]
    with progress.task("scoring", len(texts), "completion") as task:
        scores = score_completions(model, tokenizer, texts, model_settings, batch_size, task)
    return {(r.item_id, r.sample_index): score for r, score in zip(sampled, scores, strict=True)}


def load_and_score(
    folder: Path, records: Sequence[SampleRecord], recipe: Recipe, progress: Progress
) -> dict[tuple[str, int], float]:
    """`score_samples` with the reward model saved in a folder."""
    source = resolve_model(str(folder))
    tokenizer = load_tokenizer(source)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    model = load_classifier(source, tokenizer.pad_token_id).eval()
    return score_samples(model, tokenizer, records, recipe.model, recipe.sampling.batch_size, progress)
