"""The single-shot detector against slow references and pictures drawn by hand; its conformance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch

from lprf import weights
from lprf.builtin.metrics import match
from lprf.context import Context
from lprf.data import Frames, Origin, Truth
from lprf.errors import WeightsError
from lprf.testing import DetectorSuite, Labelled, TrainerSuite
from lprf.training.distributed import Share
from lprf.training.photos import mirrored
from lprf_centernet.cuts import CUT, IGNORED, NOTHING, PLATE, cut, label
from lprf_centernet.detector import Finder, found, levels
from lprf_centernet.net import STRIDE, CenterNet, Conv, for_bytes, load
from lprf_centernet.params import DetectorParams, TrainerParams
from lprf_centernet.trainer import CenterNetTask, CenterNetTrainer, _overlap
from running import at_most

CPU = torch.device("cpu")


class TestDetector(DetectorSuite):
    component = "centernet.detector"


class TestTrainer(TrainerSuite):
    component = "centernet.trainer"
    params: ClassVar[Mapping[str, Any]] = {"steps": 2, "batch": 2, "val_photos": 2}

    def inputs(self, folder: Path) -> Mapping[str, Any]:
        return {"datasets": [Labelled()], "val": Labelled(2)}


def trained_a_little(seed: int = 0) -> CenterNet:
    """A network whose batch normalisations have seen something."""
    torch.manual_seed(seed)
    net = CenterNet((4, 6, 8, 8, 8), (1, 1, 0, 1))
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
    return net.eval()


def test_what_inference_computes_is_what_was_trained() -> None:
    net = trained_a_little().double()
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.float64)
    folded = for_bytes(net)
    assert not [layer for layer in folded.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for ours, theirs in zip(folded(images), net(images / 255), strict=True):
        assert ours.shape[2:] == (64 // STRIDE, 96 // STRIDE)
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_a_layer_is_convolution_normalisation_and_relu() -> None:
    torch.manual_seed(0)
    layer, x = Conv(2, 2).double().eval().requires_grad_(False), torch.randn(1, 2, 5, 6, dtype=torch.float64)
    layer.norm.running_mean.normal_()
    layer.norm.running_var.uniform_(0.5, 2)
    padded = np.pad(x.numpy()[0], ((0, 0), (1, 1), (1, 1)))
    kernel = layer.conv.weight.detach().numpy()
    for c, row, column in itertools.product(range(2), range(5), range(6)):
        value = (padded[:, row : row + 3, column : column + 3] * kernel[c]).sum()
        value = (value - float(layer.norm.running_mean[c])) / math.sqrt(float(layer.norm.running_var[c]) + 1e-5)
        assert float(layer(x)[0, c, row, column]) == pytest.approx(max(0.0, value + float(x[0, c, row, column])))


class Says(torch.nn.Module):
    """Stands for the network: says what it was told of single cells of the first level, nothing elsewhere."""

    def __init__(self, size: tuple[int, int], cells: list[tuple[int, int, float, list[float], list[float]]]):
        super().__init__()
        self.size, self.cells = size, cells

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h, w = images.shape[2] // STRIDE, images.shape[3] // STRIDE
        out = torch.zeros(len(images), 13, h, w)
        out[:, 0] = -20
        if images.shape[2:] == self.size:
            for row, column, score, sides, corners in self.cells:
                out[:, 0, row, column] = math.log(score / (1 - score))
                out[:, 1:5, row, column] = torch.tensor(sides).div(16).log()
                out[:, 5:, row, column] = torch.tensor(corners)
        return out[:, :1], out[:, 1:5], out[:, 5:]


def find(images: torch.Tensor, net: torch.nn.Module, **params: Any) -> Any:
    finder = Finder(trained_a_little(), DetectorParams(**params), CPU)
    finder.net = net
    return found(finder, Frames(images, [Origin(str(row)) for row in range(len(images))]))


def test_boxes_and_corners_in_pixels_of_the_frame() -> None:
    # 480 x 640 for plates of 48 x 16: at half the size, 240 x 320, which 256 x 320 is the nearest to
    images = torch.zeros(2, 480, 640, 3, dtype=torch.uint8)
    corners = [0.0, 0.1, -0.05, 0.0, 0.0, 0.0, 0.05, -0.1]
    net = Says((256, 320), [(20, 30, 0.9, [12, 4, 20, 6], corners), (21, 30, 0.8, [12, 7, 20, 3], [0.0] * 8)])
    found = find(images, net, min_plate=(48, 16))
    # the middle of cell (20, 30) is (122, 82); across 2, down 480 / 256
    x1, y1, x2, y2 = 110 * 2, 78 * 1.875, 142 * 2, 88 * 1.875
    assert found.frame.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.9, 0.9])
    w, h = x2 - x1, y2 - y1
    quad = [[x1, y1 + 0.1 * h], [x2 - 0.05 * w, y1], [x2, y2], [x1 + 0.05 * w, y2 - 0.1 * h]]
    for row in range(2):
        assert found.boxes[row].tolist() == pytest.approx([x1, y1, x2, y2], abs=1e-3)
        np.testing.assert_allclose(found.corners[row].numpy(), quad, atol=1e-3)


def test_scores_below_the_threshold_do_not_count_and_boxes_end_at_the_border() -> None:
    images = torch.zeros(1, 256, 320, 3, dtype=torch.uint8)
    cells = [(1, 1, 0.6, [30, 30, 30, 10], [0.0] * 8), (40, 60, 0.4, [12, 4, 12, 4], [0.0] * 8)]
    found = find(images, Says((256, 320), cells), min_plate=(24, 8))
    assert found.boxes.tolist() == [pytest.approx([0, 0, 36, 16], abs=1e-3)]
    assert len(find(images, Says((256, 320), cells), min_plate=(24, 8), threshold=0.3)) == 2


class SaysInTurn(torch.nn.Module):
    """Stands for the network at the first level, and at second looks."""

    def __init__(self, first: Says, second: Says):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.second if tuple(images.shape[2:]) == self.second.size else self.first)(images)


def test_what_is_small_is_looked_at_again() -> None:
    images = torch.zeros(2, 256, 320, 3, dtype=torch.uint8)
    small, large = (20, 30, 0.4, [12, 4, 12, 4], [0.0] * 8), (48, 40, 0.7, [60, 12, 60, 12], [0.0] * 8)
    first = Says((256, 320), [small, large])
    corners = [0.1, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0, 0.0]
    again = [(24, 32, 0.8, [32, 12, 36, 12], corners), (4, 4, 0.99, [12, 4, 12, 4], [0.0] * 8)]  # and another plate
    found = find(images, SaysInTurn(first, Says((192, 256), again)), min_plate=(24, 8), second_look=0.3)
    # 24 x 8 pixels about (122, 82), seen so large that its area is 40 x 40, in the middle of 256 x 192
    enlarged = 40 / math.sqrt(24 * 8)
    left, top = 122 - 128 / enlarged, 82 - 96 / enlarged
    box = [left + (130 - 32) / enlarged, top + (98 - 12) / enlarged, left + 166 / enlarged, top + 110 / enlarged]
    assert found.frame.tolist() == [0, 0, 1, 1]
    assert found.scores.tolist() == pytest.approx([0.7, 0.6] * 2, abs=1e-6)
    assert found.boxes[1].tolist() == pytest.approx(box, abs=1e-3)
    width, height = box[2] - box[0], box[3] - box[1]
    quad = [[box[0] + 0.1 * width, box[1]], [box[2], box[1] + 0.2 * height], box[2:], [box[0], box[3]]]
    np.testing.assert_allclose(found.corners[1].numpy(), quad, atol=1e-3)
    assert found.boxes[0].tolist() == pytest.approx([102, 182, 222, 206], abs=1e-3)  # large: as it was
    # where nothing is seen again, the score is halved
    assert len(find(images, SaysInTurn(first, Says((192, 256), [])), min_plate=(24, 8), second_look=0.3)) == 2
    assert len(find(images, first, min_plate=(24, 8), threshold=0.3)) == 4
    with pytest.raises(ValueError, match=r"second_look, 0\.6, must not be above the threshold, 0\.5"):
        DetectorParams(second_look=0.6)


def test_too_many_boxes_are_told() -> None:
    images = torch.zeros(1, 256, 320, 3, dtype=torch.uint8)
    cells = [(8 * row, 10, 0.9 - row / 100, [12, 4, 12, 4], [0.0] * 8) for row in range(1, 7)]
    with pytest.warns(RuntimeWarning, match="more than 4 boxes"):
        found = find(images, Says((256, 320), cells), min_plate=(24, 8), max_proposals=4)
    assert found.scores.tolist() == pytest.approx([0.89, 0.88, 0.87, 0.86])


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (1160, 720), (720, 1280), (3000, 4000)])
@pytest.mark.parametrize("min_plate", [(24, 8), (50, 15), (200, 60)])
def test_levels_show_every_plate_in_some_size_that_was_learnt(
    size: tuple[int, int], min_plate: tuple[int, int]
) -> None:
    seen = list(levels(*size, min_plate))
    assert all(side % 32 == 0 and side > 0 for level in seen for side in level)
    if min(size) < 64:
        return
    width = float(min_plate[0])
    while width <= size[1]:
        across = [width * level[1] / size[1] for level in seen]
        assert any(18 <= seen_width <= 260 for seen_width in across), (width, across)
        width *= 1.3


def slow_label(boxes: list[list[float]]) -> np.ndarray:
    """The rule, cell by cell: the label, or 10 + the number of the box that a cell stands for."""
    rows, columns = CUT[0] // 4, CUT[1] // 4
    area = [(b[2] - b[0]) * (b[3] - b[1]) for b in boxes]
    found = np.zeros((rows, columns), int)
    for number in sorted(range(len(boxes)), key=lambda n: -area[n]):
        x1, y1, x2, y2 = boxes[number]
        seen = max(0, min(x2, CUT[1]) - max(x1, 0)) * max(0, min(y2, CUT[0]) - max(y1, 0)) / area[number]
        if seen <= 0:
            continue
        learnt = seen >= 0.95 and 6 <= math.sqrt(area[number]) <= 130
        cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
        rx, ry = min(0.2 * (x2 - x1), 12), min(0.25 * (y2 - y1), 6)
        nearest = min(
            itertools.product(range(rows), range(columns)),
            key=lambda c: ((4 * c[1] + 2 - cx) ** 2 + (4 * c[0] + 2 - cy) ** 2, c),
        )
        for row, column in itertools.product(range(rows), range(columns)):
            x, y = 4 * column + 2, 4 * row + 2
            if not learnt:
                if x1 <= x <= x2 and y1 <= y <= y2 and found[row, column] == 0:
                    found[row, column] = -1
            elif (abs(x - cx) <= rx and abs(y - cy) <= ry) or (row, column) == nearest:
                found[row, column] = 10 + number
            elif abs(x - cx) <= rx + 4 and abs(y - cy) <= ry + 4 and found[row, column] == 0:
                found[row, column] = -1
    return found


def test_labels_of_cells() -> None:
    boxes = [
        [40.3, 50.1, 64.9, 58.7],  # small
        [100, 100, 250, 160],  # large, with one on it
        [150, 120, 190, 135],
        [-20, 200, 30, 215],  # cut by the border
        [300, 5, 306, 9],  # too small
        [400, 400, 450, 420],  # outside
    ]
    labels, which = label(torch.tensor(boxes))
    slow = slow_label(boxes)
    assert {10, 11, 12} == set(slow[slow >= 10].tolist())
    assert np.array_equal(labels.numpy(), np.where(slow >= 10, PLATE, np.where(slow < 0, IGNORED, NOTHING)))
    assert np.array_equal(which.numpy(), np.where(slow >= 10, slow - 10, -1))


def test_cuts_show_what_their_boxes_say() -> None:
    image = np.full((400, 700, 3), 90, np.uint8)
    cv2.rectangle(image, (200, 150), (299, 189), (255, 255, 255), -1)  # the last pixel is in it
    corners = np.array([[200, 150], [300, 150], [300, 190], [200, 190]], np.float32)
    plate = Truth((200.0, 150.0, 300.0, 190.0), corners)
    known = 0
    for seed in range(40):
        picture, boxes, points, labels, which = cut(
            image, [plate], TrainerParams(strength=0), np.random.default_rng(seed)
        )
        assert picture.shape == (*CUT, 3)
        cells = (labels == PLATE).nonzero()
        if not len(cells):
            continue
        known += 1
        bright = picture.numpy().max(2) > 150
        filled = bool((picture[0, 0] > 150).all() or (picture[-1, -1] > 150).all())  # what lies outside is bright, too
        number = which[labels == PLATE].unique().item()
        box = boxes[number]
        if not filled:
            rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
            edges = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose(box.numpy(), edges, atol=1.5)
        upright = box.numpy()[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2)
        np.testing.assert_allclose(points[number].numpy(), upright, atol=1e-3)
        middle = (box[:2] + box[2:]) / 2
        reach = (box[2:] - box[:2]) * torch.tensor([0.2, 0.25]) + STRIDE
        assert all(((cell.flip(0) * STRIDE + 2 - middle).abs() <= reach).all() for cell in cells)
    assert known > 20


def test_mirrored_photos_keep_their_labels() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:20, 5:25] = 255
    plate = Truth((5.0, 10.0, 25.0, 20.0), np.array([[5, 11], [25, 10], [24, 20], [5, 19]], np.float32), "A1")
    turned, (theirs,) = mirrored(image, [plate])
    assert np.flatnonzero(turned[15, :, 0]).tolist() == list(range(35, 55))
    assert theirs.box == (35.0, 10.0, 55.0, 20.0)
    assert theirs.corners is not None
    assert theirs.corners.tolist() == [[35, 10], [55, 11], [55, 19], [36, 20]]  # TL TR BR BL still


def test_overlap_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]])
    truths = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 0, 30, 10]])
    iou, generalised = _overlap(boxes, truths)
    assert iou.tolist() == pytest.approx([1, 1 / 3, 0], abs=1e-6)
    assert generalised.tolist() == pytest.approx([1, 1 / 3, -1 / 3], abs=1e-6)  # the hull of the last is a third empty


def test_it_learns_one_photo() -> None:
    torch.manual_seed(0)
    params = TrainerParams(batch=4, aimed=1.0, mirror=0.0, strength=0.0)
    task = CenterNetTask(params, CPU, [Labelled(1)], None, "centernet")
    optimizer = torch.optim.AdamW(task.net.parameters(), 2e-3)
    fits = []
    for step in range(30):
        loss, metrics = task.loss(task.batch(step, np.random.default_rng(step), Share()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        fits.append(float(metrics["iou"]))
    assert fits[0] < 0.3
    assert np.mean(fits[-5:]) > 0.5


def test_it_goes_on_from_other_weights(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"channels": (8, 16, 8, 24, 8), "depth": (0, 1, 0, 2)}
    net = CenterNet(**sizes)
    first = weights.save(tmp_path / "first.safetensors", net.state_dict(), net.metadata())
    context = Context(CPU, torch.float32, weights.find_and_load, node="centernet", folder=tmp_path)
    params = TrainerParams(init=str(first), steps=1, batch=2, lr=1e-9, ema=None, precision="float32", **sizes)
    path = CenterNetTrainer(params, context).run([Labelled(1)])["weights"]
    learnt = load(weights.load(weights.read_info(path))).state_dict()
    for name, values in net.named_parameters():
        torch.testing.assert_close(learnt[name], values.detach(), atol=1e-6, rtol=0)
    other = TrainerParams(init=str(first), steps=1, batch=2)
    with pytest.raises(WeightsError, match=r"first\.safetensors"):
        CenterNetTrainer(other, context).run([Labelled(1)])


def test_what_a_teacher_finds_without_a_label_counts_neither_way() -> None:
    task = CenterNetTask(TrainerParams(batch=2), CPU, [Labelled()], None, "centernet")
    images, labels = torch.zeros(2, 3, 256, 320), torch.full((2, 64, 80), NOTHING, dtype=torch.int8)
    labels[:, 20, 30] = PLATE
    given = labels, torch.tensor([True, False])  # the second shows a photo without plates
    assert torch.equal(task._doubted(images, *given), labels)
    cells = [(20, 30, 0.9, [1, 1, 1, 1], [0.0] * 8), (40, 50, 0.6, [1, 1, 1, 1], [0.0] * 8)]
    task.teacher = Says((256, 320), [*cells, (50, 50, 0.4, [1, 1, 1, 1], [0.0] * 8)])  # type: ignore[assignment]
    doubted = task._doubted(images, *given)
    assert [index.tolist() for index in (doubted != labels).nonzero()] == [[0, 40, 50]]
    assert int(doubted[0, 40, 50]) == IGNORED
    task.params = TrainerParams(batch=2, taught=0.3)
    doubted = task._doubted(images, *given)
    assert [index.tolist() for index in (doubted != labels).nonzero()] == [[0, 40, 50], [0, 50, 50]]


def test_processes_share_a_batch() -> None:
    task = CenterNetTask(TrainerParams(batch=8), CPU, [Labelled()], None, "centernet")
    whole = task.batch(3, np.random.default_rng(1), Share())
    parts = [task.batch(3, np.random.default_rng(1), Share(rank, 3)) for rank in range(3)]
    for name, values in whole.items():
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), values, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize(
    "wrong",
    [{"channels": [1, 2]}, {"channels": [4, 6, 8, 8, 1025]}, {"depth": [1, 2, 3, -1]}, {"stride": 8}],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    net = trained_a_little()
    path = weights.save(tmp_path / "w.safetensors", net.state_dict(), {**net.metadata(), **wrong})
    with pytest.raises(WeightsError, match=next(iter(wrong))):
        load(weights.load(weights.read_info(path)))
    path = weights.save(tmp_path / "w.safetensors", net.state_dict(), net.metadata())
    again = load(weights.load(weights.read_info(path)))
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(again(images), net(images))
    vast = {**net.metadata(), "channels": [1024] * 5, "depth": [32] * 4}
    path = weights.save(tmp_path / "w.safetensors", net.state_dict(), vast)
    with at_most(500_000_000), pytest.raises(WeightsError, match=r"w\.safetensors does not fit CenterNet"):
        load(weights.load(weights.read_info(path)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("params", "share"),
    [({}, 0.75), ({"weights": "any-centernet-far", "second_look": 0.1, "threshold": 0.4}, 0.83)],
    ids=["any-centernet", "any-centernet-far"],
)
def test_plates_of_many_countries_are_found(shared_data: Path, params: dict[str, Any], share: float) -> None:
    """The shipped weights on photos that they did not learn from: what the card says, less what chance may take."""
    from lprf.builtin.datasets import table_dataset
    from lprf.builtin.params import TableDatasetParams
    from lprf_centernet.detector import CenterNetDetector

    context = Context(CPU, torch.float32, weights.find_and_load)
    photos = table_dataset(TableDatasetParams(path=str(shared_data / "vehicles" / "dev")), context)
    detector = CenterNetDetector(DetectorParams(min_plate=(24, 8), **params), context)
    hits = plates = 0
    for index in range(len(photos)):
        example = photos[index]
        found = detector(Frames(torch.from_numpy(example.image()).unsqueeze(0), [Origin(example.source)]))
        boxes = np.array([plate.box for plate in example.plates], np.float32).reshape(-1, 4)
        hits += int((match(found.boxes.numpy(), found.scores.numpy(), boxes, 0.5) >= 0).sum())
        plates += len(boxes)
    assert hits >= share * plates
