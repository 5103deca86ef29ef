from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from reftcli.models import onednn


@pytest.fixture(autouse=True)
def _afresh() -> Any:
    onednn.products_work.cache_clear()
    onednn.prepacking_works.cache_clear()
    before = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    yield
    torch.backends.mkldnn.matmul.fp32_precision = before  # type: ignore[attr-defined]
    onednn.products_work.cache_clear()
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


def test_linear_layers_compute_the_same_forwards_and_backwards() -> None:
    plain, fast, x = network(), network(), torch.randn(5, 3, 32)
    assert onednn.use_onednn(fast) is onednn.products_work()
    results = []
    for layers in (plain, fast):
        given = x.clone().requires_grad_()
        found = layers(given)
        found.square().sum().backward()
        results.append([found, given.grad, *(parameter.grad for parameter in layers.parameters())])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_frozen_weights_and_inputs_get_no_gradient() -> None:
    layers = network()
    onednn.use_onednn(layers)
    layers[0].requires_grad_(False)
    layers(torch.randn(2, 32)).sum().backward()
    assert layers[0].weight.grad is None
    assert layers[2].weight.grad is not None


def test_changed_layers_are_still_linear_layers() -> None:
    layers = network()
    onednn.use_onednn(layers)
    assert isinstance(layers[0], nn.Linear)
    assert layers.state_dict().keys() == network().state_dict().keys()
    again = copy.deepcopy(layers)
    again.load_state_dict(network().state_dict())
    torch.testing.assert_close(again(torch.ones(1, 32)), network()(torch.ones(1, 32)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_changed_layers_leave_other_precisions_alone(dtype: torch.dtype) -> None:
    layers, x = network().to(dtype), torch.randn(2, 32, dtype=dtype)
    expected = layers(x)
    onednn.use_onednn(layers)
    assert torch.equal(layers(x), expected)


def test_autocast_is_heeded() -> None:
    layers = network()
    onednn.use_onednn(layers)
    with torch.autocast("cpu", torch.bfloat16):
        assert layers(torch.randn(2, 32)).dtype == torch.bfloat16


def test_changed_layers_can_be_packed() -> None:
    layers, x = network(), torch.randn(5, 32)
    onednn.use_onednn(layers)
    with torch.no_grad():
        expected = layers(x)
        with onednn.prepacked(layers, 16):
            assert ("forward" in vars(layers[0])) is onednn.prepacking_works()
            torch.testing.assert_close(layers(x), expected)


def test_nothing_else_is_sent_to_onednn() -> None:
    """Attention's many small products would be slower there."""
    before = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    layers = network()
    onednn.use_onednn(layers)
    layers(torch.randn(2, 32)).sum().backward()
    assert torch.backends.mkldnn.matmul.fp32_precision == before  # type: ignore[attr-defined]


def test_layers_stay_as_they_are_where_products_lose_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "_products_are_exact", lambda linear: False)
    layers = network()
    assert onednn.use_onednn(layers) is False
    assert type(layers[0]) is nn.Linear


def test_the_guard_knows_bf16_from_fp32() -> None:
    def rounded(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x.bfloat16(), weight.bfloat16()).float()

    assert onednn._products_are_exact(nn.functional.linear)
    assert not onednn._products_are_exact(rounded)
