from __future__ import annotations

import torch

from reftcli.models.packing import in_multiples, packed


def test_packed_rows_come_in_few_lengths() -> None:
    rows = [packed(torch.arange(n), [2, n - 2]) for n in range(1000, 1025)]
    assert {row["input_ids"].shape[1] for row in rows} == {1008, 1024}
    assert all(sum(row["packing"].lengths) == row["input_ids"].shape[1] for row in rows)
    assert rows[0]["position_ids"][0, 998:].tolist() == [996, 997, *range(8)]
    assert rows[8]["packing"].lengths == (2, 1006)


def test_what_follows_is_no_longer_than_the_sequences() -> None:
    row = packed(torch.ones(2049, dtype=torch.long), [3] * 683)
    assert row["input_ids"].shape == (1, 2112)
    assert row["packing"].lengths == (3,) * 704
    assert row["position_ids"][0].tolist() == [0, 1, 2] * 704


def test_positions_may_be_changed() -> None:
    row = packed(torch.arange(5), [5])
    row["position_ids"] += 1
    assert row["packing"].positions.tolist() == [0, 1, 2, 3, 4]


def test_filled_up_rows_are_zeros_and_few() -> None:
    for n in (1, 13, 63, 64, 65, 500, 5000):
        rows = in_multiples(torch.ones(n, 2))
        assert n <= len(rows) <= n * 33 / 32
        assert rows.sum() == 2 * n
