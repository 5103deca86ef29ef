"""pass@k: the chance that at least one of k samples is correct."""

from __future__ import annotations

import math


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased estimate of pass@k for one problem from n samples, ``correct`` (c) of them right.

    pass@k = 1 - C(n - c, k) / C(n, k)

    Source: Chen et al. 2021, arXiv 2107.03374, equation 1 (human-eval). In [0, 1]; at k = n it is "any is correct".
    Raises ValueError unless 0 <= correct <= n and 1 <= k <= n.
    """
    if not 0 <= correct <= n or not 1 <= k <= n:
        raise ValueError(f"needs 0 <= correct <= n and 1 <= k <= n (got n={n}, correct={correct}, k={k})")
    return 1 - math.comb(n - correct, k) / math.comb(n, k)
