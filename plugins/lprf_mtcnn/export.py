"""PNet and ONet for `lprf export`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from lprf.network import Network
from lprf.weights import Weights
from lprf_mtcnn.detector import MtcnnDetector
from lprf_mtcnn.nets import FIELD, ONET_SIZE
from lprf_mtcnn.proposers import CenterNetProposer


def networks(detector: MtcnnDetector) -> list[Network]:
    """Both as inference has them: BGR of 0 to 255 in, logits and offsets (and corners) out."""
    pnet, onet = detector.weights
    outputs = ("logits", "offsets", "corners") if detector.judge.net.corner is not None else ("logits", "offsets")
    judge = Network(onet.info.name, detector.judge, "net", torch.zeros(2, 3, *ONET_SIZE), outputs, _metadata(onet))
    if isinstance(detector.propose, CenterNetProposer):
        return [_centernet(detector.propose), judge]
    propose = Network(
        pnet.info.name,
        detector.propose,
        "net",
        torch.zeros(2, 3, 4 * FIELD[0], 4 * FIELD[1]),
        outputs[:2],
        _metadata(pnet),
        {0: "batch", 2: "height", 3: "width"},
        reads=torch.uint8,
    )
    screen = detector.propose.screen
    if screen is None:
        return [propose, judge]
    # it says where to look, and no box of a plate is its own
    return [replace(_centernet(screen), auto=torch.bfloat16), propose, judge]


def _centernet(propose: CenterNetProposer) -> Network:
    from lprf_centernet.export import network

    return network(propose.weights.info, propose.find)


def _metadata(weights: Weights) -> dict[str, Any]:
    return {**weights.info.metadata, "input": {"order": "BGR", "mean": 0.0, "scale": 1.0}}
