"""The three commands of the contract where there is no network: with and without the hub's own offline switch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# A name that is reserved never to exist (RFC 2606) stands for an absent network where there is one.
ABSENT_HUB = {"HF_ENDPOINT": "https://hub.invalid", "HF_HUB_OFFLINE": "0"}
PROXIES = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"), "")
THREE = {
    "warmup": ("warmup", "--model", "codellama"),
    "rl": ("rl", "--dataset", "gsm8k"),
    "eval": ("eval", "--majority-vote", "100"),
}


@pytest.fixture(params=["offline switch", "no network"])
def no_hub(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    hub = {"HF_HUB_OFFLINE": "1"} if request.param == "offline switch" else ABSENT_HUB
    return {**hub, **PROXIES, "HF_HOME": str(tmp_path / "cache")}


@pytest.mark.parametrize("command", list(THREE))
def test_dry_run(command: str, no_hub: dict[str, str], reft_process: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    called = reft_process(*THREE[command], "--dry-run", cwd=folder, env=no_hub)
    assert (called.code, called.err) == (0, "")
    assert "not checked: data set gsm8k" in called.out
    expected = {
        "warmup": "not checked: weights of codellama/CodeLlama-7b-hf",
        "rl": "not checked: no finished warm-up for gsm8k pcot in runs: first run `reft warmup --model codellama`",
        "eval": "not checked: no finished RL run in runs: first run `reft rl`",
    }
    assert expected[command] in called.out
    assert list(folder.iterdir()) == []


def test_warmup_says_what_to_do(no_hub: dict[str, str], reft_process: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    called = reft_process(*THREE["warmup"], cwd=folder, env=no_hub)
    assert called.code == 1
    (line,) = called.errors
    assert line.startswith("reft: cannot get codellama/CodeLlama-7b-hf from the hub")
    assert "--model PATH" in line
    assert called.out == ""
    assert list(folder.iterdir()) == []
