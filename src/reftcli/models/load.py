"""Loads models and tokenizers, and says exactly what was loaded."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from reftcli.errors import ModelUnavailable, UsageError
from reftcli.models.lora import has_lora, merged_state
from reftcli.models.onednn import use_onednn
from reftcli.models.smollm2_q4 import expanded_folder
from reftcli.models.source import ModelSource
from reftcli.models.tiny import tiny_model, tiny_tokenizer
from reftcli.models.verifier import LIKELIHOOD_KEY, Classifier, LikelihoodClassifier
from reftcli.problems.datasets import no_waiting_for_an_absent_hub
from reftcli.recipe.schema import Scorer
from reftcli.runs.files import sha256_of


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A causal model with its tokenizer. ``pad_token_id`` and ``eos_token_id`` are always set, and may be equal."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    pad_token_id: int
    eos_token_id: int


LARGE_ENOUGH_FOR_ONEDNN = 128
"""Hidden size from which oneDNN is used. Its products take half the time there; smaller ones were not measured."""


def default_device() -> torch.device:
    """The GPU of this process where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def load_model(source: ModelSource, *, in_main_memory: bool = False) -> LoadedModel:
    """The model in fp32 on this process's device, with its tokenizer.

    Args:
        in_main_memory: leave it there: DeepSpeed will divide it, and no GPU need ever hold it whole.

    Raises:
        ModelUnavailable: the files cannot be reached or read.
        UsageError: neither tokenizer, configuration nor alias table names pad and EOS.
    """
    tokenizer = load_tokenizer(source)
    if source.kind == "embedded":
        model = tiny_model(len(tokenizer))
    else:
        with _load_errors(source):
            model = AutoModelForCausalLM.from_pretrained(
                _folder_or_id(source), revision=source.revision, dtype=torch.float32
            )
    eos, pad = special_token_ids(source, tokenizer, model.config)
    model.config.pad_token_id, model.config.eos_token_id = pad, eos
    if model.generation_config is not None:
        model.generation_config.pad_token_id, model.generation_config.eos_token_id = pad, eos
    device = default_device()
    if device.type == "cpu" and getattr(model.config, "hidden_size", 0) >= LARGE_ENOUGH_FOR_ONEDNN:
        use_onednn(model)
    return LoadedModel(model if in_main_memory else model.to(device), tokenizer, pad, eos)


def load_classifier(source: ModelSource, pad_token_id: int, scorer: Scorer = "head") -> Classifier:
    """A reward model: a saved one, or a new one on the weights of a causal model.

    Args:
        scorer: what a new one is. head: a linear layer, new, on the last token. likelihood: the model's own predictions
            of the completion's tokens.

    Raises:
        ModelUnavailable: the files cannot be read, or the architecture has no classifier.
    """
    if source.kind == "embedded":
        raise UsageError("a reward model starts from a trained model, not from the embedded one")
    with _load_errors(source):
        folder, revision = _folder_or_id(source), source.revision
        saved = getattr(AutoConfig.from_pretrained(folder, revision=revision), LIKELIHOOD_KEY, None)
        if saved or scorer == "likelihood":
            causal = AutoModelForCausalLM.from_pretrained(folder, revision=revision, dtype=torch.float32)
            causal.config.pad_token_id = pad_token_id
            return LikelihoodClassifier(causal.to(default_device()), **(saved or {}))
        model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            folder, revision=revision, dtype=torch.float32, num_labels=2
        )
    model.config.pad_token_id = pad_token_id
    return model.to(default_device())


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """The tokenizer; pads on the left, as decoding needs.

    Raises:
        ModelUnavailable: the files cannot be reached or read.
    """
    if source.kind == "embedded":
        return tiny_tokenizer()
    with _load_errors(source):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            _folder_or_id(source), revision=source.revision, padding_side="left"
        )
    return tokenizer


def special_token_ids(source: ModelSource, tokenizer: PreTrainedTokenizerBase, config: Any) -> tuple[int, int]:
    """(EOS, pad): from the tokenizer, else the configuration, else the alias table; a missing pad is the EOS.

    Raises:
        UsageError: no EOS anywhere.
    """
    fallback = source.special_tokens
    eos = _first_id(
        tokenizer.eos_token_id,
        getattr(config, "eos_token_id", None),
        tokenizer.convert_tokens_to_ids(fallback.eos) if fallback else None,
    )
    if eos is None:
        raise UsageError(f"model {source.name}: neither its tokenizer nor its configuration names an EOS token")
    pad = _first_id(
        tokenizer.pad_token_id,
        getattr(config, "pad_token_id", None),
        tokenizer.convert_tokens_to_ids(fallback.pad) if fallback else None,
        eos,
    )
    assert pad is not None
    if tokenizer.eos_token_id is None:
        tokenizer.eos_token_id = eos
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = pad
    return eos, pad


def _first_id(*candidates: Any) -> int | None:
    for candidate in candidates:
        first = candidate[0] if isinstance(candidate, list) and candidate else candidate
        if isinstance(first, int) and first >= 0:
            return first
    return None


def _folder_or_id(source: ModelSource) -> str:
    return str(expanded_folder()) if source.kind == "package" else source.target


@contextmanager
def _load_errors(source: ModelSource) -> Iterator[None]:
    """What transformers and the hub raise, as one line with what to do."""
    try:
        with no_waiting_for_an_absent_hub() if source.kind == "hub" else nullcontext():
            yield
    except ModelUnavailable:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if source.kind == "hub":
            raise ModelUnavailable(
                f"cannot get {source.target} from the hub ({_short(reason)}); check the network, HF_TOKEN and "
                "HF_HUB_OFFLINE, or give a folder with --model PATH (--model smollm2-q4 and tiny need no hub)"
            ) from error
        raise ModelUnavailable(f"cannot load the model in {source.target}: {_short(reason)}") from error


def _short(reason: str, limit: int = 160) -> str:
    return reason if len(reason) <= limit else reason[: limit - 3] + "..."


def weights_sha256(source: ModelSource, model: PreTrainedModel) -> str:
    """Hash of the weights: of the files where there are any, else of the tensors."""
    if (of_files := files_sha256(source)) is not None:
        return of_files
    import hashlib

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def files_sha256(source: ModelSource) -> str | None:
    """Hash of a local model's weights without loading it; None where it has no such files."""
    if source.kind not in ("folder", "package"):
        return None
    files = sorted(Path(_folder_or_id(source)).glob("*.safetensors"))
    return sha256_of(*files) if files else None


def frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    """The reference model: a copy that never trains."""
    reference = copy.deepcopy(model)
    reference.requires_grad_(False)
    return reference.eval()


def save_model(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Writes a folder that ``from_pretrained`` loads; LoRA layers are added into the weights.

    Args:
        weights: of the model, where it does not hold them itself (DeepSpeed keeps the fp32 ones apart).
    """
    state = merged_state(model, weights) if has_lora(model) else weights
    model.save_pretrained(folder, state_dict=None if state is None else dict(state))
    tokenizer.save_pretrained(folder)
