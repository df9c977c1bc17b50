"""What ONet is asked about: PNet on every scale of an image pyramid, or a CenterNet in its place."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

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
SCREEN = 0.7  # of the first threshold, for a rough look: bfloat16 gave 12,000 cells above it 0.92 of it or more
DENSE = 0.02  # of all cells: where the rough look finds more, all are computed anew
FIELDS = 32  # cells computed anew at a time


@dataclass(frozen=True)
class Cells:
    """Cells of PNet's output at one scale: frame, row, column int64 [N], scores [N], offsets [N, 4]."""

    frame: Tensor
    row: Tensor
    column: Tensor
    scores: Tensor
    offsets: Tensor

    @classmethod
    def above(cls, threshold: float, scores: Tensor, offsets: Tensor) -> Cells:
        """Those of whole maps, scores [B, rows, columns] and offsets [B, 4, rows, columns]."""
        frame, row, column = (scores > threshold).nonzero().unbind(1)
        return cls(frame, row, column, scores[frame, row, column], offsets[frame, :, row, column])

    @classmethod
    def joined(cls, parts: list[Cells]) -> Cells:
        return cls(*(torch.cat(values) for values in zip(*(vars(part).values() for part in parts), strict=True)))

    def rows(self, index: Tensor) -> Cells:
        return Cells(*(values[index] for values in vars(self).values()))


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
    ):
        """told: whether to warn of proposals that go beyond `max_proposals`."""
        self.params, self.told = params, told
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
        levels = self._found(images)
        found = Cells.joined(levels)
        level = torch.cat([torch.full_like(cells.frame, index) for index, cells in enumerate(levels)])
        group = len(sizes) * found.frame + level  # a frame at one scale
        boxes = torch.cat(
            [
                self.cells(cells.row, cells.column, images.shape[2] / w, images.shape[1] / h)
                for cells, (h, w) in zip(levels, sizes, strict=True)
            ]
        )
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
                height, width = picture.shape[1:3]
                rows, columns = (  # of cells; the last may lie half beyond the picture
                    math.ceil((side - field) / stride) + 1
                    for side, field, stride in zip((height, width), FIELD, STRIDE, strict=True)
                )
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

    def _found(self, images: Tensor) -> list[Cells]:
        """The cells above the first threshold at each of `sizes`.

        Where there is a rough PNet too, that says which cells may be; they are computed anew, each from what it sees.
        """
        threshold = self.params.scores[0]
        rough = self.net.rough if isinstance(self.net, StandIn) else None
        if rough is not None:
            pictures: list[Tensor] = []  # kept as they are drawn, one while that before it is computed

            def drawn() -> Iterator[Tensor]:
                for size in self.sizes(images):
                    pictures.append(_resized(images, size))
                    yield pictures[-1]

            maps = self._in_strips(rough, drawn())
            found = [Cells.above(SCREEN * threshold, *level) for level in maps]
            if pictures and sum(len(cells.frame) for cells in found) <= DENSE * sum(
                scores.numel() for scores, _ in maps
            ):
                return [cells.rows(cells.scores > threshold) for cells in self._anew(pictures, found)]
        return [Cells.above(threshold, *level) for level in self.maps(images)]

    def _anew(self, pictures: list[Tensor], found: list[Cells]) -> list[Cells]:
        """Cells of frames [B, h, w, 3] at each size, with what PNet gives for the pixels that each sees alone."""
        counts = [len(cells.frame) for cells in found]
        places, fields, parts = [], [], []  # of all cells, by size: which they are, and what they see
        for before, picture, cells in zip(itertools.accumulate(counts, initial=0), pictures, found, strict=False):
            top, left = STRIDE[0] * cells.row, STRIDE[1] * cells.column
            whole = (top + FIELD[0] <= picture.shape[1]) & (left + FIELD[1] <= picture.shape[2])
            seen = picture.unfold(1, FIELD[0], STRIDE[0]).unfold(2, FIELD[1], STRIDE[1])
            fields.append(seen[cells.frame[whole], cells.row[whole], cells.column[whole]])
            places.append(before + whole.nonzero().squeeze(1))
            for index in (~whole).nonzero():  # at an edge, where they see less
                y, x = int(top[index]), int(left[index])
                edge = picture[cells.frame[index], y : y + FIELD[0], x : x + FIELD[1]]
                parts.append((before + index, edge.permute(0, 3, 1, 2)))
        place, field = torch.cat(places), torch.cat(fields)
        for first in range(0, len(place), FIELDS):  # the last filled up: a new shape takes an engine time and memory
            index = torch.arange(first, first + FIELDS).clamp(max=len(place) - 1)
            parts.append((place[index], field[index]))
        scores, offsets = torch.empty(sum(counts)), torch.empty(sum(counts), 4)
        given = each(self.net, (pixels for _, pixels in parts), self.dtype)
        for (index, _), outputs in zip(parts, given, strict=True):
            of_scores, of_offsets = _scored(*outputs)
            scores[index], offsets[index] = of_scores[:, 0, 0], of_offsets[:, :, 0, 0]
        anew = zip(found, scores.split(counts), offsets.split(counts), strict=True)
        return [replace(cells, scores=scores, offsets=offsets) for cells, scores, offsets in anew]

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
    """A CenterNet in PNet's place: it sees a plate's surroundings, and proposes few boxes that are none."""

    def __init__(self, weights: Weights, params: DetectorParams, context: Context):
        from lprf_centernet import detector, net  # a plugin of its own, which PNet does without
        from lprf_centernet.params import DetectorParams as Params

        its = Params(
            min_plate=params.min_plate,
            threshold=params.scores[0],
            nms=params.nms[1],
            max_proposals=params.max_proposals,
        )
        self.find = detector.Finder(net.load(weights), its, context.device, context.dtype)

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
