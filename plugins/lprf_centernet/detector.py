"""`centernet.detector`: plates in photos by one network that sees whole cars, at one scale or two."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from lprf.boxes import areas, best_of_each, clipped, decode_corners, nms, overlaps
from lprf.context import Context
from lprf.data import Detections, Frames
from lprf.network import each
from lprf.sampling import sample_boxes
from lprf_centernet.net import SMALLEST, STEP, STRIDE, CenterNet, boxes_of, for_bytes, load, middles
from lprf_centernet.params import DetectorParams

FACTOR = 0.25  # from one level to the next: one finds plates of ten sizes
WIDEST = 224  # pixels: a level that is not wider finds every plate in it
WINDOW = (192, 256)  # h, w of a second look
ENLARGED = 4.0  # at most, and in training
SIDE = 40.0  # square root of a box's area in pixels: what is smaller is looked at again, as large as that
SAME = 0.25  # IoU of what is found then with what was found before, at least
LOOKS = 16  # at a time


def levels(height: int, width: int, min_plate: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The sizes (h, w) at which a frame is looked at: the first shows the smallest plate wanted as large as the
    smallest learnt. Both sides are multiples of 32, so that a frame is stretched a little."""
    scale = max(SMALLEST[0] / min_plate[0], SMALLEST[1] / min_plate[1])
    while True:
        yield tuple(max(STEP, STEP * round(side * scale / STEP)) for side in (height, width))  # type: ignore[misc]
        if max(height, width) * scale <= WIDEST:
            return
        scale *= FACTOR


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels [B, H, W, 3] uint8 at another size, averaged where they become fewer: uint8 [B, 3, h, w]."""
    pictures = images.permute(0, 3, 1, 2)
    if pictures.shape[2:] == size:
        return pictures
    if images.device.type != "cpu":
        pictures = pictures.float()
    smaller = F.interpolate(pictures, size, mode="bilinear", align_corners=False, antialias=True)
    return smaller if smaller.dtype == torch.uint8 else smaller.round_().clamp_(0, 255).to(torch.uint8)


class Finder:
    """The network over frames, and what it says as boxes.

    told: whether to warn of boxes that go beyond `max_proposals`.
    """

    def __init__(
        self,
        net: CenterNet,
        params: DetectorParams,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        told: bool = True,
    ):
        self.params, self.told, self.dtype = params, told, dtype
        self.net = for_bytes(net).to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dropped = 0

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Plates in uint8 BGR [B, H, W, 3], by frame, then from the best down: frame, boxes, scores, corners."""
        sizes = list(levels(images.shape[1], images.shape[2], self.params.min_plate))
        # one frame at a time on a CPU, so that an engine can compute several side by side
        parts = 1 if images.device.type == "cpu" else len(images)
        pictures = (part for size in sizes for part in resized(images, size).split(parts))
        given = iter(each(self.net, pictures, self.dtype, in_turn=len(images) == 1))
        every = []
        for size in sizes:
            for first in range(0, len(images), parts):
                stretch = images.new_tensor((images.shape[2] / size[1], images.shape[1] / size[0]), dtype=torch.float32)
                frame, scores, boxes, corners = self._boxes(*next(given))
                every.append((frame + first, scores, boxes * stretch.repeat(2), corners * stretch))
        frame, scores, boxes, corners = (torch.cat(values) for values in zip(*every, strict=True))
        kept = nms(boxes, scores, frame, self.params.nms, "min")
        frame, boxes, scores, corners = frame[kept], boxes[kept], scores[kept], corners[kept]
        if self.params.second_look is None:
            return frame, boxes, scores, corners
        boxes, scores, corners = self._again(images, frame, boxes, scores, corners)
        sure = (scores > self.params.threshold).nonzero().squeeze(1)
        kept = sure[nms(boxes[sure], scores[sure], frame[sure], self.params.nms, "min")]
        return frame[kept], boxes[kept], scores[kept], corners[kept]

    def _again(
        self, images: Tensor, frame: Tensor, boxes: Tensor, scores: Tensor, corners: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and corners; those of small boxes after another look at each, enlarged.

        A score is the mean of both looks', and the box the second's: 0 and the first's where it does not show again.
        """
        side = areas(boxes).sqrt()
        small = (side < SIDE).nonzero().squeeze(1)
        if not len(small):
            return boxes, scores, corners
        before = boxes[small]
        enlarged = (SIDE / side[small]).clamp(max=ENLARGED)
        size = boxes.new_tensor(WINDOW[::-1]) / enlarged.unsqueeze(1)
        room = boxes.new_tensor([images.shape[2], images.shape[1]])
        first = torch.minimum((before[:, :2] + before[:, 2:] - size) / 2, room - size).clamp(min=0)
        windows = torch.cat([first, first + size], dim=1)
        looks = (
            sample_boxes(images, at, window, WINDOW).round_().to(torch.uint8)
            for at, window in zip(frame[small].split(LOOKS), windows.split(LOOKS), strict=True)
        )
        given = each(self.net, looks, self.dtype)
        logits, distances, offsets = (torch.cat(values).float().flatten(2) for values in zip(*given, strict=True))
        middle = middles(WINDOW[0] // STRIDE, WINDOW[1] // STRIDE, images.device).flatten(0, 1)
        found = torch.stack([boxes_of(middle, its.T) for its in distances])  # [n, cells, 4], in the windows' pixels
        wanted = (before - first.repeat(1, 2)) * enlarged.unsqueeze(1)
        same = overlaps(found, wanted.unsqueeze(1))[..., 0] >= SAME
        score, cell = (logits[:, 0].sigmoid() * same).max(1)
        row = torch.arange(len(small), device=images.device)
        found, offsets = found[row, cell], offsets[row, :, cell].unflatten(1, (4, 2))
        boxes, scores, corners = boxes.clone(), scores.clone(), corners.clone()
        seen = score > 0
        at, back = small[seen], enlarged[seen].view(-1, 1, 1)
        corners[at] = decode_corners(found, offsets)[seen] / back + first[seen].unsqueeze(1)
        boxes[at] = found[seen] / back[..., 0] + first[seen].repeat(1, 2)
        scores[small] = (scores[small] + score) / 2
        return boxes, scores, corners

    def every(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What it says of all cells at all levels: scores [B, N], boxes [B, N, 4]. For a GPU: it waits for nothing."""
        scores, boxes = [], []
        for size in levels(images.shape[1], images.shape[2], self.params.min_plate):
            logits, distances, _ = self.net(resized(images, size).to(self.dtype))
            middle = middles(logits.shape[2], logits.shape[3], images.device).flatten(0, 1)
            told = distances.float().flatten(2).transpose(1, 2)
            its = boxes_of(middle.repeat(len(images), 1), told.flatten(0, 1)).view_as(told)
            across, down = images.shape[2] / size[1], images.shape[1] / size[0]
            boxes.append(torch.stack([its[..., 0::2] * across, its[..., 1::2] * down], dim=-1).flatten(-2))
            scores.append(logits.float().sigmoid().flatten(1))
        return torch.cat(scores, dim=1), torch.cat(boxes, dim=1)

    def _boxes(self, logits: Tensor, distances: Tensor, corners: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What counts at one level: frame, scores, boxes [N, 4] and corners [N, 4, 2] in its pixels."""
        scores = logits.float().sigmoid()[:, 0]
        least = self.params.threshold if self.params.second_look is None else self.params.second_look
        frame, row, column = (scores > least).nonzero().unbind(1)
        kept = best_of_each(scores[frame, row, column], frame, self.params.max_proposals)
        most = self.params.max_proposals
        self.drop(
            len(frame) - len(kept),
            f"more than {most} boxes in a photo: the worst were dropped (max_proposals, or a higher threshold)",
        )
        frame, row, column = frame[kept], row[kept], column[kept]
        middle = middles(scores.shape[1], scores.shape[2], scores.device)[row, column]
        boxes = boxes_of(middle, distances[frame, :, row, column].float())
        points = decode_corners(boxes, corners[frame, :, row, column].float().unflatten(1, (4, 2)))
        return frame, scores[frame, row, column], boxes, points

    def drop(self, count: int, warning: str) -> None:
        """Count candidates that were dropped; the first time that there are any, warn."""
        if count and self.told and not self.dropped:
            warnings.warn(warning, RuntimeWarning, stacklevel=4)
        self.dropped += count


class CenterNetDetector:
    """`centernet.detector`.

    dropped: how many boxes so far went beyond `max_proposals`.
    """

    def __init__(self, params: DetectorParams, context: Context):
        self.weights = context.weights(params.weights)
        self.find = Finder(load(self.weights), params, context.device, context.dtype)

    @property
    def dropped(self) -> int:
        return self.find.dropped

    def __call__(self, frames: Frames) -> Detections:
        """Find plates and their corners: boxes inside the frame, by frame, then from the best down."""
        return found(self.find, frames)


def found(find: Finder, frames: Frames) -> Detections:
    """What a network finds in frames, cut at their borders."""
    frame, boxes, scores, corners = find(frames.images)
    boxes, inside = clipped(boxes, frames.images)
    return Detections(frames, frame[inside], boxes[inside], scores[inside], corners[inside])
