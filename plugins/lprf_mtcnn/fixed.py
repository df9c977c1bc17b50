"""Detection in tensors of fixed shape, for a GPU: what is computed never depends on what is found.

Candidates fill the rows of buffers, photo by photo, and a mask tells which rows hold one. So nothing here waits for the
device, and a batch can be captured as a CUDA graph. What finds no room is counted. The plates are those of
`detector.decide`, in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lprf.boxes import decode, overlaps
from lprf_mtcnn.params import DetectorParams
from lprf_mtcnn.proposers import CenterNetProposer, Proposer

if TYPE_CHECKING:
    from lprf_mtcnn.detector import Judge


@dataclass(frozen=True)
class Buffers:
    """How many candidates a photo has room for; the best are kept.

    candidates: PNet's, on all scales. crops: those that ONet looks at. plates: after its first pass.
    rounds: of every suppression, the last to see that nothing changes any more.
    On 90 photos of the development sets the most were 547, 199, 4 and 9.
    """

    candidates: int = 1000
    crops: int = 256
    plates: int = 32
    rounds: int = 12

    @classmethod
    def of(cls, params: DetectorParams) -> Buffers:
        """Room that grows with `max_proposals`, as far as the overlaps of all pairs fit in memory."""
        most = min(params.max_proposals, 2000)
        return cls(candidates=2 * most, crops=min(most, max(cls.crops, most // 2)))


@dataclass
class _Missed:
    """Candidates that found no room, and those that a suppression had not settled: int64 []."""

    lost: Tensor
    unsettled: Tensor


class FixedDetection:
    """What proposes and ONet over uint8 BGR [B, H, W, 3], as `decide` puts them together."""

    def __init__(
        self,
        propose: Proposer | CenterNetProposer,
        judge: Judge,
        params: DetectorParams,
        buffers: Buffers | None = None,
    ):
        self.propose, self.judge, self.params = propose, judge, params
        self.buffers = Buffers.of(params) if buffers is None else buffers
        self._scales: dict[tuple[object, ...], tuple[Tensor, ...]] = {}  # small, and kept: a graph reads them

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
        """frame [N], boxes [N, 4], scores [N], corners [N, 4, 2] or None, and told, int64 [3].

        N is the room for plates in all photos. The first told[0] rows are the plates, by frame, then from the best
        down; told[1] candidates found no room, told[2] were not settled when the rounds of a suppression were over.
        """
        none = images.new_zeros((), dtype=torch.int64)
        missed = _Missed(none, none)
        if isinstance(self.propose, Proposer):
            boxes, scores, valid = self._by_pnet(self.propose, images, missed)
        else:
            boxes, scores, valid = self._by_centernet(self.propose, images, missed)
        corners: Tensor | None = None
        for wanted in self.params.plate_scores:
            boxes, scores, corners, valid = self._judged(images, boxes, valid, wanted, missed)
        boxes, valid = _clipped(boxes, valid, images)
        order = (~valid).flatten().to(torch.uint8).argsort(stable=True)
        frame = _frames(valid)
        boxes, scores = boxes.flatten(0, 1)[order], scores.flatten()[order]
        corners = None if corners is None else corners.flatten(0, 1)[order]
        return frame[order], boxes, scores, corners, torch.stack([valid.sum(), missed.lost, missed.unsettled])

    def _by_pnet(self, propose: Proposer, images: Tensor, missed: _Missed) -> tuple[Tensor, Tensor, Tensor]:
        """What is proposed: boxes [B, crops, 4], scores [B, crops] from the best down, and which rows hold one."""
        room, params = self.buffers, self.params
        maps = propose.maps(images)
        if not maps:
            boxes = images.new_zeros((len(images), room.crops, 4), dtype=torch.float32)
            return boxes, boxes[..., 0], torch.zeros_like(boxes[..., 0], dtype=torch.bool)
        scores = torch.cat([part.flatten(1) for part, _ in maps], dim=1)
        offsets = torch.cat([part.flatten(2) for _, part in maps], dim=2).transpose(1, 2)
        index, valid = self._best(scores, scores > params.scores[0], room.candidates, missed)
        scores, offsets = take(index, scores, offsets)
        level, cells = self._cells(propose, index, images, [part for part, _ in maps])
        alike = overlaps(cells, cells)
        within = level.unsqueeze(1) == level.unsqueeze(2)
        valid = self._suppressed((alike > params.nms[0]) & within, valid, missed)
        valid = self._suppressed(alike > params.nms[1], valid, missed)
        index, valid = self._best(scores, valid, room.crops, missed)
        cells, scores, offsets = take(index, cells, scores, offsets)
        boxes = decode(cells.flatten(0, 1), offsets.flatten(0, 1)).view_as(cells)
        return boxes.round() if params.whole_pixels else boxes, scores, valid

    def _by_centernet(
        self, propose: CenterNetProposer, images: Tensor, missed: _Missed
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same, of a CenterNet."""
        room, params = self.buffers, self.params
        scores, boxes = propose.find.every(images)
        index, valid = self._best(scores, scores > params.scores[0], room.candidates, missed)
        scores, boxes = take(index, scores, boxes)
        valid = self._suppressed(overlaps(boxes, boxes, "min") > params.nms[1], valid, missed)
        index, valid = self._best(scores, valid, room.crops, missed)
        boxes, scores = take(index, boxes, scores)
        return boxes, scores, valid

    def _cells(self, propose: Proposer, index: Tensor, images: Tensor, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Of places in the flattened maps [B, rows, columns], one after another: the map, and the cell's box."""
        key = (images.device, images.shape[1:3])
        if key not in self._scales:
            shapes = zip(propose.sizes(images), (part.shape[1:] for part in maps), strict=True)
            rows = [(h * w, w, images.shape[2] / size[1], images.shape[1] / size[0]) for size, (h, w) in shapes]
            counts, columns, across, down = (torch.tensor(column) for column in zip(*rows, strict=True))
            table = (counts.cumsum(0) - counts, columns, across, down)
            self._scales[key] = tuple(column.to(images.device) for column in table)
        first, columns, across, down = self._scales[key]
        level = torch.bucketize(index, first, right=True) - 1
        at, width = index - first[level], columns[level]
        return level, propose.cells(at // width, at % width, across[level], down[level])

    def _judged(
        self, images: Tensor, boxes: Tensor, valid: Tensor, wanted: float, missed: _Missed
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """ONet on boxes [B, K, 4]: boxes, scores above `wanted`, corners, which rows hold one; from the best down."""
        params = self.params
        boxes, valid = _clipped(boxes, valid, images)
        scores, boxes, corners = self.judge(images, _frames(valid), boxes.flatten(0, 1))
        scores, boxes = scores.view(valid.shape), boxes.unflatten(0, valid.shape)
        corners = None if corners is None else corners.unflatten(0, valid.shape)
        boxes = boxes.round() if params.whole_pixels else boxes
        index, valid = self._best(scores, valid & (scores > wanted), valid.shape[1], missed)
        boxes, scores, corners = take(index, boxes, scores, corners)
        valid = self._suppressed(overlaps(boxes, boxes, params.nms_onet) > params.nms[2], valid, missed)
        index, valid = self._best(scores, valid, self.buffers.plates, missed)
        boxes, scores, corners = take(index, boxes, scores, corners)
        return boxes, scores, corners, valid

    def _best(self, scores: Tensor, valid: Tensor, room: int, missed: _Missed) -> tuple[Tensor, Tensor]:
        index, there = best(scores, valid, room)
        missed.lost = missed.lost + valid.sum() - there.sum()
        return index, there

    def _suppressed(self, alike: Tensor, valid: Tensor, missed: _Missed) -> Tensor:
        stays, unsettled = suppressed(alike, valid, self.buffers.rounds)
        missed.unsettled = missed.unsettled + unsettled
        return stays


def best(scores: Tensor, valid: Tensor, room: int) -> tuple[Tensor, Tensor]:
    """In every group of scores [G, N], 0 or more: the `room` best of its valid rows, from the best down.

    Equal scores stand in the order of their rows. Returns index int64 [G, room], and which of it stand for a row.
    """
    count = scores.shape[1]
    later = torch.arange(count - 1, -1, -1, device=scores.device)
    # the bits of a float from 0 up, read as an integer, stand in the order of the floats
    keys = (scores.view(torch.int32).to(torch.int64) << 32) + later
    keys = keys.masked_fill(~valid, -1)
    keys, index = F.pad(keys, (0, max(0, room - count)), value=-1).topk(room, dim=1)
    return index.clamp(max=count - 1), keys >= 0


def suppressed(alike: Tensor, valid: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """Greedy non-maximum suppression of rows from the best down, within each group, as `lprf.boxes.nms`.

    alike: bool [G, N, N], which pairs overlap too much. valid: bool [G, N]. Returns which of the valid rows stay, bool
    [G, N], and how many rows were still to be settled, int64 []: where it is 0 the result is exact.
    """
    beats = torch.triu(alike, diagonal=1)
    before = stays = valid
    for _ in range(rounds):
        before, stays = stays, valid > (beats & stays.unsqueeze(2)).any(1)  # valid, and not beaten by one that stays
    return stays, (before != stays).sum()


def take(index: Tensor, *values: Any) -> list[Any]:
    """Of each of the values, [G, N, ...] or None, the rows at index [G, M]."""
    return [None if value is None else _gathered(value, index) for value in values]


def _gathered(value: Tensor, index: Tensor) -> Tensor:
    trailing = value.shape[2:]
    return value.gather(1, index.view(*index.shape, *[1] * len(trailing)).expand(*index.shape, *trailing))


def _clipped(boxes: Tensor, valid: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes [B, K, 4] cut at the border of `images`, and which of the valid ones have a pixel or more left; the others
    are 0 0 0 0, which no later step stumbles over."""
    height, width = images.shape[1:3]
    boxes = torch.stack([boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)], dim=-1).flatten(-2)
    valid = valid & ((boxes[..., 2:] - boxes[..., :2]) >= 1).all(-1)
    return boxes.masked_fill(~valid.unsqueeze(-1), 0), valid


def _frames(valid: Tensor) -> Tensor:
    """The frame of every row of [B, K], int64 [B * K]."""
    return torch.arange(len(valid), device=valid.device).unsqueeze(1).expand(valid.shape).flatten()
