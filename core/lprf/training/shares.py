"""Drawing one of several, each as often as it should come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lprf.errors import LprfError


class Odds:
    """Weights, none of them negative, as chances. Raises LprfError that names `what` they are where all are 0."""

    def __init__(self, weights: Sequence[float] | np.ndarray, what: str):
        given = np.asarray(weights, float)
        if not given.sum() > 0:
            raise LprfError(f"every one of `{what}` is 0; give one of them a share")
        self.until = np.cumsum(given / given.sum())

    def draw(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Which one each of `size` draws gives, int64 [size]."""
        return np.searchsorted(self.until, rng.random(size), side="right").clip(0, len(self.until) - 1)

    def pick(self, rng: np.random.Generator) -> int:
        """One draw."""
        return int(self.draw(rng, 1)[0])


class Shares(Odds):
    """How often each of `count` datasets is drawn: in equal parts where `shares` is empty.

    Raises LprfError where there are more or fewer shares than datasets, or every one is 0.
    """

    def __init__(self, shares: Sequence[float], count: int):
        if shares and len(shares) != count:
            raise LprfError(f"`shares` has {len(shares)} numbers for {count} datasets")
        super().__init__(shares or [1.0] * count, "shares")
