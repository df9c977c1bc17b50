"""Cutting plates out of frames: many boxes of many sizes at once, on any device, as cv2.resize would one by one.

Pixel (x, y) is the square from (x, y) to (x + 1, y + 1); its value stands at its centre. Bilinear and bicubic
(a = -0.75) interpolation as OpenCV defines them; nothing is averaged when a plate is made smaller.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Mode = Literal["linear", "cubic"]


def sample_boxes(
    images: Tensor, frame: Tensor, boxes: Tensor, size: tuple[int, int], mode: Mode = "linear", margin: float = 0.0
) -> Tensor:
    """Cut upright boxes, each resized to `size`.

    images: uint8 [B, H, W, 3], or floats. frame: int64 [N], the row of `images` each box lies in.
    boxes: float [N, 4], x1 y1 x2 y2, half-open; fractions are honoured, a part outside the frame repeats its border.
    size: (h, w). margin: by what part of its width and height a box grows on each side before it is cut.
    Returns float32 [N, 3, h, w] in the range and channel order of `images`.
    Interpolation never looks past the pixels the box touches, so that a box's result is that of its crop alone.
    """
    boxes = boxes.to(torch.float32)
    if margin:
        grow = margin * (boxes[:, 2:] - boxes[:, :2])
        boxes = torch.cat([boxes[:, :2] - grow, boxes[:, 2:] + grow], dim=1)
    height, width = images.shape[1:3]
    rows, row_weights = _axis(boxes[:, 1], boxes[:, 3], size[0], height, mode)
    columns, column_weights = _axis(boxes[:, 0], boxes[:, 2], size[1], width, mode)
    # on a CPU two matrix products take a tenth of the time of gathering 16 pixels for each of the result
    cut = _box_by_box if mode == "cubic" and images.device.type == "cpu" else _all_at_once
    return _in_range(cut(images, frame, rows, row_weights, columns, column_weights), mode)


def _all_at_once(
    images: Tensor, frame: Tensor, rows: Tensor, row_weights: Tensor, columns: Tensor, column_weights: Tensor
) -> Tensor:
    """Cut boxes by what each row and column of the result reads: indices int64 [N, h or w, taps], ascending, and
    weights."""
    height, width = images.shape[1:3]
    n, (h, taps), w = len(rows), rows.shape[1:], columns.shape[1]
    lines = (frame.view(-1, 1, 1) * height + rows) * width
    at = lines.view(n, h * taps, 1) + columns.view(n, 1, w * taps)
    pixels = images.reshape(-1, 3).index_select(0, at.flatten()).to(torch.float32)
    down = row_weights.unsqueeze(2) @ pixels.view(n, h, taps, w * taps * 3)
    down = down.view(n, h, w, taps, 3).permute(0, 4, 1, 2, 3)
    across = column_weights.view(n, 1, 1, w, taps)
    result = down[..., 0] * across[..., 0]
    for tap in range(1, taps):  # quicker than a sum over so short an axis
        result.addcmul_(down[..., tap], across[..., tap])
    return result.contiguous()


def _box_by_box(
    images: Tensor, frame: Tensor, rows: Tensor, row_weights: Tensor, columns: Tensor, column_weights: Tensor
) -> Tensor:
    """As `_all_at_once`."""
    h, w = rows.shape[1], columns.shape[1]
    result = torch.empty(len(rows), 3, h, w)
    limits = torch.stack([frame, rows[:, 0, 0], rows[:, -1, -1] + 1, columns[:, 0, 0], columns[:, -1, -1] + 1], dim=1)
    for box, (row, top, bottom, left, right) in enumerate(limits.tolist()):
        down = torch.zeros(h, bottom - top).scatter_add_(1, rows[box] - top, row_weights[box])
        across = torch.zeros(w, right - left).scatter_add_(1, columns[box] - left, column_weights[box])
        pixels = images[row, top:bottom, left:right].permute(2, 0, 1).to(torch.float32)
        torch.matmul(down @ pixels, across.mT, out=result[box])
    return result


def sample_quads(
    images: Tensor, frame: Tensor, corners: Tensor, size: tuple[int, int], mode: Mode = "linear"
) -> Tensor:
    """Cut quadrilaterals, each warped upright by the perspective transform that takes it to `size`.

    corners: float [N, 4, 2], (x, y) of TL TR BR BL. The rest as `sample_boxes`; the corners of an upright box give
    what its box gives, but for the box's outermost pixels, where this one sees the neighbours.
    A quadrilateral of no area gives some smear of its pixels, never NaN.
    """
    h, w = size
    matrices = square_to_quad(corners.to(torch.float64))
    x = (torch.arange(w, device=images.device, dtype=torch.float64) + 0.5) / w
    y = (torch.arange(h, device=images.device, dtype=torch.float64) + 0.5) / h
    grid = torch.stack([x.expand(h, w), y.view(h, 1).expand(h, w), torch.ones_like(x).expand(h, w)], dim=-1)
    points = torch.einsum("nij,hwj->nhwi", matrices, grid)
    points = points[..., :2] / points[..., 2:].clamp(min=1e-6)  # a convex quadrilateral stays well above
    return sample_points(images, frame, points.to(torch.float32), mode)


def sample_points(images: Tensor, frame: Tensor, points: Tensor, mode: Mode = "linear") -> Tensor:
    """Read images at `points`, float [N, h, w, 2], (x, y) in pixels of the frame; outside, its border repeats.

    The rest as `sample_boxes`.
    """
    n, h, w = points.shape[:3]
    height, width = images.shape[1:3]
    columns, column_weights = _taps(points[..., 0], 0, width - 1, mode)
    rows, row_weights = _taps(points[..., 1], 0, height - 1, mode)
    lines = (frame.view(n, 1, 1, 1) * height + rows) * width
    pixels = images.reshape(-1, 3)
    result = torch.zeros(n * h * w, 3, device=images.device)
    for row in range(rows.shape[-1]):
        for column in range(columns.shape[-1]):
            at = (lines[..., row] + columns[..., column]).flatten()
            weight = (row_weights[..., row] * column_weights[..., column]).view(-1, 1)
            result.addcmul_(pixels.index_select(0, at), weight)
    return _in_range(result.view(n, h, w, 3).permute(0, 3, 1, 2).contiguous(), mode)


def square_to_quad(corners: Tensor) -> Tensor:
    """The perspective transforms [N, 3, 3] that take the unit square to quadrilaterals [N, 4, 2], TL TR BR BL.

    In closed form (P. Heckbert, "Fundamentals of Texture Mapping and Image Warping", 1989).
    """
    x0, x1, x2, x3 = corners[..., 0].unbind(-1)
    y0, y1, y2, y3 = corners[..., 1].unbind(-1)
    dx1, dx2, dx3 = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, dy3 = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    area = dx1 * dy2 - dx2 * dy1
    area = torch.where(area.abs() < 1e-9, torch.full_like(area, 1e-9), area)
    g = (dx3 * dy2 - dx2 * dy3) / area
    h = (dx1 * dy3 - dx3 * dy1) / area
    rows = [x1 - x0 + g * x1, x3 - x0 + h * x3, x0, y1 - y0 + g * y1, y3 - y0 + h * y3, y0, g, h, torch.ones_like(g)]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def _axis(low: Tensor, high: Tensor, count: int, length: int, mode: Mode) -> tuple[Tensor, Tensor]:
    """Where `count` samples from `low` to `high` [N] read an axis of `length`: indices, weights [N, count, taps]."""
    steps = torch.arange(count, device=low.device, dtype=torch.float32) + 0.5
    at = low.unsqueeze(1) + steps * ((high - low) / count).unsqueeze(1)
    first = low.floor().clamp(0, length - 1)
    last = torch.maximum(high.ceil() - 1, first).clamp(0, length - 1)
    return _taps(at, first.view(-1, 1, 1), last.view(-1, 1, 1), mode)


def _taps(at: Tensor, first: Tensor | int, last: Tensor | int, mode: Mode) -> tuple[Tensor, Tensor]:
    """The pixels next to each position, clamped to `first` to `last`, and their weights: [..., 2 or 4]."""
    at = at - 0.5
    below = at.floor()
    t = (at - below).unsqueeze(-1)
    if mode == "linear":
        index = below.unsqueeze(-1) + torch.arange(2, device=at.device)
        weights = torch.cat([1 - t, t], dim=-1)
    else:
        a = -0.75
        index = below.unsqueeze(-1) + torch.arange(-1, 3, device=at.device)
        outer, inner = _cubic_outer(t + 1, a), _cubic_inner(t, a)
        mirrored = _cubic_inner(1 - t, a)
        weights = torch.cat([outer, inner, mirrored, 1 - outer - inner - mirrored], dim=-1)
    index = torch.minimum(torch.maximum(index, _like(first, index)), _like(last, index))
    return index.to(torch.int64), weights


def _like(bound: Tensor | int, values: Tensor) -> Tensor:
    return bound if isinstance(bound, Tensor) else torch.tensor(float(bound), device=values.device)


def _cubic_inner(d: Tensor, a: float) -> Tensor:
    return ((a + 2) * d - (a + 3)) * d * d + 1


def _cubic_outer(d: Tensor, a: float) -> Tensor:
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a


def _in_range(images: Tensor, mode: Mode) -> Tensor:
    return images.clamp_(0, 255) if mode == "cubic" else images
