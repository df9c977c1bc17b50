"""The spatial transformer for `lprf export`."""

from __future__ import annotations

import torch

from lprf.network import Network
from lprf_stn.rectifier import StnRectifier


def networks(rectifier: StnRectifier) -> list[Network]:
    """Normalised BGR in, the same straightened out."""
    info = rectifier.weights.info
    example = torch.zeros(2, 3, *rectifier.net.size)
    return [Network(info.name, rectifier, "net", example, ("plates",), info.metadata, exact=True)]
