"""What ONet is asked about: PNet on every scale of an image pyramid, or a CenterNet in its place."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lprf.boxes import best_of_each, decode, nms
from lprf.context import Context
from lprf.network import StandIn, each
from lprf.weights import Weights
from lprf_mtcnn.nets import CELL, FIELD, STRIDE, PNet, for_bgr_bytes
from lprf_mtcnn.params import DetectorParams

STRIP = 15_000  # cells that PNet computes at a time on a CPU: many more, and what lies between leaves its cache
TILE = (8, 6)  # rows, columns of cells that PNet computes about the middle of what a screen saw, at each scale
ALIKE = 1.5  # times as high or wide, or as low or narrow, as what was seen such cells are at most
TILES = 8  # computed at a time
SCREEN_SCORE = 0.2  # from which what a screen saw counts
SEEN = tuple(stride * (count - 1) + field for stride, count, field in zip(STRIDE, TILE, FIELD, strict=True))


@dataclass(frozen=True)
class Cells:
    """Cells of PNet's output: scale, frame, row, column int64 [N], scores [N], offsets [N, 4]."""

    scale: Tensor
    frame: Tensor
    row: Tensor
    column: Tensor
    scores: Tensor
    offsets: Tensor

    @classmethod
    def above(cls, threshold: float, scale: int, scores: Tensor, offsets: Tensor) -> Cells:
        """Those of whole maps of one scale, scores [B, rows, columns] and offsets [B, 4, rows, columns]."""
        frame, row, column = (scores > threshold).nonzero().unbind(1)
        scales = torch.full_like(frame, scale)
        return cls(scales, frame, row, column, scores[frame, row, column], offsets[frame, :, row, column])

    @classmethod
    def joined(cls, parts: Sequence[Cells]) -> Cells:
        return cls(*(torch.cat(values) for values in zip(*(vars(part).values() for part in parts), strict=True)))


@dataclass(frozen=True)
class Proposals:
    """Boxes in a batch of frames: frame int64 [N], boxes [N, 4] in pixels of the frame, scores [N], in any order."""

    frame: Tensor
    boxes: Tensor
    scores: Tensor

    def rows(self, index: Tensor) -> Proposals:
        return Proposals(self.frame[index], self.boxes[index], self.scores[index])


def pyramid(height: int, width: int, min_plate: tuple[int, int], factor: float) -> Iterator[tuple[int, int]]:
    """The sizes (h, w) at which PNet looks at a frame: from that where the smallest plate fills a cell down to PNet's
    window. None where the frame is smaller than that.
    """
    scale = max(CELL[1] / min_plate[0], CELL[0] / min_plate[1])
    for power in itertools.count():
        h, w = (math.ceil(side * scale * factor**power) for side in (height, width))
        if h < FIELD[0] or w < FIELD[1]:
            return
        yield h, w


class Proposer:
    """PNet over a pyramid."""

    def __init__(
        self,
        net: PNet,
        params: DetectorParams,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        told: bool = True,
        screen: CenterNetProposer | None = None,
    ):
        """told: whether to warn of proposals that go beyond `max_proposals`. screen: what says where to look, on a CPU;
        None: everywhere."""
        self.params, self.told, self.screen = params, told, screen
        self.net = for_bgr_bytes(net).to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dtype = dtype
        self.dropped = 0

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Proposals:
        """Proposals in uint8 BGR [B, H, W, 3], regressed, suppressed within and across scales."""
        params, sizes = self.params, self.sizes(images)
        if not sizes:
            none = images.new_zeros(0)
            return Proposals(none.long(), none.new_zeros(0, 4).float(), none.float())
        found = self._found(images)
        group = len(sizes) * found.frame + found.scale  # a frame at one scale
        pixels = [(images.shape[2] / w, images.shape[1] / h) for h, w in sizes]
        across, down = torch.tensor(pixels, device=images.device)[found.scale].unbind(1)
        boxes = self.cells(found.row, found.column, across, down)
        kept = self._best(found.scores, group)
        for among, most in ((group, params.nms[0]), (found.frame, params.nms[1])):
            kept = kept[nms(boxes[kept], found.scores[kept], among[kept], most)]
        kept = kept[self._best(found.scores[kept], found.frame[kept])]
        boxes = decode(boxes[kept], found.offsets[kept])
        return Proposals(found.frame[kept], boxes.round() if params.whole_pixels else boxes, found.scores[kept])

    def sizes(self, images: Tensor) -> list[tuple[int, int]]:
        """The sizes (h, w) at which to look at images [B, H, W, 3]."""
        return list(pyramid(images.shape[1], images.shape[2], self.params.min_plate, self.params.factor))

    def maps(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """PNet on uint8 BGR [B, H, W, 3] at each of `sizes`: float32 scores [B, rows, columns] and offsets
        [B, 4, rows, columns]."""
        if images.device.type == "cpu":
            return self._in_strips(self.net, (_resized(images, size) for size in self.sizes(images)))
        pixels = images.float()  # made once for all sizes
        pictures = (_resized(pixels, size).permute(0, 3, 1, 2) for size in self.sizes(images))
        return [_scored(*given) for given in each(self.net, pictures, self.dtype)]

    def _in_strips(self, net: nn.Module | StandIn, pictures: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """The same of frames [B, h, w, 3] at each size, frame by frame and strip by strip: what is small stays in the
        cache, and each is computed on its own."""
        counts: list[tuple[int, int]] = []  # frames and strips in each, by size

        def strips() -> Iterator[Tensor]:
            for picture in pictures:
                rows, columns = _cells((picture.shape[1], picture.shape[2]))
                high = math.ceil(rows / math.ceil(rows * columns / STRIP))
                tops = range(0, rows, high)
                counts.append((len(picture), len(tops)))
                for frame in picture.permute(0, 3, 1, 2).split(1):
                    for top in tops:
                        yield frame[:, :, STRIDE[0] * top : STRIDE[0] * (min(top + high, rows) - 1) + FIELD[0]]

        given = iter(each(net, strips(), self.dtype))
        maps = []
        for frames, count in counts:
            whole = [zip(*itertools.islice(given, count), strict=True) for _ in range(frames)]
            joined = zip(*([torch.cat(parts, dim=-2) for parts in frame] for frame in whole), strict=True)
            maps.append(_scored(*(torch.cat(parts) for parts in joined)))
        return maps

    def _found(self, images: Tensor) -> Cells:
        """The cells above the first threshold."""
        if self.screen is not None:
            return self._near(images, self.screen(images))
        maps = enumerate(self.maps(images))
        return Cells.joined([Cells.above(self.params.scores[0], scale, *values) for scale, values in maps])

    def _near(self, images: Tensor, seen: Proposals) -> Cells:
        """The same of those alone that lie about the middle of what was seen and are about as large."""
        sizes = self.sizes(images)
        tiles = self._tiles(images, sizes, seen)
        whole: list[tuple[int, Tensor]] = []
        cut: list[tuple[int, Tensor]] = []  # short ones, where the picture ends
        drawn = None
        for index, (scale, frame, row, column) in enumerate(tiles):
            if (scale, frame) != drawn:
                picture, drawn = _resized(images[frame : frame + 1], sizes[scale])[0], (scale, frame)
            top, left = STRIDE[0] * row, STRIDE[1] * column
            pixels = picture[top : top + SEEN[0], left : left + SEEN[1]]
            (whole if pixels.shape[:2] == SEEN else cut).append((index, pixels))
        batches = [whole[first : first + TILES] for first in range(0, len(whole), TILES)] + [[tile] for tile in cut]
        pictures = (torch.stack([pixels for _, pixels in batch]).permute(0, 3, 1, 2) for batch in batches)
        given = each(self.net, pictures, self.dtype)
        threshold = self.params.scores[0]
        found = [Cells.above(threshold, 0, torch.zeros(0, 1, 1), torch.zeros(0, 4, 1, 1))]
        for batch, outputs in zip(batches, given, strict=True):
            its = Cells.above(threshold, 0, *_scored(*outputs))
            scales, frames, rows, columns = torch.tensor([tiles[index] for index, _ in batch])[its.frame].unbind(1)
            found.append(replace(its, scale=scales, frame=frames, row=rows + its.row, column=columns + its.column))
        return Cells.joined(found)

    def _tiles(self, images: Tensor, sizes: list[tuple[int, int]], seen: Proposals) -> list[list[int]]:
        """Where PNet looks: scale, frame, first row and first column of cells; by scale, then by frame."""
        pixel = torch.tensor([(images.shape[1] / h, images.shape[2] / w) for h, w in sizes])  # at each scale
        sides = (seen.boxes[:, 2:] - seen.boxes[:, :2]).flip(1)
        times = sides / (pixel * torch.tensor(CELL))[:, None]  # as high and as wide as a cell is at each scale
        scale, row = ((times.amin(2) <= ALIKE) & (times.amax(2) >= 1 / ALIKE)).nonzero().unbind(1)
        middle = (seen.boxes[row, :2] + seen.boxes[row, 2:]).flip(1) / 2
        size, cell, stride = torch.tensor(TILE), torch.tensor(CELL), torch.tensor(STRIDE)
        first = ((middle / pixel[scale] - cell / 2 - 1) / stride - (size - 1) / 2).round()
        last = (torch.tensor([_cells(size) for size in sizes]) - size).clamp(min=0)[scale]
        first = torch.minimum(first.clamp(min=0), last).long()
        tiles: list[list[int]] = torch.cat([scale[:, None], seen.frame[row, None], first], dim=1).unique(dim=0).tolist()
        return tiles

    def cells(self, row: Tensor, column: Tensor, across: Tensor | float, down: Tensor | float) -> Tensor:
        """The boxes [..., 4] in pixels of the frame of PNet's output cells, where one of its pixels is across x down
        pixels of the frame."""
        x, y = (STRIDE[1] * column + 1).to(torch.float32), (STRIDE[0] * row + 1).to(torch.float32)
        cells = torch.stack([x * across, y * down, (x + CELL[1]) * across, (y + CELL[0]) * down], dim=-1)
        if self.params.whole_pixels:  # and the last pixel is in the box
            cells = cells.round_()
            cells[..., 2:] += 1
        return cells

    def _best(self, scores: Tensor, group: Tensor) -> Tensor:
        kept = best_of_each(scores, group, self.params.max_proposals)
        self.drop(
            len(scores) - len(kept),
            f"more than {self.params.max_proposals} proposals in a photo: the worst were dropped "
            f"(max_proposals, or a higher first threshold)",
        )
        return kept

    def drop(self, count: int, warning: str) -> None:
        """Count candidates that were dropped; the first time that there are any, warn."""
        if count and self.told and not self.dropped:
            warnings.warn(warning, RuntimeWarning, stacklevel=3)
        self.dropped += count


class CenterNetProposer:
    """A CenterNet in PNet's place, or in front of it: it sees a plate's surroundings, and proposes few boxes that are
    none."""

    def __init__(self, weights: Weights, context: Context, **its: Any):
        """its: parameters of `centernet.detector`, but for the weights."""
        from lprf_centernet import detector, net, params  # a plugin of its own, which PNet does without

        self.weights = weights
        self.find = detector.Finder(net.load(weights), params.DetectorParams(**its), context.device, context.dtype)

    @property
    def net(self) -> nn.Module | StandIn:
        return self.find.net

    @property
    def dropped(self) -> int:
        return self.find.dropped

    def __call__(self, images: Tensor) -> Proposals:
        """As a `Proposer`'s."""
        frame, boxes, scores, _ = self.find(images)
        return Proposals(frame, boxes, scores)

    def drop(self, count: int, warning: str) -> None:
        self.find.drop(count, warning)


def _cells(size: tuple[int, int]) -> tuple[int, int]:
    """How many rows and columns of cells PNet gives for a picture (h, w); the last may lie half beyond it."""
    rows, columns = (
        math.ceil((side - field) / stride) + 1 for side, field, stride in zip(size, FIELD, STRIDE, strict=True)
    )
    return rows, columns


def _scored(logits: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """What PNet gives as scores and offsets, in float32."""
    logits = logits.float()
    return (logits[:, 1] - logits[:, 0]).sigmoid(), offsets.float()


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels [B, H, W, 3] at another size, bilinear, as OpenCV does it: whole numbers 0 to 255."""
    if tuple(pixels.shape[1:3]) == size:
        return pixels
    if pixels.device.type == "cpu":
        smaller = pixels.new_empty(len(pixels), *size, 3)
        for image, place in zip(pixels, smaller, strict=True):
            cv2.resize(image.numpy(), size[::-1], dst=place.numpy(), interpolation=cv2.INTER_LINEAR)
        return smaller
    resized = F.interpolate(pixels.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False, antialias=False)
    return resized.round_().permute(0, 2, 3, 1)
