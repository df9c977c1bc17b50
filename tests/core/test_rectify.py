"""`core.crop` and `core.perspective`."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from lprf.builtin.plugin import lprf_components
from lprf.builtin.rectify import Crop, Perspective
from lprf.builtin.rectify_params import CropParams
from lprf.context import Context
from lprf.data import Detections, Frames, Origin
from lprf.errors import LprfError


def _no_weights(name: str) -> None:
    raise AssertionError(name)


def _context(plate_size: tuple[int, int] | None = None) -> Context:
    return Context(torch.device("cpu"), torch.float32, _no_weights, plate_size)  # type: ignore[arg-type]


def _detections(corners: torch.Tensor | None = None) -> Detections:
    generator = np.random.default_rng(5)
    images = generator.integers(0, 256, (2, 80, 120, 3), dtype=np.uint8)
    images = np.stack([cv2.GaussianBlur(image, (0, 0), 2) for image in images])
    boxes = torch.tensor([[10.0, 20, 70, 40], [0, 0, 120, 80], [110, 60, 120, 80]])
    frames = Frames(torch.from_numpy(images), [Origin("a"), Origin("b")])
    return Detections(frames, torch.tensor([0, 0, 1]), boxes, torch.ones(3), corners)


def test_crops_are_opencvs() -> None:
    detections = _detections()
    plates = Crop(CropParams(), _context((30, 100)))(detections)
    assert plates.images.shape == (3, 3, 30, 100) and plates.detection.tolist() == [0, 1, 2]
    for row, (x1, y1, x2, y2) in enumerate(detections.boxes.int().tolist()):
        crop = detections.frames.images[detections.frame[row], y1:y2, x1:x2].numpy()
        theirs = cv2.resize(np.ascontiguousarray(crop), (100, 30), interpolation=cv2.INTER_CUBIC)
        assert np.abs(plates.images[row].permute(1, 2, 0).numpy() - theirs).max() <= 1.01


def test_size_is_the_parameters_then_the_readers_then_lprnets() -> None:
    assert Crop(CropParams(size=(10, 20)), _context((30, 100)))(_detections()).images.shape[2:] == (10, 20)
    assert Crop(CropParams(), _context())(_detections()).images.shape[2:] == (24, 94)


def test_perspective_undoes_a_tilt() -> None:
    plate = cv2.GaussianBlur(np.random.default_rng(6).integers(0, 256, (24, 94, 3), dtype=np.uint8), (0, 0), 1.5)
    corners = np.array([[30, 12], [205, 40], [198, 95], [22, 60]], dtype=np.float32)
    upright = np.array([[0, 0], [94, 0], [94, 24], [0, 24]], dtype=np.float32)
    matrix = cv2.getPerspectiveTransform(upright - 0.5, corners - 0.5)
    scene = cv2.warpPerspective(plate, matrix, (240, 110), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    frames = Frames(torch.from_numpy(scene)[None], [Origin("scene")])
    box = torch.tensor([[22.0, 12, 205, 95]])
    found = Detections(frames, torch.tensor([0]), box, torch.ones(1), torch.from_numpy(corners)[None])
    plates = Perspective(CropParams(), _context())(found)
    assert np.abs(plates.images[0].permute(1, 2, 0).numpy() - plate)[2:-2, 2:-2].mean() < 4
    assert np.abs(Crop(CropParams(), _context())(found).images[0].permute(1, 2, 0).numpy() - plate).mean() > 10


def test_a_row_without_corners_is_cut_by_its_box() -> None:
    corners = torch.rand(3, 4, 2) * 60
    corners[1] = torch.nan
    detections = _detections(corners)
    plates = Perspective(CropParams(margin=0.1), _context())(detections)
    boxes = Crop(CropParams(margin=0.1), _context())(detections)
    assert torch.equal(plates.images[1], boxes.images[1])
    assert plates.images.isfinite().all() and not torch.equal(plates.images[0], boxes.images[0])


def test_no_detections_no_plates() -> None:
    detections = _detections(torch.zeros(3, 4, 2))
    none = detections.rows(torch.zeros(0, dtype=torch.int64))
    for rectifier in (Crop, Perspective):
        assert rectifier(CropParams(), _context())(none).images.shape == (0, 3, 24, 94)


def test_perspective_without_corners_says_so() -> None:
    with pytest.raises(LprfError, match="corners"):
        Perspective(CropParams(), _context())(_detections())


def test_they_are_declared() -> None:
    declared = {component.name: component for component in lprf_components()}
    assert declared["crop"].load() is Crop and declared["perspective"].load() is Perspective
    assert declared["perspective"].all_inputs()["detections"].features == {"corners"}
