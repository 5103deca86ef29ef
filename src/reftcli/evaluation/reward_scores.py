"""The reward model at work: p(correct) of completions; and what it must not be tested on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from reftcli.errors import DataError
from reftcli.evaluation.samples import SampleRecord
from reftcli.models.load import load_classifier, load_tokenizer
from reftcli.models.precision import autocast_for
from reftcli.models.source import resolve_model
from reftcli.models.verifier import Classifier, class_logits, encode, padded
from reftcli.recipe.schema import ModelSettings, Recipe
from reftcli.runs.files import write_json
from reftcli.runs.progress import Progress, Task

CORRECT_CLASS = 1
"""Index of "correct" among the classifier's two outputs."""

TRAINED_ON = "trained_on.json"
"""Beside the weights of a reward model: fingerprints of the prompts whose samples it was trained on."""


@torch.no_grad()
def score_completions(
    model: Classifier,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    model_settings: ModelSettings,
    batch_size: int,
    task: Task | None = None,
) -> list[float]:
    """p(correct) in [0, 1] of each (prompt, completion), in order; the same text is read once."""
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
    records: Sequence[SampleRecord],
    model_settings: ModelSettings,
    batch_size: int,
    progress: Progress,
) -> dict[tuple[str, int], float]:
    """p(correct) of each sampled record, by (item_id, sample_index)."""
    sampled = [record for record in records if record.decoding == "sampled"]
    pairs = [(record.prompt, record.completion) for record in sampled]
    with progress.task("scoring", len(pairs), "completion") as task:
        scores = score_completions(model, tokenizer, pairs, model_settings, batch_size, task)
    return {(r.item_id, r.sample_index): score for r, score in zip(sampled, scores, strict=True)}


def load_and_score(
    folder: Path, records: Sequence[SampleRecord], recipe: Recipe, progress: Progress
) -> dict[tuple[str, int], float]:
    """`score_samples` with the reward model saved in a folder.

    Raises:
        DataError: it was trained on samples of one of these problems.
    """
    refuse_trained_on(folder, [record.prompt for record in records])
    source = resolve_model(str(folder))
    tokenizer = load_tokenizer(source)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    model = load_classifier(source, tokenizer.pad_token_id).eval()
    return score_samples(model, tokenizer, records, recipe.model, recipe.sampling.batch_size, progress)


def fingerprint(text: str) -> str:
    """Equal for texts that differ in white space only."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:16]


def write_trained_on(folder: Path, prompts: Iterable[str]) -> None:
    """Keeps what `refuse_trained_on` reads beside a reward model's weights."""
    write_json(folder / TRAINED_ON, {"prompts": sorted({fingerprint(prompt) for prompt in prompts})})


def refuse_trained_on(folder: Path, prompts: Sequence[str]) -> None:
    """Nothing happens where the reward model in a folder saw none of these prompts, or does not say what it saw.

    Raises:
        DataError: it did.
    """
    file = folder / TRAINED_ON
    if not file.is_file():
        return
    known = set(json.loads(file.read_text(encoding="utf-8"))["prompts"])
    shared = {prompt for prompt in prompts if fingerprint(prompt) in known}
    if shared:
        first = " ".join(min(shared).split())
        raise DataError(
            f"the reward model in {folder} was trained on samples of {len(shared)} of these problems (first: "
            f"{first[:80]!r}); it must not be tested on problems it was trained on: measure it on other problems"
        )
