from __future__ import annotations

import pytest
import torch

from reftcli.models.precision import autocast_for, uses_bf16

CPU = torch.device("cpu")


@pytest.mark.parametrize(("precision", "expected"), [("auto", False), ("fp32", False), ("bf16", True)])
def test_products_on_a_cpu(precision: str, expected: bool) -> None:
    assert uses_bf16(precision, CPU) is expected
    weight = torch.eye(4)
    with autocast_for(precision, CPU)():
        product = weight @ weight
    assert product.dtype == (torch.bfloat16 if expected else torch.float32)
    assert weight.dtype == torch.float32
