"""Where the random numbers of a completion come from."""

from __future__ import annotations

import zlib

import numpy as np

from reftcli.sampling.interface import Decode


def seed_sequence(decode: Decode, item_id: str, sample_index: int) -> np.random.SeedSequence:
    """Entropy of one completion: a function of (seed, stream, item_id, sample index) and of nothing else."""
    return np.random.SeedSequence([decode.seed, decode.stream, zlib.crc32(item_id.encode()), sample_index])
