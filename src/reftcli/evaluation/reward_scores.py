"""The reward model at work: p(correct) of completions, window after window, by one process or several."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from reftcli.evaluation.samples import SampleRecord
from reftcli.models.load import load_classifier, load_tokenizer
from reftcli.models.precision import autocast_for
from reftcli.models.source import resolve_model
from reftcli.models.verifier import Classifier, class_logits, encode, padded
from reftcli.recipe.schema import ModelSettings, Recipe
from reftcli.runs.progress import Progress, Task
from reftcli.runs.ranks import ALONE, Ranks

CORRECT_CLASS = 1
"""Index of "correct" among the classifier's two outputs."""

WINDOW = 4096
"""Completions that are tokens at a time: memory does not grow with their number. Lengths are sorted within."""

Scores = dict[tuple[str, int], float]
"""p(correct) in [0, 1] by (item_id, sample_index)."""


def score_completions(
    model: Classifier,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    model_settings: ModelSettings,
    batch_size: int,
    task: Task | None = None,
) -> list[float]:
    """p(correct) in [0, 1] of each (prompt, completion), in order; the same text is read once in a window."""
    scores: list[float] = []
    for start in range(0, len(pairs), WINDOW):
        window = pairs[start : start + WINDOW]
        scores += _window_scores(model, tokenizer, window, model_settings, batch_size, task)
    return scores


@torch.no_grad()
def _window_scores(
    model: Classifier,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    model_settings: ModelSettings,
    batch_size: int,
    task: Task | None,
) -> list[float]:
    autocast = autocast_for(model_settings.precision, model.device)
    counts: dict[tuple[str, str], int] = {}
    for pair in pairs:
        counts[pair] = counts.get(pair, 0) + 1
    distinct = list(counts)
    encoded = encode(tokenizer, distinct)
    order = sorted(range(len(distinct)), key=lambda i: len(encoded[i].input_ids))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    score_of: dict[tuple[str, str], float] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = padded(
            [{"input_ids": encoded[i].input_ids, "prompt_tokens": encoded[i].prompt_tokens} for i in rows], pad
        )
        with autocast():
            logits = class_logits(model, {name: tensor.to(model.device) for name, tensor in batch.items()})
        p_correct = torch.softmax(logits, dim=-1)[:, CORRECT_CLASS].tolist()
        score_of.update(zip((distinct[i] for i in rows), p_correct, strict=True))
        if task:
            task.advance(sum(counts[distinct[i]] for i in rows))
    return [score_of[pair] for pair in pairs]


def score_samples(
    model: Classifier,
    tokenizer: PreTrainedTokenizerBase,
    records: Iterable[SampleRecord],
    model_settings: ModelSettings,
    batch_size: int,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> Scores:
    """p(correct) of each sampled record. Every process scores its share, and everybody returns all."""
    ranks.is_at("scoring")
    sampled = (record for record in records if record.decoding == "sampled")
    mine = list(itertools.islice(sampled, ranks.rank, None, ranks.count))
    pairs = [(record.prompt, record.completion) for record in mine]
    with progress.task("scoring", len(pairs), "completion") as task:
        scores = score_completions(model, tokenizer, pairs, model_settings, batch_size, task)
    own = {(r.item_id, r.sample_index): score for r, score in zip(mine, scores, strict=True)}
    return {key: score for theirs in ranks.gather(own) for key, score in theirs.items()}


def load_and_score(
    folder: Path, records: Iterable[SampleRecord], recipe: Recipe, progress: Progress, ranks: Ranks = ALONE
) -> Scores:
    """`score_samples` with the reward model saved in a folder."""
    source = resolve_model(str(folder))
    tokenizer = load_tokenizer(source)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    model = load_classifier(source, tokenizer.pad_token_id).eval()
    return score_samples(model, tokenizer, records, recipe.model, recipe.sampling.batch_size, progress, ranks)
