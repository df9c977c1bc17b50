"""The network of `centernet.detector`, for `lprf export`."""

from __future__ import annotations

import torch

from lprf.network import Network
from lprf.weights import WeightsInfo
from lprf_centernet.detector import CenterNetDetector, Finder
from lprf_centernet.net import STEP


def networks(detector: CenterNetDetector) -> list[Network]:
    return [network(detector.weights.info, detector.find)]


def network(info: WeightsInfo, find: Finder) -> Network:
    """As inference has it: BGR of 0 to 255 in; logits, distances and corners out."""
    metadata = {**info.metadata, "input": {"order": "BGR", "mean": 0.0, "scale": 1.0}}
    outputs = ("logits", "distances", "corners")
    free = {0: "batch", 2: "height", 3: "width"}
    photo = torch.zeros(2, 3, 2 * STEP, 3 * STEP)
    return Network(info.name, find, "net", photo, outputs, metadata, free, reads=torch.uint8)
