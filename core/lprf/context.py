"""What an implementation is told about the run it is built for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from lprf.recipe import Recipe
    from lprf.weights import Weights


@dataclass(frozen=True)
class Context:
    """Handed to every implementation as `impl(params, context)`.

    device: where tensors live from the frames' upload to the readings.
    dtype: the floating type networks compute in (float32, or lower where `runtime.precision` allows).
    weights: finds and loads weights by name or path, beside the recipe first; raises WeightsError.
    plate_size: (h, w) that the node reading this one's plates declares, or None: a rectifier's default size.
    node: the name of the node in the recipe, for messages.
    folder: where a training stage writes what it leaves; None in an inference graph.
    seed, workers: of `runtime`. own_seed: a seed of this node's alone, that follows from the run's.
    recipe: the checked inference recipe that the parameters name (an evaluator's), or None.
    """

    device: torch.device
    dtype: torch.dtype
    weights: Callable[[str], Weights]
    plate_size: tuple[int, int] | None = None
    node: str = ""
    folder: Path | None = None
    seed: int = 0
    workers: int = 0
    recipe: Recipe | None = None

    @property
    def own_seed(self) -> int:
        """So that two datasets of one recipe do not draw the same."""
        return int.from_bytes(hashlib.sha256(f"{self.seed} {self.node}".encode()).digest()[:6], "big")
