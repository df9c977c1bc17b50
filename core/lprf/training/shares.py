"""Drawing from several datasets, each with its share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lprf.errors import LprfError


class Shares:
    """How often each of `count` datasets is drawn: in equal parts where `shares` is empty.

    Raises LprfError where there are more or fewer shares than datasets, or every one is 0.
    """

    def __init__(self, shares: Sequence[float], count: int):
        if shares and len(shares) != count:
            raise LprfError(f"`shares` has {len(shares)} numbers for {count} datasets")
        if shares and not sum(shares):
            raise LprfError("every one of `shares` is 0; give one of the datasets a share")
        weights = np.array(shares or [1.0] * count)
        self.until = np.cumsum(weights / weights.sum())

    def draw(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Which dataset each of `size` examples comes from, int64 [size]."""
        return np.searchsorted(self.until, rng.random(size), side="right").clip(0, len(self.until) - 1)
