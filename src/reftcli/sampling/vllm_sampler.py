"""Decoding with vLLM. Every touch of TRL's `VLLMGeneration` and of vLLM stands here.

Read and not run: neither vLLM nor a GPU was at hand when this was written. What it sends and what it makes of answers
is tested against stand-ins: `VLLMGeneration` itself (TRL 1.12) on top of a stand-in for vLLM. What those answer is what
these sources say: TRL's ``generation/vllm_generation.py`` and ``vllm_client.py``, and of vLLM (TRL takes 0.19 to 0.27)
``sampling_params.py``, ``v1/core/sched/utils.py``, ``v1/engine/detokenizer.py`` and ``v1/sample``.

* `VLLMGeneration` makes the engine (``colocate``: in this process; ``server``: a client of ``vllm serve``) and carries
  new weights to it. Its ``generate`` is not used: one call has one seed, so ``colocate``, which repeats a prompt for
  its samples, would draw the same completion n times, and one ``max_tokens``, while ours differ with the prompt. The
  engine that it made takes both per request, so nothing is grouped or cut afterwards.
* Seeds: each request has its own, a function of (seed, stream, item_id, sample index). What it draws from depends on
  the last bits of the logits, which in vLLM depend on what else is in the batch: a run that is resumed, or repeated,
  draws nearly the same, not bit for bit the same. Seeded requests also take vLLM's plain sampling kernels.
* Log-probabilities: vLLM returns "processed" ones, after temperature, top-k and top-p (at temperature 1 for greedy
  requests). Without top-k and top-p that is what `Completion` promises. With them it is not, so none are asked for, and
  completions come without. TRL sets this mode for ``colocate``; a server must be started with it (below), else it
  returns "raw" ones, at temperature 1, and nothing in its answers tells.
* End: only our EOS ends a completion (``ignore_eos`` with ``stop_token_ids``), as in `TorchSampler`; vLLM by itself
  adds every EOS of the model's generation_config. The token that stopped is in ``token_ids``, only not in the text.
* Weights: the engine computes in bf16 or fp16 (its ``dtype`` is ``auto``), so its log-probabilities differ from those
  of a fp32 or autocast forward pass by more than rounding of fp32.
* TRL passes the engine no revision. The weights are carried over before the first completion all the same, so
  only the configuration of another revision could matter.

A server: ``VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config '{"backend": "nccl"}' --logprobs-mode
processed_logprobs``, on GPUs of its own.
"""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reftcli.errors import ReftError, RuntimeFailure, UsageError
from reftcli.models.lora import has_lora, merged_state
from reftcli.problems.prompts import Prompt
from reftcli.recipe.schema import SamplingSettings
from reftcli.sampling.interface import Completion, Decode
from reftcli.sampling.seeds import seed_sequence

_SET_BY_TRL = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def _server_url(settings: SamplingSettings) -> str:
    return settings.vllm_server_url or "http://localhost:8000"


def check_vllm() -> None:
    """Says what to install, before a model is loaded.

    Raises:
        UsageError: vLLM is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise UsageError(
            "sampler vllm: vLLM is not installed; `pip install vllm` (Linux with a CUDA GPU), or use --sampler torch"
        )


@dataclass(frozen=True, slots=True)
class _Request:
    """One completion as the engine is asked for it; ``seed`` is None for greedy decoding."""

    prompt: Prompt
    sample_index: int
    max_tokens: int
    seed: int | None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the engine returned; ``logprobs`` is empty where any is missing."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


class VllmSampler:
    """Completes prompts with vLLM. Completions carry no values and no entropies, and log-probabilities as said above.

    The engine is made at the first completion: an RL trainer has its optimizer in memory by then, and has told
    accelerate about processes and devices.

    Args:
        model: whose weights the engine gets, at first and after each `weights_changed`.
        eos_token_id: ends a completion.
        context: most tokens of prompt and completion together.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: SamplingSettings,
        *,
        eos_token_id: int,
        context: int,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._settings = settings
        self._eos_token_id = eos_token_id
        self._context = context
        self._generation: Any = None
        self._stale = True

    def sample(
        self, prompts: Sequence[Prompt], n: int, decode: Decode, on_done: Callable[[int], None] | None = None
    ) -> list[Completion]:
        """See `reftcli.sampling.interface.Sampler.sample`.

        Raises:
            RuntimeFailure: the engine cannot be made or reached, or does not answer.
        """
        on_done = on_done or (lambda _: None)
        requests = [self._request(prompt, index, decode) for prompt in prompts for index in decode.sample_indices(n)]
        # A prompt that fills its limit has an empty completion; vLLM refuses a request without room.
        possible = [place for place, request in enumerate(requests) if request.max_tokens > 0]
        answers = [_Answer((), ())] * len(requests)
        if possible:
            self._make_ready()
            found = self._ask([requests[place] for place in possible], self._parameters(decode), on_done)
            for place, answer in zip(possible, found, strict=True):
                answers[place] = answer
        if len(possible) < len(requests):
            on_done(len(requests) - len(possible))
        return [self._completion(request, answer) for request, answer in zip(requests, answers, strict=True)]

    def weights_changed(self) -> None:
        """See `reftcli.sampling.interface.Sampler.weights_changed`; the next completion waits for the weights."""
        self._stale = True

    def close(self) -> None:
        """Gives the engine's memory back, or leaves the server's group."""
        generation, self._generation, self._stale = self._generation, None, True
        if generation is None:
            return
        if self._settings.vllm_mode == "server":
            generation.vllm_client.close_communicator()
            return
        del generation.llm
        gc.collect()
        torch.cuda.empty_cache()

    def _request(self, prompt: Prompt, index: int, decode: Decode) -> _Request:
        total = min(self._context, decode.max_total_tokens or self._context)
        limit = min(decode.max_new_tokens, total - len(prompt.token_ids))
        return _Request(prompt, index, limit, _seed(decode, prompt.problem.item_id, index))

    def _parameters(self, decode: Decode) -> dict[str, Any]:
        """What all requests of a call share, in vLLM's words."""
        end = {"ignore_eos": True, "stop_token_ids": [self._eos_token_id]}
        if decode.decoding == "greedy":
            return {"temperature": 0.0, "logprobs": 0, **end}
        filters = {"top_k": decode.top_k, "top_p": decode.top_p}
        unfiltered = decode.top_k == 0 and decode.top_p >= 1
        # 0: of the chosen token only; None: none, because they would be those after top-k and top-p
        return {"temperature": decode.temperature, **filters, "logprobs": 0 if unfiltered else None, **end}

    def _make_ready(self) -> None:
        """The engine, with the model's weights as they are now."""
        if self._generation is None:
            with self._one_line("start"):
                self._generation = new_generation(self._model, self._tokenizer, self._settings)
        if self._stale:
            with self._one_line("take the weights"):
                self._generation.sync_weights()
            self._stale = False

    def _ask(
        self, requests: Sequence[_Request], parameters: dict[str, Any], on_done: Callable[[int], None]
    ) -> list[_Answer]:
        with self._one_line("complete prompts"):
            if self._settings.vllm_mode == "server":
                client, at_once = self._generation.vllm_client, self._settings.batch_size
                return _from_server(client, requests, parameters, at_once, on_done)
            return _from_this_process(self._generation.llm, requests, parameters, on_done)

    def _completion(self, request: _Request, answer: _Answer) -> Completion:
        ended = answer.token_ids[-1:] == (self._eos_token_id,)
        return Completion(request.prompt, request.sample_index, answer.token_ids, answer.logprobs, ended)

    @contextmanager
    def _one_line(self, doing: str) -> Iterator[None]:
        try:
            yield
        except ReftError:
            raise
        except Exception as error:  # TRL's client raises bare Exceptions, the engine whatever happens on the GPU
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
            raise RuntimeFailure(
                f"vLLM cannot {doing}: {type(error).__name__}: {reason} ({self._hint()}, or use --sampler torch)"
            ) from error

    def _hint(self) -> str:
        if self._settings.vllm_mode == "server":
            return f"see the log of the server at {_server_url(self._settings)}"
        return "see sampling.vllm_gpu_memory and sampling.vllm_max_length for memory"


def _seed(decode: Decode, item_id: str, sample_index: int) -> int | None:
    """63 bits: the server reads a signed number, and -1 means no seed."""
    if decode.decoding == "greedy":
        return None
    return int(seed_sequence(decode, item_id, sample_index).generate_state(1, np.uint64)[0] >> np.uint64(1))


def new_generation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: SamplingSettings) -> Any:
    """The engine, or the client of the server, with the way that weights get there."""
    from accelerate import Accelerator
    from trl.generation.vllm_generation import VLLMGeneration

    accelerator = Accelerator()
    if settings.vllm_mode == "server" and accelerator.num_processes > 1:
        raise UsageError(
            "sampling.vllm_mode server takes requests from one process only; use colocate, or start one process"
        )
    with _environment_kept():
        return VLLMGeneration(
            _PlainWeights(model),
            accelerator,
            tokenizer,
            mode=settings.vllm_mode,
            server_base_url=_server_url(settings),
            gpu_memory_utilization=settings.vllm_gpu_memory,
            max_model_length=settings.vllm_max_length,
            max_num_seqs=settings.batch_size,
        )


class _PlainWeights(nn.Module):
    """What `VLLMGeneration` asks a model for: where its files are, and its weights under the names in those files.

    LoRA layers stand beside the weights that they change (`reftcli.models.lora`); vLLM is given the sums.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.name_or_path: str = model.name_or_path

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[tuple[str, Any]]:
        if not has_lora(self.model):
            yield from self.model.named_parameters()
            return
        merged = merged_state(self.model)
        for name, _parameter in self.model.named_parameters():
            if ".lora_" not in name:
                plain = name.replace(".base_layer.", ".")
                yield plain, merged[plain]


@contextmanager
def _environment_kept() -> Iterator[None]:
    """TRL sets what torchrun sets, for the engine; a later trainer would take itself for one of several processes."""
    before = {name: os.environ.get(name) for name in _SET_BY_TRL}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _from_this_process(
    llm: Any, requests: Sequence[_Request], parameters: dict[str, Any], on_done: Callable[[int], None]
) -> list[_Answer]:
    """All requests in one call: vLLM batches them itself and returns them in this order."""
    import trl.generation.vllm_generation as trl_vllm

    outputs = llm.generate(
        [{"prompt_token_ids": list(request.prompt.token_ids)} for request in requests],
        sampling_params=[
            trl_vllm.SamplingParams(
                **parameters, max_tokens=request.max_tokens, seed=request.seed, n=1, detokenize=False
            )
            for request in requests
        ],
        use_tqdm=False,
    )
    answers = []
    for output in outputs:
        logprobs, of_tokens = trl_vllm.extract_logprobs([output])
        answers.append(_answer(output.outputs[0].token_ids, logprobs, of_tokens))
    on_done(len(answers))
    return answers


def _from_server(
    client: Any,
    requests: Sequence[_Request],
    parameters: dict[str, Any],
    at_once: int,
    on_done: Callable[[int], None],
) -> list[_Answer]:
    """A call for each request, some at a time: the server batches what is there."""
    shared = {name: parameters[name] for name in ("temperature", "top_k", "top_p", "logprobs") if name in parameters}
    others = {name: value for name, value in parameters.items() if name not in shared}

    def ask(request: _Request) -> _Answer:
        seed = {} if request.seed is None else {"seed": request.seed}
        found = client.generate(
            prompts=[list(request.prompt.token_ids)],
            n=1,
            max_tokens=request.max_tokens,
            generation_kwargs={**others, **seed},
            **shared,
        )
        return _answer(found["completion_ids"][0], found["logprobs"], found["logprob_token_ids"])

    with ThreadPoolExecutor(max_workers=min(at_once, len(requests))) as executor:
        futures = [executor.submit(ask, request) for request in requests]
        try:
            for future in as_completed(futures):
                future.result()
                on_done(1)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)  # one failure is enough to say
            raise
    return [future.result() for future in futures]


def _answer(
    token_ids: Sequence[int],
    logprobs: Sequence[Sequence[Sequence[float | None]]] | None,
    of_tokens: Sequence[Sequence[Sequence[int]]] | None,
) -> _Answer:
    """One answer from TRL's shape: sequences, positions, then the tokens that a log-probability was returned for."""
    chosen = tuple(token_ids)
    if logprobs is None or of_tokens is None or len(logprobs[0]) != len(chosen):
        return _Answer(chosen, ())
    found = [
        dict(zip(tokens, values, strict=True)).get(token)
        for token, tokens, values in zip(chosen, of_tokens[0], logprobs[0], strict=True)
    ]
    numbers = tuple(number for number in found if number is not None)
    return _Answer(chosen, numbers if len(numbers) == len(chosen) else ())
