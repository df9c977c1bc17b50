"""A screen says where PNet is to look: there it proposes what it proposes when it looks everywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import lprf
from lprf.errors import LprfError, RecipeError
from lprf_mtcnn.nets import PNet
from lprf_mtcnn.params import DetectorParams
from lprf_mtcnn.proposers import Proposals, Proposer

CPU = torch.device("cpu")
PARAMS = DetectorParams(min_plate=(44, 12), max_proposals=10_000, nms=(0.9, 0.9, 0.4))


class Screen:
    """One that sees these boxes in every frame."""

    def __init__(self, boxes: Tensor):
        self.boxes = boxes

    def __call__(self, images: Tensor) -> Proposals:
        frame = torch.arange(len(images)).repeat_interleave(len(self.boxes))
        return Proposals(frame, self.boxes.repeat(len(images), 1), torch.ones(len(frame)))


def pictures(height: int, width: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(2).integers(0, 256, (2, height, width, 3), dtype=np.uint8))


def pnet(images: Tensor, share: float) -> PNet:
    """One that takes that share of the cells of these pictures for plates."""
    torch.manual_seed(5)
    net = PNet().eval()
    logits = torch.cat([scores.logit().flatten() for scores, _ in Proposer(net, PARAMS, CPU).maps(images)])
    with torch.no_grad():
        net.score.bias[0] += logits.quantile(1 - share) - math.log(0.3 / 0.7)
    return net


def test_a_screen_that_sees_plates_everywhere_changes_nothing() -> None:
    """At the borders neither, nor where a picture is smaller than what is looked at around a plate."""
    images = pictures(193, 473)
    net = pnet(images, 0.01)
    wanted = Proposer(net, PARAMS, CPU)(images)
    across, down = torch.arange(0, 473, 10.0), torch.arange(0, 193, 5.0)
    middle = torch.cartesian_prod(across, down)
    boxes = torch.cat(
        [
            torch.cat([middle - half, middle + half], dim=1)
            for half in (torch.tensor([22.0, 6.0]) * 1.4**power for power in range(10))
        ]
    )
    found = Proposer(net, PARAMS, CPU, screen=Screen(boxes))(images)  # type: ignore[arg-type]
    assert len(wanted.scores) > 20
    order, other = (proposals.boxes.sum(1).argsort(stable=True) for proposals in (wanted, found))
    torch.testing.assert_close(found.frame[other], wanted.frame[order])
    torch.testing.assert_close(found.boxes[other], wanted.boxes[order], atol=1e-2, rtol=0)
    torch.testing.assert_close(found.scores[other], wanted.scores[order], atol=1e-4, rtol=0)


def test_pnet_looks_where_the_screen_sees_something_and_for_plates_of_that_size() -> None:
    images = pictures(240, 480)
    net = pnet(images, 0.2)
    screen = Screen(torch.tensor([[200.0, 100.0, 332.0, 136.0]]))
    every = cells_of(Proposer(net, PARAMS, CPU), images)
    found = cells_of(Proposer(net, PARAMS, CPU, screen=screen), images)  # type: ignore[arg-type]
    assert found < every
    assert {frame for _, frame, _, _ in found} == {0, 1}
    assert {scale for scale, _, _, _ in found} <= {2, 3, 4, 5}  # a cell is 88, 124, 176 and 249 pixels wide there
    # 8 by 6 cells of 34 x 124 pixels about the middle, of which there is one every 5.7 x 14.1 pixels
    near = {(3, frame, row, column) for frame in (0, 1) for row in range(14, 22) for column in range(12, 18)}
    at_that_scale = {cell for cell in found if cell[0] == 3}
    assert at_that_scale == every & near
    assert len(at_that_scale) > 5


def cells_of(propose: Proposer, images: Tensor) -> set[tuple[int, ...]]:
    found = propose._found(images)
    return set(zip(*(values.tolist() for values in (found.scale, found.frame, found.row, found.column)), strict=True))


@pytest.mark.parametrize("shape", [(240, 480), (9, 20), (13, 48)], ids=["photo", "tiny", "one cell"])
def test_a_screen_that_sees_nothing_leaves_nothing(shape: tuple[int, int]) -> None:
    found = Proposer(PNet(), PARAMS, CPU, screen=Screen(torch.zeros(0, 4)))(pictures(*shape))  # type: ignore[arg-type]
    assert found.boxes.shape == (0, 4)
    assert len(found.frame) == len(found.scores) == 0


def test_the_shipped_screen_leaves_the_samples_plates_as_they_are() -> None:
    pnet = {"detect.pnet": "cn-pnet"}
    everywhere, screened = (
        [(reading.text, reading.box) for reading in lprf.load("read-plates", overrides=overrides).run()]
        for overrides in (pnet, {**pnet, "detect.screen": "any-centernet-small"})
    )
    assert len(everywhere) >= 6
    assert [text for text, _ in screened] == [text for text, _ in everywhere]
    boxes, others = (torch.tensor([box for _, box in readings]) for readings in (screened, everywhere))
    torch.testing.assert_close(boxes, others, atol=2.0, rtol=0)


def test_a_screen_must_be_a_centernet() -> None:
    with pytest.raises(RecipeError, match="screen"):
        lprf.load("read-plates", overrides={"detect.pnet": "cn-pnet", "detect.screen": "cn-onet"})


def test_a_screen_is_for_a_pnet() -> None:
    with pytest.raises(LprfError, match=r"detect: screen says where a PNet is to look, and any-centernet is none"):
        lprf.load("read-plates", overrides={"detect.screen": "any-centernet"})
