"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _shared(part: str) -> Path:
    base = Path(os.environ.get("LPRF_SHARED", ROOT.parent / "shared"))
    if not (base / part).is_dir():
        pytest.skip(f"reference data are not here: {base / part} (LPRF_SHARED names their folder)")
    return base / part


@pytest.fixture(scope="session")
def shared_seed() -> Path:
    """The seed's checkpoints, photos and golden outputs; skips where they are absent."""
    return _shared("seed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real plate images; skips where they are absent."""
    return _shared("data")


@pytest.fixture(scope="session")
def shipped_weights() -> Path:
    """The weights that ship."""
    assert len(list((ROOT / "weights").glob("cn-*.safetensors"))) == 4
    return ROOT / "weights"
