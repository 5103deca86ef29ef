"""`reft plan`: what it prints, its JSON, its errors, and that it loads no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reftcli.cli.commands_plan import ProfileName
from reftcli.launch.profiles import PROFILES

PAPER = ("codellama-7b/gsm8k-pcot", "--gpus", 8, "--gpu-memory", "80GiB")


def test_the_papers_setting_fits_under_zero2(reft: Callable[..., Any]) -> None:
    called = reft("plan", *PAPER)
    assert called.code == 0, called.err
    assert "zero2 on 8 GPUs is the cheapest profile that fits" in called.out
    assert max(map(len, called.out.split("Assumed:")[0].splitlines())) <= 140


def test_json_is_one_object(reft: Callable[..., Any]) -> None:
    found = reft("plan", *PAPER, "--json").json
    assert (found["fits"], found["profile"], found["micro_batch"]) == (True, "zero2", 4)
    assert list(found["profiles"]) == list(PROFILES)
    zero2 = found["profiles"]["zero2"]
    assert zero2["peak"] == max(phase["total"] for phase in zero2["phases"].values())
    assert zero2["needed"] <= found["gpu_memory"] == 80 * 2**30
    update = zero2["phases"]["update"]
    assert update["total"] == sum(size for part, size in update.items() if part != "total")
    assert found["cost"]["tokens"] > 0
    assert found["cost"]["seconds_per_step"]["total"] > 0
    assert len(found["assumed"]) >= 6


def test_a_card_that_is_too_small_is_an_answer_and_no_error(reft: Callable[..., Any]) -> None:
    called = reft("plan", "codellama-7b/gsm8k-pcot", "--gpu-memory", "24GB", "--json")
    assert called.code == 0
    assert (called.json["fits"], called.json["profile"]) == (False, None)


def test_flags_reach_the_plan(reft: Callable[..., Any]) -> None:
    flags = ("--profile", "zero3", "--micro-batch", 2, "--price-per-gpu-hour", 3, "--set", "rl.updates=10")
    found = reft("plan", *PAPER, *flags, "--prompt-tokens", 100, "--completion-tokens", 100, "--json").json
    assert list(found["profiles"]) == ["zero3"]
    assert found["profiles"]["zero3"]["micro_batch"] == 2
    assert found["cost"]["steps"] == 10
    assert found["cost"]["tokens"] == 10 * 32 * 200
    assert found["cost"]["price_usd"] == pytest.approx(3 * found["cost"]["gpu_hours"])


def test_a_model_without_a_recipe_and_a_folder(reft: Callable[..., Any], tmp_path: Path) -> None:
    assert reft("plan", "--model", "smollm2", "--gpu-memory", "24GB", "--json").json["profile"] == "single"
    config = {"model_type": "gpt2", "vocab_size": 100, "n_embd": 64, "n_layer": 2, "n_head": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert reft("plan", "--model", tmp_path, "--stage", "warmup", "--json").json["stage"] == "warmup"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("plan",), 2, "plan needs a model"),
        (("plan", "codellama-8b"), 2, "no recipe 'codellama-8b'"),
        (("plan", "--model", "codelama"), 2, "did you mean codellama?"),
        (("plan", "--model", "tiny", "--gpu-memory", "much"), 2, "--gpu-memory 'much'"),
        (("plan", "--model", "tiny", "--gpus", "3"), 2, "cannot be shared evenly by 3 processes"),
        (("plan", "--model", "tiny", "--gpus", "8", "--machines", "3"), 2, "multiple of --machines"),
        (("plan", "--model", "tiny", "--profile", "zero4"), 2, "zero4"),
        (("plan", "--model", "tiny", "--set", "data.dataset=nothing"), 2, "nothing"),
    ],
)
def test_errors_are_one_line(arguments: tuple[str, ...], code: int, says: str, reft: Callable[..., Any]) -> None:
    called = reft(*arguments)
    assert called.code == code
    assert len(called.errors) == 1
    assert says in called.err


def test_a_hub_that_cannot_be_reached(reft: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def absent(*_: Any, **__: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", absent)
    called = reft("plan", "--model", "someone/somewhat")
    assert called.code == 1
    assert called.errors == [called.err.strip()]
    assert "give a folder with --model PATH" in called.err


def test_the_parser_offers_every_profile() -> None:
    assert [name.value for name in ProfileName] == list(PROFILES)


def test_it_loads_nothing_heavy() -> None:
    script = (
        "import sys; from reftcli.cli.app import run; code = run(['plan', 'codellama-7b/gsm8k-pcot', '--gpus', '8'])\n"
        "heavy = [m for m in ('torch', 'transformers', 'trl', 'deepspeed', 'datasets') if m in sys.modules]\n"
        "print(code, heavy, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.strip() == "0 []"
