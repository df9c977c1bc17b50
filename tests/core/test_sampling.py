"""Cutting plates out of frames, against OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from lprf import sampling
from lprf.sampling import Mode, sample_boxes, sample_points, sample_quads, square_to_quad

CV = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    generator = np.random.default_rng(1)
    noise = generator.integers(0, 256, (3, 61, 83, 3), dtype=np.uint8)
    blurred = [cv2.GaussianBlur(image, (0, 0), sigma) for image, sigma in zip(noise, (0.1, 1, 3), strict=True)]
    return torch.from_numpy(np.stack(blurred))


def _boxes(count: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(2)
    x = np.sort(generator.integers(0, width, (count, 2)), axis=1)
    y = np.sort(generator.integers(0, height, (count, 2)), axis=1)
    boxes = np.stack([x[:, 0], y[:, 0], x[:, 1] + 1, y[:, 1] + 1], axis=1)
    boxes[0] = 0, 0, width, height
    boxes[1] = 5, 7, 6, 8  # one pixel
    boxes[2] = width - 1, height - 1, width, height
    boxes[3] = 0, 3, 1, 30
    return torch.from_numpy(generator.integers(0, 3, count)), torch.from_numpy(boxes)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("size", [(24, 94), (7, 5), (1, 1)])
def test_boxes_are_cut_as_opencv_resizes_crops(images: torch.Tensor, mode: Mode, size: tuple[int, int]) -> None:
    frame, boxes = _boxes(60, *images.shape[1:3])
    ours = sample_boxes(images, frame, boxes, size, mode)
    assert ours.shape == (60, 3, *size) and ours.dtype == torch.float32
    for row, (f, (x1, y1, x2, y2)) in enumerate(zip(frame.tolist(), boxes.tolist(), strict=True)):
        crop = np.ascontiguousarray(images[f, y1:y2, x1:x2].numpy())
        theirs = cv2.resize(crop, size[::-1], interpolation=CV[mode])
        assert np.abs(ours[row].permute(1, 2, 0).numpy() - theirs).max() <= 1.01, (f, x1, y1, x2, y2)


def test_on_a_cpu_and_elsewhere_it_is_the_same(images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes of fractions of pixels, some of them beyond the border, some of no area."""
    corner = torch.rand(80, 2) * 90 - 10
    boxes = torch.cat([corner, corner + torch.rand(80, 2) * 60 * (torch.arange(80) % 9 > 0).unsqueeze(1)], dim=1)
    frame = torch.arange(80) % len(images)
    here = sample_boxes(images, frame, boxes, (17, 41), "cubic")
    monkeypatch.setattr(sampling, "_box_by_box", sampling._all_at_once)
    torch.testing.assert_close(here, sample_boxes(images, frame, boxes, (17, 41), "cubic"), atol=1e-3, rtol=0)


def test_a_box_past_the_border_repeats_it(images: torch.Tensor) -> None:
    ours = sample_boxes(images[:1], torch.zeros(1, dtype=torch.int64), torch.tensor([[-4, -6, 4, 2]]), (8, 8))
    padded = cv2.copyMakeBorder(images[0].numpy(), 6, 0, 4, 0, cv2.BORDER_REPLICATE)
    assert np.abs(ours[0].permute(1, 2, 0).numpy() - padded[:8, :8]).max() == 0


def test_a_margin_grows_the_box(images: torch.Tensor) -> None:
    frame = torch.zeros(1, dtype=torch.int64)
    grown = sample_boxes(images, frame, torch.tensor([[20.0, 20, 40, 30]]), (10, 30), margin=0.1)
    assert torch.equal(grown, sample_boxes(images, frame, torch.tensor([[18.0, 19, 42, 31]]), (10, 30)))


def test_fractions_of_a_pixel_count() -> None:
    ramp = (torch.arange(100, dtype=torch.float32) + 0.5).view(1, 1, 100, 1).expand(1, 20, 100, 3)
    cut = sample_boxes(ramp, torch.zeros(1, dtype=torch.int64), torch.tensor([[20.3, 4, 60.7, 9]]), (5, 8))
    expected = 20.3 + (torch.arange(8) + 0.5) * (60.7 - 20.3) / 8
    assert torch.allclose(cut[0, 0, 2], expected, atol=1e-3)


def test_nothing_in_nothing_out(images: torch.Tensor) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert sample_boxes(images, none, torch.zeros(0, 4), (24, 94), "cubic").shape == (0, 3, 24, 94)
    assert sample_quads(images, none, torch.zeros(0, 4, 2), (24, 94)).shape == (0, 3, 24, 94)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_quads_are_warped_as_opencv_warps(images: torch.Tensor, mode: Mode) -> None:
    generator = np.random.default_rng(3)
    base = np.array([[20, 20], [60, 20], [60, 40], [20, 40]], dtype=np.float32)
    corners = base + generator.uniform(-8, 8, (12, 4, 2)).astype(np.float32)
    corners[3] -= 30  # partly outside
    frame = torch.from_numpy(generator.integers(0, 3, 12))
    h, w = 24, 94
    ours = sample_quads(images, frame, torch.from_numpy(corners), (h, w), mode)
    target = np.array([[0, 0], [w, 0], [w, h], [0, h]], dtype=np.float32) - 0.5
    for row, quad in enumerate(corners):
        matrix = cv2.getPerspectiveTransform(target, quad - 0.5)  # OpenCV's pixels have their centres at integers
        image = images[int(frame[row])].numpy().astype(np.float32)  # floats: its bytes are rounded to 1/32 pixel
        theirs = cv2.warpPerspective(
            image, matrix, (w, h), flags=CV[mode] | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        )
        gap = np.abs(ours[row].permute(1, 2, 0).numpy() - theirs.clip(0, 255))
        assert np.quantile(gap, 0.99) <= 8 and gap.mean() <= 1.5, row


def test_perspective_takes_corners_to_corners() -> None:
    corners = torch.tensor([[[3.0, 4], [90, 9], [80, 44], [1, 30]]], dtype=torch.float64)
    square = torch.tensor([[0.0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], dtype=torch.float64)
    mapped = square @ square_to_quad(corners)[0].T
    assert torch.allclose(mapped[:, :2] / mapped[:, 2:], corners[0], atol=1e-9)


def test_the_corners_of_a_box_give_the_box(images: torch.Tensor) -> None:
    frame = torch.tensor([1])
    box = sample_boxes(images, frame, torch.tensor([[10.0, 12, 58, 36]]), (24, 48))
    quad = sample_quads(images, frame, torch.tensor([[[10.0, 12], [58, 12], [58, 36], [10, 36]]]), (24, 48))
    assert (box - quad).abs().max() <= 0.01


def test_a_quad_of_no_area_is_finite(images: torch.Tensor) -> None:
    assert torch.isfinite(sample_quads(images, torch.tensor([0]), torch.full((1, 4, 2), 9.0), (4, 4))).all()


def test_points_read_pixels_at_their_centres(images: torch.Tensor) -> None:
    points = torch.tensor([[[[4.5, 6.5], [500.0, -3.0]]]])
    read = sample_points(images, torch.tensor([2]), points)
    assert torch.equal(read[0, :, 0, 0], images[2, 6, 4].float())
    assert torch.equal(read[0, :, 0, 1], images[2, 0, -1].float())
