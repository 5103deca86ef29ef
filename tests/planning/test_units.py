"""Sizes and times as people write them."""

from __future__ import annotations

import pytest

from reftcli.errors import UsageError
from reftcli.planning.hardware import Hardware, machines_for
from reftcli.planning.units import GIB, duration, gib, parse_bytes, short_count


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("80GiB", 80 * GIB), ("80 gib", 80 * GIB), ("80GB", 80 * 10**9), ("80G", 80 * GIB), ("80", 80 * GIB),
        ("79.2GiB", round(79.2 * GIB)), ("24000MB", 24 * 10**9), ("1TiB", 1024 * GIB), ("512b", 512),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text, "--gpu-memory") == pytest.approx(size, abs=1)


@pytest.mark.parametrize("text", ["", "much", "0", "-3GiB", "80XB", "1.2.3GiB", "80GiBs", "nan"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="--gpu-memory"):
        parse_bytes(text, "--gpu-memory")


def test_for_people() -> None:
    assert [gib(size) for size in (0, 20 * GIB, GIB // 20, 5)] == ["0", "20.0", "0.050", "0.001"]
    assert [short_count(n) for n in (6.74e9, 383e6, 12)] == ["6.74 B", "383 M", "12"]
    assert [duration(s) for s in (3.42, 600, 7_500, 200_000)] == ["3.4 s", "10 min", "2 h 5 min", "2 d 7 h"]


def test_machines() -> None:
    assert [machines_for(gpus) for gpus in (1, 8, 12, 16, 512)] == [1, 1, 1, 2, 64]
    with pytest.raises(UsageError, match="multiple of --machines"):
        Hardware(10, 4)
