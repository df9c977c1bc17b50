"""Boxes: overlap, non-maximum suppression, other boxes and corners as offsets from them.

Float [N, 4], x1 y1 x2 y2, half-open.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Overlap = Literal["union", "min"]

AT_ONCE = 256  # boxes that `nms` compares with each other: twice as many take four times the memory


def areas(boxes: Tensor) -> Tensor:
    """[..., 4] to [...]."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def overlaps(a: Tensor, b: Tensor, mode: Overlap = "union") -> Tensor:
    """Every box of `a` [..., N, 4] with every one of `b` [..., M, 4]: their common area as a part of their union, or
    of the smaller box ("min"); [..., N, M]."""
    # coordinate by coordinate, each in one piece: rows of four take seven times as long
    ax1, ay1, ax2, ay2 = (side.contiguous()[..., :, None] for side in a.unbind(-1))
    bx1, by1, bx2, by2 = (side.contiguous()[..., None, :] for side in b.unbind(-1))
    wide = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp_(min=0)
    high = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp_(min=0)
    common = wide * high
    of_a, of_b = areas(a)[..., :, None], areas(b)[..., None, :]
    whole = torch.minimum(of_a, of_b) if mode == "min" else of_a + of_b - common
    return common / whole.clamp(min=1e-9)


def encode(boxes: Tensor, targets: Tensor) -> Tensor:
    """The offsets [N, 4] that take `boxes` to `targets`, in widths and heights of `boxes`."""
    sizes = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return (targets - boxes) / sizes


def decode(boxes: Tensor, offsets: Tensor) -> Tensor:
    """`boxes` moved by `offsets`: what `encode` undoes."""
    sizes = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return boxes + offsets * sizes


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


def clipped(boxes: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes cut at the border of `images` [B, H, W, 3], and the rows of those of which a pixel or more is left."""
    height, width = images.shape[1:3]
    limit = boxes.new_tensor([width, height, width, height])
    boxes = torch.minimum(boxes.clamp(min=0), limit)
    return boxes, ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(dim=1).nonzero().squeeze(1)


def best_of_each(scores: Tensor, group: Tensor, limit: int) -> Tensor:
    """The rows of the `limit` best scores of every group, int64, by group, then from the best down.

    Equal scores stand in the order of their rows.
    """
    order = scores.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    return order if len(order) <= limit else order[_rank(group[order]) < limit]


def nms(boxes: Tensor, scores: Tensor, group: Tensor, threshold: float, mode: Overlap = "union") -> Tensor:
    """Greedy non-maximum suppression within each group, exact.

    scores, group: [N]; boxes of different groups never meet. A box goes where a better one that stays overlaps it by
    more than `threshold`. Returns the rows that stay, by group, then from the best down.
    """
    order = best_of_each(scores, group, len(scores))
    stay = order[:0]
    if not len(order):
        return stay
    for part in order.split(AT_ONCE):  # by group, from the best down, so that what stays of those before is settled
        before = stay[group[stay] == group[part[0]]]  # of a group that began there
        if len(before):
            beaten = _alike(boxes, group, before, part, threshold, mode).any(0)
            part = part[~beaten]
        stay = torch.cat([stay, _staying(_alike(boxes, group, part, part, threshold, mode), part)])
    return stay


def _alike(boxes: Tensor, group: Tensor, a: Tensor, b: Tensor, threshold: float, mode: Overlap) -> Tensor:
    """Which of the rows `a` and `b` are of one group and overlap too much, bool [len(a), len(b)]."""
    return (overlaps(boxes[a], boxes[b], mode) > threshold) & (group[a][:, None] == group[b])


def _staying(alike: Tensor, rows: Tensor) -> Tensor:
    """What suppression leaves of rows, within each group from the best down."""
    beats = alike.float().triu(diagonal=1)  # [i, j]: box i is better than box j
    stays = beats.new_ones(len(rows))
    while True:  # of k boxes the first k are settled after k rounds; in practice two or three rounds do
        again = (stays @ beats == 0).float()  # by how many that stay each is beaten
        if torch.equal(again, stays):
            return rows[stays.bool()]
        stays = again


def _rank(group: Tensor) -> Tensor:
    """Each row's place within its group; rows of one group stand together."""
    at = torch.arange(len(group), device=group.device)
    first = torch.ones_like(group, dtype=torch.bool)
    first[1:] = group[1:] != group[:-1]
    return at - torch.where(first, at, 0).cummax(0).values if len(group) else at
