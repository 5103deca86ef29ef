from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from reftcli.models import onednn


@pytest.fixture(autouse=True)
def _afresh() -> Any:
    onednn.use_onednn.cache_clear()
    onednn.prepacking_works.cache_clear()
    before = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    yield
    torch.backends.mkldnn.matmul.fp32_precision = before  # type: ignore[attr-defined]
    onednn.use_onednn.cache_clear()
    onednn.prepacking_works.cache_clear()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 8, bias=False))


def test_prepacked_layers_compute_the_same_and_are_put_back() -> None:
    layers, x = network(), torch.randn(5, 3, 32)
    with torch.no_grad():
        expected = layers(x)
        with onednn.prepacked(layers, 16):
            if onednn.prepacking_works():
                assert "forward" in vars(layers[0])
            found = layers(x)
    torch.testing.assert_close(found, expected)
    assert not any("forward" in vars(layer) for layer in layers)


def test_new_weights_are_seen_the_next_time() -> None:
    layers, x = network(), torch.randn(2, 32)
    with torch.no_grad():
        with onednn.prepacked(layers, 16):
            before = layers(x)
        layers[0].weight.mul_(2)
        with onednn.prepacked(layers, 16):
            after = layers(x)
        torch.testing.assert_close(after, layers(x))
    assert not torch.allclose(before, after)


def test_layers_are_put_back_after_an_error() -> None:
    layers = network()
    with pytest.raises(KeyError), onednn.prepacked(layers, 16):
        raise KeyError
    assert not any("forward" in vars(layer) for layer in layers)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_left_alone(dtype: torch.dtype) -> None:
    layers = network().to(dtype)
    with torch.no_grad(), onednn.prepacked(layers, 16):
        assert "forward" not in vars(layers[0])
    with torch.autocast("cpu", torch.bfloat16), onednn.prepacked(network(), 16):
        pass


@pytest.mark.parametrize("broken", [AttributeError, RuntimeError])
def test_without_the_operators_nothing_is_packed(monkeypatch: pytest.MonkeyPatch, broken: type[Exception]) -> None:
    def absent(*_: object) -> torch.Tensor:
        raise broken("no such operator")

    monkeypatch.setattr(onednn, "_pack", absent)
    layers = network()
    with onednn.prepacked(layers, 16):
        assert "forward" not in vars(layers[0])
        assert layers(torch.ones(1, 32)).shape == (1, 8)


def test_inexact_operators_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "_forward", lambda weight, bias, x: torch.zeros(len(x), 256))
    assert not onednn.prepacking_works()


def test_the_switch_is_turned_off_again_where_products_lose_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    monkeypatch.setattr(onednn, "_products_are_exact", lambda linear: False)
    assert onednn.use_onednn() is False
    assert torch.backends.mkldnn.matmul.fp32_precision == before  # type: ignore[attr-defined]


def test_the_guard_knows_bf16_from_fp32() -> None:
    def rounded(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x.bfloat16(), weight.bfloat16()).float()

    assert onednn._products_are_exact(nn.functional.linear)
    assert not onednn._products_are_exact(rounded)


def test_products_stay_exact_with_the_switch_on() -> None:
    onednn.use_onednn()
    assert onednn._products_are_exact(nn.functional.linear)
