"""Where the real data lies, for tests that use it when it is there."""

from __future__ import annotations

from pathlib import Path

import pytest

REAL_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets beside the checkout; the test is skipped without it."""
    if not REAL_DATA.is_dir():
        pytest.skip("no real data beside the checkout (../shared/data)")
    return REAL_DATA
