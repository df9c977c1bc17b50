"""Boxes and corners as offsets from other boxes. Float [N, 4], x1 y1 x2 y2, half-open."""

from __future__ import annotations

import torch
from torch import Tensor


def encode(boxes: Tensor, targets: Tensor) -> Tensor:
    """The offsets [N, 4] that take `boxes` to `targets`, in widths and heights of `boxes`."""
    sizes = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return (targets - boxes) / sizes


def decode(boxes: Tensor, offsets: Tensor) -> Tensor:
    """`boxes` moved by `offsets`: what `encode` undoes."""
    sizes = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return boxes + offsets * sizes


def grown(boxes: Tensor, margin: tuple[float, float]) -> Tensor:
    """`boxes` that reach further on each side, by so many of their widths and heights."""
    if margin == (0, 0):
        return boxes
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    room = torch.stack([width * margin[0], height * margin[1]], dim=1)
    return torch.cat([boxes[:, :2] - room, boxes[:, 2:] + room], dim=1)


def box_corners(boxes: Tensor) -> Tensor:
    """[N, 4] to the boxes' own corners, TL TR BR BL, [N, 4, 2]."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([x1, y1, x2, y1, x2, y2, x1, y2], dim=1).unflatten(1, (4, 2))


def encode_corners(boxes: Tensor, corners: Tensor) -> Tensor:
    """The offsets [N, 4, 2] from the boxes' own corners to `corners`, in widths and heights of `boxes`."""
    sizes = (boxes[:, 2:] - boxes[:, :2]).unsqueeze(1)
    return (corners - box_corners(boxes)) / sizes


def decode_corners(boxes: Tensor, offsets: Tensor) -> Tensor:
    """What `encode_corners` undoes."""
    sizes = (boxes[:, 2:] - boxes[:, :2]).unsqueeze(1)
    return box_corners(boxes) + offsets * sizes
