"""`VllmSampler` on TRL's real `VLLMGeneration` and `VLLMClient`, which stand on a vLLM that is not there.

The stand-in decodes with a model of its own, whose weights are other ones until they are carried over; its rules (what
ends a request, which log-probabilities come back) are those of vLLM's sources. Nothing here says that vLLM works.
"""

from __future__ import annotations

import copy
import json
import math
import os
import random
import threading
from collections.abc import Callable, Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trl.generation.vllm_client as trl_client
import trl.generation.vllm_generation as trl_vllm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from reftcli.cli.app import run as reft
from reftcli.errors import RuntimeFailure, UsageError
from reftcli.evaluation.experiment import open_experiment
from reftcli.models.lora import add_lora, merged_state
from reftcli.models.source import resolve_model
from reftcli.problems.load import ProblemSets
from reftcli.problems.prompts import Prompt
from reftcli.problems.record import Problem
from reftcli.recipe.schema import Recipe, SamplingSettings
from reftcli.runs.progress import SilentProgress
from reftcli.sampling import vllm_sampler
from reftcli.sampling.interface import Completion, Decode
from reftcli.sampling.torch_sampler import TorchSampler
from reftcli.sampling.vllm_sampler import VllmSampler

VOCABULARY, EOS, OTHER_EOS, CONTEXT = 16, 2, 3, 96
GREEDY = Decode("greedy", 12)
SAMPLED = Decode("sampled", 12, seed=7)
MODES = ("colocate", "server")


@cache
def weights(seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


def prompts(n: int = 6) -> list[Prompt]:
    """Prompts of 1 to 20 tokens."""
    rng = random.Random(0)
    ids = [tuple(rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 20))) for _ in range(n)]
    return [Prompt(Problem(f"item-{i}", "?", "1"), "?", tokens) for i, tokens in enumerate(ids)]


class SamplingParams:
    """Those of vLLM that matter here; another name is an error, as in vLLM."""

    def __init__(
        self,
        n: int = 1,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        max_tokens: int = 16,
        logprobs: int | None = None,
        ignore_eos: bool = False,
        stop_token_ids: list[int] | None = None,
        detokenize: bool = True,
    ) -> None:
        assert n == 1
        assert max_tokens >= 1
        assert seed is None or -(2**63) <= seed < 2**63
        self.temperature, self.top_k, self.top_p, self.seed = temperature, top_k, top_p, seed
        self.max_tokens, self.logprobs = max_tokens, logprobs
        self.ends = {*(stop_token_ids or ()), *(() if ignore_eos else (EOS, OTHER_EOS))}


class Engine:
    """What both forms of vLLM share: weights of its own, and what it was asked."""

    def __init__(self) -> None:
        self.model = copy.deepcopy(weights(5))
        self.asked: list[tuple[tuple[int, ...], SamplingParams]] = []
        self.syncs = 0
        self.made_with: dict[str, Any] = {}
        self.fails: str | None = None
        self.refuses: str | None = None
        self.logprob_of: Callable[[float], float | None] = lambda number: number
        self.lock = threading.Lock()

    def load_weights(self, named: list[tuple[str, torch.Tensor]]) -> None:
        if self.refuses:
            raise KeyError(self.refuses)
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in named:
                parameters[name].copy_(tensor)

    @torch.no_grad()
    def complete(self, ids: list[int], parameters: SamplingParams) -> tuple[list[int], list[float | None]]:
        """Tokens, the one that ended it included, and log-probabilities after temperature, top-k and top-p."""
        if self.fails:
            raise ValueError(self.fails)
        with self.lock:
            self.asked.append((tuple(ids), parameters))
        generator = torch.Generator().manual_seed(parameters.seed or 0)
        tokens: list[int] = []
        logprobs: list[float | None] = []
        while len(tokens) < parameters.max_tokens and (not tokens or tokens[-1] not in parameters.ends):
            logits = self.model(input_ids=torch.tensor([[*ids, *tokens]])).logits[0, -1].float()
            greedy = parameters.temperature == 0
            scores = torch.log_softmax(logits if greedy else logits / parameters.temperature, dim=-1)
            chosen = scores.argmax() if greedy else torch.multinomial(scores.exp(), 1, generator=generator)[0]
            tokens.append(int(chosen))
            logprobs.append(self.logprob_of(float(scores[chosen])))
        return tokens, logprobs


def offline_llm(engine: Engine) -> type:
    """`vllm.LLM`, as far as `VLLMGeneration` and we know it."""

    class LLM:
        def __init__(self, **arguments: Any) -> None:
            assert os.environ["RANK"] == "0"
            if engine.fails:
                raise RuntimeError(engine.fails)
            engine.made_with = arguments
            runner = SimpleNamespace(model=SimpleNamespace(load_weights=engine.load_weights))
            worker = SimpleNamespace(model_runner=runner)
            self.llm_engine = SimpleNamespace(model_executor=SimpleNamespace(driver_worker=worker))

        def reset_prefix_cache(self) -> None:
            engine.syncs += 1

        def generate(self, prompts: list[Any], sampling_params: list[SamplingParams], use_tqdm: bool) -> list[Any]:
            assert not use_tqdm
            pairs = zip(prompts, sampling_params, strict=True)
            return [self._output(prompt["prompt_token_ids"], parameters) for prompt, parameters in pairs]

        def _output(self, ids: list[int], parameters: SamplingParams) -> Any:
            tokens, found = engine.complete(ids, parameters)
            rows = [
                {token: SimpleNamespace(rank=1, logprob=math.nan if number is None else number)}
                for token, number in zip(tokens, found, strict=True)
            ]
            output = SimpleNamespace(token_ids=tokens, logprobs=None if parameters.logprobs is None else rows)
            return SimpleNamespace(prompt_token_ids=ids, outputs=[output])

    return LLM


class Handler(BaseHTTPRequestHandler):
    """`vllm serve`, as far as `VLLMClient` knows it."""

    engine: Engine

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._send({"data": [{"id": "some/model"}], "world_size": 1})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        if self.path == "/reset_prefix_cache":
            self.engine.syncs += 1
            return self._send({})
        assert self.path == "/v1/completions"
        for name, neutral in {"repetition_penalty": 1.0, "min_p": 0.0, "return_token_ids": True}.items():
            assert asked.pop(name) == neutral
        assert asked.pop("model") == "some/model"
        assert asked.pop("return_tokens_as_token_ids")
        (ids,) = asked.pop("prompt")
        try:
            tokens, found = self.engine.complete(ids, SamplingParams(**asked))
        except ValueError as error:
            return self._send({"error": str(error)}, 400)
        numbers = [math.nan if number is None else number for number in found]
        rows = {
            "tokens": [f"token_id:{t}" for t in tokens],
            "token_logprobs": numbers,
            "top_logprobs": [None] * len(tokens),
        }
        choice = {"prompt_token_ids": ids, "token_ids": tokens, "logprobs": None if asked["logprobs"] is None else rows}
        return self._send({"choices": [choice]})

    def _send(self, answer: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A vLLM under TRL's classes, and a server of it at ``engine.url``."""
    made = Engine()
    monkeypatch.setattr(trl_vllm, "is_vllm_available", lambda *_, **__: True)
    monkeypatch.setattr(trl_client, "is_vllm_available", lambda *_, **__: True)
    monkeypatch.setattr(trl_vllm, "LLM", offline_llm(made), raising=False)
    monkeypatch.setattr(trl_vllm, "SamplingParams", SamplingParams, raising=False)
    # NCCL's part: from one GPU to another.
    monkeypatch.setattr(trl_client.VLLMClient, "init_communicator", lambda *_, **__: None)
    monkeypatch.setattr(
        trl_client.VLLMClient, "update_named_params", lambda _, __, named: made.load_weights(list(named))
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OurHandler", (Handler,), {"engine": made}))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture(params=MODES)
def make(request: pytest.FixtureRequest, engine: Engine) -> Callable[..., VllmSampler]:
    """Makes samplers, in both modes."""

    def made(model: PreTrainedModel | None = None, context: int = CONTEXT, **settings: Any) -> VllmSampler:
        chosen = SamplingSettings(
            backend="vllm", vllm_mode=request.param, vllm_server_url=engine.url, batch_size=4, **settings
        )
        return VllmSampler(model or weights(6), None, chosen, eos_token_id=EOS, context=context)

    return made


Make = Callable[..., VllmSampler]


def torch_sampler(model: PreTrainedModel | None = None, context: int = CONTEXT) -> TorchSampler:
    return TorchSampler(model or weights(6), eos_token_id=EOS, pad_token_id=0, batch_size=4, context=context)


def drawn(completions: list[Completion]) -> dict[tuple[str, int], tuple[tuple[int, ...], bool]]:
    return {(c.prompt.problem.item_id, c.sample_index): (c.token_ids, c.ended) for c in completions}


def assert_same(found: list[Completion], expected: list[Completion]) -> None:
    """As completions, but for what vLLM does not give, and the last bits."""
    assert [(c.prompt, c.sample_index, c.token_ids, c.ended) for c in found] == [
        (c.prompt, c.sample_index, c.token_ids, c.ended) for c in expected
    ]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
        assert (ours.values, ours.entropies) == ((), ())


@pytest.mark.parametrize(
    "decode",
    [GREEDY, Decode("greedy", 1), Decode("greedy", 12, max_total_tokens=22), Decode("greedy", 200)],
    ids=["all", "one token", "together", "context"],
)
def test_greedy_completions_are_those_of_the_torch_sampler(make: Make, decode: Decode) -> None:
    found = make(context=40).sample(prompts(), 2, decode)
    assert_same(found, torch_sampler(context=40).sample(prompts(), 2, decode))
    if decode is GREEDY:
        assert {c.ended for c in found} == {True, False}


def test_only_our_eos_ends_a_completion(make: Make) -> None:
    found = make().sample(prompts(), 4, SAMPLED)
    assert any(OTHER_EOS in c.token_ids for c in found), "vLLM by itself would end there"
    for completion in found:
        assert EOS not in completion.token_ids[:-1]
        assert completion.ended == (completion.token_ids[-1] == EOS)
        assert completion.ended or len(completion.token_ids) == 12


def test_completions_come_in_the_order_of_the_prompts(make: Make) -> None:
    found = make().sample(prompts(), 3, SAMPLED)
    assert [(c.prompt.problem.item_id, c.sample_index) for c in found] == [
        (f"item-{i}", j) for i in range(6) for j in range(3)
    ]


def test_a_completion_depends_on_seed_stream_item_and_index_only(make: Make) -> None:
    expected = drawn(make().sample(prompts(), 3, SAMPLED))
    assert len(set(expected.values())) > 12, "samples of a prompt must differ"
    assert drawn(make().sample(prompts()[::-1], 3, SAMPLED)) == expected
    alone = drawn(make().sample(prompts()[2:3], 2, SAMPLED))
    assert alone == {key: expected[key] for key in [("item-2", 0), ("item-2", 1)]}
    for other in (Decode("sampled", 12, seed=8), Decode("sampled", 12, seed=7, stream=1)):
        assert drawn(make().sample(prompts(), 3, other)) != expected


def test_every_request_has_its_own_seed_and_greedy_ones_none(make: Make, engine: Engine) -> None:
    make().sample(prompts(), 3, SAMPLED)
    seeds = [parameters.seed for _, parameters in engine.asked]
    assert len({*seeds}) == 18
    assert all(seed is not None and 0 <= seed < 2**63 for seed in seeds)
    engine.asked.clear()
    make().sample(prompts(), 1, GREEDY)
    assert {(parameters.seed, parameters.temperature) for _, parameters in engine.asked} == {(None, 0.0)}


def test_a_lower_limit_cuts_the_same_completions(make: Make) -> None:
    long, short = (drawn(make().sample(prompts(), 2, Decode("sampled", n, seed=7))) for n in (12, 5))
    assert all(short[key][0] == long[key][0][:5] for key in long)


@pytest.mark.parametrize(("context", "total"), [(CONTEXT, 22), (22, None), (22, 50)])
def test_each_prompt_has_its_own_limit(make: Make, engine: Engine, context: int, total: int | None) -> None:
    decode = Decode("sampled", 12, max_total_tokens=total, seed=7)
    found = make(context=context).sample(prompts(), 2, decode)
    assert len({len(c.prompt.token_ids) for c in found}) > 3
    for ids, parameters in engine.asked:
        assert parameters.max_tokens == min(12, 22 - len(ids))
    for completion in found:
        assert completion.total_tokens <= 22
        assert completion.ended or len(completion.token_ids) == min(12, 22 - len(completion.prompt.token_ids))


def test_a_prompt_without_room_has_an_empty_completion_and_is_not_sent(make: Make, engine: Engine) -> None:
    longest = max(len(prompt.token_ids) for prompt in prompts())
    done: list[int] = []
    found = make(context=longest).sample(prompts(), 2, GREEDY, on_done=done.append)
    empty = [c for c in found if len(c.prompt.token_ids) == longest]
    assert len(empty) == 6
    assert [(c.token_ids, c.ended, c.logprob) for c in empty] == [((), False, 0)] * 6
    assert all(len(ids) < longest for ids, _ in engine.asked)
    assert [c.sample_index for c in found] == [0, 1] * 6
    assert sum(done) == 12


def test_no_prompts_no_engine(make: Make, engine: Engine) -> None:
    assert make().sample([], 4, SAMPLED) == []
    assert (engine.made_with, engine.syncs) == ({}, 0)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_those_at_the_sampling_temperature(make: Make, temperature: float) -> None:
    for completion in make().sample(prompts(), 2, Decode("sampled", 12, temperature=temperature, seed=7)):
        ids = [*completion.prompt.token_ids, *completion.token_ids]
        with torch.no_grad():
            logits = weights(6)(input_ids=torch.tensor([ids])).logits[0, len(completion.prompt.token_ids) - 1 : -1]
        expected = torch.log_softmax(logits / temperature, dim=-1)
        expected = expected.gather(1, torch.tensor(completion.token_ids)[:, None]).squeeze(1)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("top_k", "top_p"), [(4, 1.0), (0, 0.9), (4, 0.9)])
def test_filtered_samples_have_no_logprobs_rather_than_other_ones(
    make: Make, engine: Engine, top_k: int, top_p: float
) -> None:
    decode = Decode("sampled", 12, temperature=0.7, top_k=top_k, top_p=top_p)
    found = make().sample(prompts(), 2, decode)
    assert {(p.temperature, p.top_k, p.top_p, p.logprobs) for _, p in engine.asked} == {(0.7, top_k, top_p, None)}
    assert all(c.token_ids and c.logprobs == () and c.logprob is None for c in found)


def test_one_missing_logprob_leaves_a_completion_without(make: Make, engine: Engine) -> None:
    engine.logprob_of = lambda number: None if number < -3.5 else number
    found = make().sample(prompts(), 2, SAMPLED)
    without = [c for c in found if not c.logprobs]
    assert 0 < len(without) < len(found)
    assert all(c.logprob is None for c in without)
    assert all(len(c.logprobs) == len(c.token_ids) and min(c.logprobs) >= -3.5 for c in found if c.logprobs)


def test_progress_counts_every_completion_once(make: Make) -> None:
    done: list[int] = []
    make().sample(prompts(), 3, SAMPLED, on_done=done.append)
    assert sum(done) == 18


def test_weights_are_carried_over_at_first_and_when_they_changed(make: Make, engine: Engine) -> None:
    model = copy.deepcopy(weights(6))
    ours = make(model)
    assert_same(ours.sample(prompts(), 1, GREEDY), torch_sampler(model).sample(prompts(), 1, GREEDY))
    before = drawn(ours.sample(prompts(), 1, GREEDY))
    assert engine.syncs == 1
    model.load_state_dict(weights(8).state_dict())
    assert drawn(ours.sample(prompts(), 1, GREEDY)) == before, "nobody said so"
    ours.weights_changed()
    ours.weights_changed()
    assert_same(ours.sample(prompts(), 1, GREEDY), torch_sampler(weights(8)).sample(prompts(), 1, GREEDY))
    assert engine.syncs == 2


def test_lora_layers_are_carried_over_as_sums(make: Make, engine: Engine) -> None:
    model = copy.deepcopy(weights(6))
    add_lora(model, 4, 16, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.2)
    found = make(model).sample(prompts(), 1, GREEDY)
    assert_same(found, torch_sampler(model).sample(prompts(), 1, GREEDY))
    for name, tensor in merged_state(model).items():
        torch.testing.assert_close(engine.model.state_dict()[name], tensor)


def test_the_engine_is_made_with_our_settings_and_leaves_no_trace(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    model = copy.deepcopy(weights(6))
    model.config._name_or_path = model.name_or_path = "some/folder"
    settings = SamplingSettings(backend="vllm", batch_size=8, vllm_gpu_memory=0.25, vllm_max_length=64)
    ours = VllmSampler(model, None, settings, eos_token_id=EOS, context=64)
    ours.sample(prompts(), 1, GREEDY)
    assert dict(os.environ) == before
    assert engine.made_with["logprobs_mode"] == "processed_logprobs"
    named = ("model", "gpu_memory_utilization", "max_model_len", "max_num_seqs", "tensor_parallel_size")
    assert [engine.made_with[name] for name in named] == ["some/folder", 0.25, 64, 8, 1]


def test_after_close_a_new_engine_is_made(make: Make, engine: Engine) -> None:
    ours = make()
    ours.close()
    expected = drawn(ours.sample(prompts(), 1, GREEDY))
    ours.close()
    ours.close()
    assert drawn(ours.sample(prompts(), 1, GREEDY)) == expected
    assert engine.syncs == 2


def test_errors_of_the_engine_are_one_line(make: Make, engine: Engine) -> None:
    ours = make()
    ours.sample(prompts(), 1, GREEDY)
    engine.fails = "CUDA out of memory\n  somewhere\n"
    with pytest.raises(
        RuntimeFailure, match=r"^vLLM cannot complete prompts: .*CUDA out of memory.* --sampler torch\)$"
    ):
        ours.sample(prompts(), 4, SAMPLED)
    engine.fails = None
    assert len(ours.sample(prompts(), 1, GREEDY)) == 6


def test_an_engine_that_cannot_start_is_one_line(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.fails = "no CUDA GPUs are available"
    colocated = VllmSampler(weights(6), None, SamplingSettings(backend="vllm"), eos_token_id=EOS, context=CONTEXT)
    with pytest.raises(RuntimeFailure, match=r"^vLLM cannot start: RuntimeError: no CUDA GPUs.*vllm_gpu_memory"):
        colocated.sample(prompts(), 1, GREEDY)
    init = trl_vllm.VLLMClient.__init__
    monkeypatch.setattr(
        trl_vllm.VLLMClient, "__init__", lambda self, **given: init(self, **{**given, "connection_timeout": 0.0})
    )
    settings = SamplingSettings(backend="vllm", vllm_mode="server", vllm_server_url="http://127.0.0.1:9")
    absent = VllmSampler(weights(6), None, settings, eos_token_id=EOS, context=CONTEXT)
    with pytest.raises(
        RuntimeFailure, match=r"^vLLM cannot start: ConnectionError: .*127\.0\.0\.1:9.*log of the server"
    ):
        absent.sample(prompts(), 1, GREEDY)


def test_weights_that_do_not_arrive_are_one_line_and_tried_again(make: Make, engine: Engine) -> None:
    ours = make()
    engine.refuses = "model.norm.weight"
    with pytest.raises(RuntimeFailure, match=r"^vLLM cannot take the weights: KeyError: 'model.norm.weight'"):
        ours.sample(prompts(), 1, GREEDY)
    engine.refuses = None
    assert_same(ours.sample(prompts(), 1, GREEDY), torch_sampler().sample(prompts(), 1, GREEDY))


def test_a_server_takes_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.Accelerator", lambda: SimpleNamespace(num_processes=2))
    settings = SamplingSettings(backend="vllm", vllm_mode="server")
    ours = VllmSampler(weights(6), None, settings, eos_token_id=EOS, context=CONTEXT)
    with pytest.raises(UsageError, match="one process only"):
        ours.sample(prompts(), 1, GREEDY)


# Absent vLLM: one line, before anything is loaded or written.


@pytest.mark.parametrize(
    "command",
    [
        ("rl", "--sampler", "vllm"),
        ("rl", "--recipe", "tiny/toy-ncot", "--sampler", "vllm"),
        ("eval", "tiny", "--sampler", "vllm"),
        ("rerank", "--sampler", "vllm"),
        ("warmup", "--model", "tiny", "--set", "sampling.backend=vllm"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["", "dry"])
def test_without_vllm(
    command: tuple[str, ...], dry: tuple[str, ...], tmp_path: Any, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vllm_sampler.importlib.util, "find_spec", lambda name: None)
    assert reft([*command, *dry]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("reft: sampler vllm: vLLM is not installed; `pip install vllm`")
    assert "--sampler torch" in line
    assert list(tmp_path.iterdir()) == []


def test_the_flag_wins_over_the_recipe(tmp_path: Any, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ours.yaml").write_text("sampling: {backend: vllm}\ndata: {dataset: toy, cot: ncot}\n")
    assert reft(["eval", "tiny", "--recipe", "ours.yaml", "--sampler", "torch", "--dry-run"]) == 0
    assert reft(["eval", "tiny", "--recipe", "ours.yaml", "--sampler", "hf", "--dry-run"]) == 2
    assert "'hf' is not one of 'torch', 'vllm'" in capsys.readouterr().err


# An experiment takes the sampler that the recipe names.


def recipe(**sampling: Any) -> Recipe:
    return Recipe.model_validate(
        {"data": {"dataset": "toy", "cot": "ncot"}, "sampling": {"backend": "vllm", **sampling}}
    )


def sets() -> ProblemSets:
    return ProblemSets([], [], [prompt.problem for prompt in prompts()], "ncot", {})


def test_the_embedded_model_has_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_sampler.importlib.util, "find_spec", lambda name: "there")
    with (
        pytest.raises(UsageError, match="embedded model tiny has no files"),
        open_experiment(recipe(), sets(), resolve_model("tiny"), SilentProgress()),
    ):
        pass


def test_an_experiment_samples_and_validates_with_vllm(
    engine: Engine, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reftcli.models.load import load_model, save_model

    loaded = load_model(resolve_model("tiny"))
    save_model(tmp_path / "model", loaded.model, loaded.tokenizer)
    engine.model = copy.deepcopy(loaded.model)
    monkeypatch.setattr(vllm_sampler, "check_vllm", lambda: None)
    monkeypatch.setattr("reftcli.evaluation.experiment.check_vllm", lambda: None)
    source = resolve_model(str(tmp_path / "model"))
    with open_experiment(recipe(vllm_max_length=80), sets(), source, SilentProgress()) as experiment:
        assert isinstance(experiment.sampler, VllmSampler)
        assert experiment.answerer.context == 80
        problems = sets().test[:2]
        for validations in (1, 2):
            records = experiment.validate(problems, Decode("greedy", 4))
            assert [record.item_id for record in records] == ["item-0", "item-1"]
            assert engine.syncs == validations, "a stage validates because its weights changed"
        experiment.answerer.answer(problems, "test", 1, Decode("greedy", 4))
        assert engine.syncs == 2
    assert engine.made_with["model"] == str(tmp_path / "model")
