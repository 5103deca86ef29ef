"""The embedded model: a Llama of about a million parameters with fixed random weights, and its tokenizer.

It is for demos and tests. Nothing is downloaded and no weights are shipped: they are drawn from a fixed seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from reftcli.problems.toy import LEVELS, toy_problem_sets

TOKENIZER_FILE = Path(__file__).parent / "tiny_tokenizer.json"
_PAD, _BOS, _EOS = "<pad>", "<bos>", "<eos>"
_VOCABULARY = 720
_WEIGHTS_SEED = 0


@cache
def _tokenizer_json() -> str:
    return TOKENIZER_FILE.read_text(encoding="utf-8")


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """Byte-level BPE, shipped as a file: numbers of the toy problems are single tokens, any text can be encoded."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_tokenizer_json()),
        pad_token=_PAD,
        bos_token=_BOS,
        eos_token=_EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def tiny_model(vocabulary: int, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """The embedded model; the same weights every time, whatever the state of the global generator."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_WEIGHTS_SEED)
        model = LlamaForCausalLM(config)
    return model.to(dtype)


def build_tokenizer() -> Tokenizer:
    """Trains the tokenizer on toy problems; how ``tiny_tokenizer.json`` was made, and a test compares the two."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\d+|\n+ *| ?[^\s\d]+|\s+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[_PAD, _BOS, _EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_texts(), trainer)
    return tokenizer


def _training_texts() -> Iterator[str]:
    for answer in ("number", "choice"):
        for level in LEVELS:
            train, _, _ = toy_problem_sets(
                level=level, form="ncot", answer=answer, train_size=500, validation_size=1, test_size=1, seed=0
            )
            for problem in train:
                yield f"Question:\n{problem.question}\nAnswer reasoning:\n{problem.chains['ncot']}"
                yield f"\nTherefore, the answer is: {problem.gold_answer}"
                yield problem.chains["pcot"]
