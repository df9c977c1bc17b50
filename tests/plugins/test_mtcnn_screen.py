"""A PNet in less precision says where to look: what is proposed stays what PNet itself proposes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lprf.network import Network, StandIn
from lprf_mtcnn.nets import FIELD, PNet
from lprf_mtcnn.params import DetectorParams
from lprf_mtcnn.proposers import Proposer

CPU = torch.device("cpu")


class InTorch:
    """A model of bytes in torch, that keeps what shapes it was given."""

    def __init__(self, net: nn.Module, dtype: torch.dtype = torch.float32):
        self.net, self.dtype = copy.deepcopy(net).to(dtype), dtype
        self.shapes: list[torch.Size] = []

    def __call__(self, images: Tensor) -> list[Tensor]:
        assert images.dtype is torch.uint8
        self.shapes.append(images.shape[2:])
        return [values.float() for values in self.net(images.to(self.dtype))]

    def many(self, batches: Iterable[Tensor]) -> list[list[Tensor]]:
        return [self(images) for images in batches]


@pytest.mark.parametrize("few", [True, False])
def test_a_rough_look_first_proposes_the_same(few: bool) -> None:
    """few: cells that are looked at again one by one, some of them where the picture ends; else all are."""
    torch.manual_seed(5)
    net = PNet().eval()
    images = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (2, 193, 473, 3), dtype=np.uint8))
    params = DetectorParams(min_plate=(44, 12), max_proposals=10_000, nms=(0.9, 0.9, 0.4))
    logits = torch.cat([scores.logit().flatten() for scores, _ in Proposer(net, params, CPU).maps(images)])
    with torch.no_grad():  # as far apart as a trained network's, a few cells above the threshold
        scale = 4 / logits.std()
        for values in (net.score.weight, net.score.bias):
            values *= scale
        net.score.bias[0] += scale * logits.quantile(0.99 if few else 0.8) - math.log(0.3 / 0.7)
    alone = Proposer(net, params, CPU)
    wanted = alone(images)
    assert len(wanted.scores) > 5

    screened = Proposer(net, params, CPU)
    example = torch.zeros(2, 3, *FIELD)
    network = Network("pnet", screened, "net", example, ("logits", "offsets"), {})
    exact, rough = InTorch(screened.net), InTorch(screened.net, torch.bfloat16)
    screened.net = StandIn(network, exact, StandIn(network, rough))  # type: ignore[assignment]
    found = screened(images)

    order, other = (torch.argsort(proposals.scores, stable=True) for proposals in (wanted, found))
    torch.testing.assert_close(found.frame[other], wanted.frame[order])
    torch.testing.assert_close(found.boxes[other], wanted.boxes[order], atol=1e-2, rtol=0)
    torch.testing.assert_close(found.scores[other], wanted.scores[order], atol=1e-4, rtol=0)
    assert rough.shapes
    seen = {tuple(shape) for shape in exact.shapes}
    if few:
        assert tuple(FIELD) in seen
        assert any(h < FIELD[0] or w < FIELD[1] for h, w in seen)  # at an edge
        assert all(h <= FIELD[0] and w <= FIELD[1] for h, w in seen)
    else:
        assert any(w == 473 for _, w in seen)
