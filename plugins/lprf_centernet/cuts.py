"""What the single-shot detector learns from: parts of photos at some scale, and what the network's cells are to say."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lprf.boxes import areas
from lprf.builtin.augment import jpeg, noise, recolour, relight
from lprf.data import Truth
from lprf_centernet.detector import ENLARGED, resized
from lprf_centernet.net import STRIDE, middles
from lprf_centernet.params import TrainerParams

CUT = (256, 320)  # h, w of what is learnt from
PLATE, NOTHING, IGNORED = 1, 0, -1
SIDES = (7.0, 110.0)  # square roots of the areas that plates are scaled to, from 12 x 4 to 190 x 63 pixels
KNOWN = (5.0, 130.0)  # of those that are learnt: smaller and larger ones count neither way
SHRUNK = 0.7  # a photo fills that much of a cut at least, either way
STRETCH = 0.08  # spread of the logarithm of each side's scale about their common one
MIDDLE = (0.2, 0.25)  # how far from a plate's middle its cells reach, in its widths and heights
REACH = (12.0, 6.0)  # and in pixels, at most
SEEN = 0.95  # share of a plate that must be in a cut for it to be learnt
MOST = 32  # plates a cut


def cut(
    image: np.ndarray, plates: list[Truth], params: TrainerParams, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A part of a photo at some scale, and what its cells are to say.

    Gives the picture uint8 [256, 320, 3] BGR, boxes [32, 4] and corners [32, 4, 2] (NaN where unknown) in it, and for
    each cell [64, 80] its label int8 and which of the boxes it stands for uint8.
    """
    boxes = torch.tensor([plate.box for plate in plates], dtype=torch.float32).view(-1, 4)
    unknown = np.full((4, 2), np.nan, np.float32)
    known = [unknown if plate.corners is None else np.asarray(plate.corners, np.float32) for plate in plates]
    corners = torch.from_numpy(np.stack([unknown, *known])[1:])
    aim = boxes[int(rng.integers(len(boxes)))] if len(boxes) and rng.random() < params.aimed else None
    left, top, width, height = _window(image.shape[:2], aim, rng)
    picture = _resampled(image, left, top, width, height, int(rng.integers(256)))
    picture = torch.from_numpy(_changed(picture.numpy(), rng, params.strength))
    offset, scale = torch.tensor([left, top]), torch.tensor([CUT[1] / width, CUT[0] / height])
    boxes = ((boxes.view(-1, 2, 2) - offset) * scale).view(-1, 4)
    corners = (corners - offset) * scale
    inside = ((boxes[:, 2:] > 0) & (boxes[:, :2] < torch.tensor([CUT[1], CUT[0]]))).all(1).nonzero().flatten()[:MOST]
    boxes, corners = boxes[inside], corners[inside]
    labels, which = label(boxes)
    unused = MOST - len(boxes)  # of the rows, so that cuts can be stacked
    boxes, corners = F.pad(boxes, (0, 0, 0, unused)), F.pad(corners, (0, 0, 0, 0, 0, unused), value=math.nan)
    return picture, boxes, corners, labels, which.clamp(min=0).to(torch.uint8)


def label(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """What the cells [64, 80] of a cut are, int8: PLATE at a plate's middle, IGNORED around it and on what counts
    neither way, else NOTHING; and which of `boxes` [N, 4] each PLATE stands for, -1 elsewhere."""
    rows, columns = CUT[0] // STRIDE, CUT[1] // STRIDE
    labels = torch.full((rows, columns), NOTHING, dtype=torch.int8)
    which = torch.full((rows, columns), -1, dtype=torch.int64)
    middle = middles(rows, columns, torch.device("cpu"))
    low, high = boxes[:, :2].clamp(min=0), torch.minimum(boxes[:, 2:], torch.tensor([float(CUT[1]), float(CUT[0])]))
    seen = (high - low).clamp(min=0).prod(1) / areas(boxes).clamp(min=1e-6)
    side = areas(boxes).sqrt()
    learnt = (seen >= SEEN) & (side >= KNOWN[0]) & (side <= KNOWN[1])
    for index in side.argsort(descending=True).tolist():  # the smaller on top
        if seen[index] <= 0:
            continue
        if not learnt[index]:
            inside = ((middle >= boxes[index, :2]) & (middle <= boxes[index, 2:])).all(-1)
            labels[inside & (labels == NOTHING)] = IGNORED
            continue
        centre, size = (boxes[index, :2] + boxes[index, 2:]) / 2, boxes[index, 2:] - boxes[index, :2]
        away = (middle - centre).abs()
        reach = torch.minimum(size * torch.tensor(MIDDLE), torch.tensor(REACH))
        around = (away <= reach + STRIDE).all(-1)
        labels[around & (labels == NOTHING)] = IGNORED
        core = (away <= reach).all(-1)
        nearest = away.square().sum(-1).argmin()
        core.view(-1)[nearest] = True
        labels[core], which[core] = PLATE, index
    return labels, which


def _window(shape: tuple[int, ...], aim: Tensor | None, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Which part of a photo of `shape` becomes a cut: left, top, width, height in pixels; with `aim` whole in it."""
    height, width = shape
    if aim is None:
        x1, y1, x2, y2 = 0.0, 0.0, float(width), float(height)
        lowest = max(CUT[0] / height, CUT[1] / width)
        scale = math.exp(rng.uniform(math.log(min(lowest, 1.2)), math.log(1.5)))
    else:
        x1, y1, x2, y2 = aim.tolist()
        side = math.exp(rng.uniform(math.log(SIDES[0]), math.log(SIDES[1])))
        fits = min(CUT[0] / height, CUT[1] / width)  # at which all of the photo is seen
        scale = min(ENLARGED, max(side / math.sqrt((x2 - x1) * (y2 - y1)), SHRUNK * fits))
    spans = []
    for low, high, length, pixels in ((x1, x2, width, CUT[1]), (y1, y2, height, CUT[0])):
        wanted = max(2, round(pixels / (scale * math.exp(rng.normal(0, STRETCH)))))
        if aim is not None:
            first, last = sorted((high - wanted, low))
        else:
            first, last = sorted((0.0, float(length - wanted)))
        begin = rng.uniform(first, last)
        if wanted <= length:  # inside the photo where it can be
            begin = min(max(begin, 0.0), float(length - wanted))
        spans.append((round(begin), wanted))
    (left, wide), (top, tall) = spans
    return left, top, wide, tall


def _resampled(image: np.ndarray, left: int, top: int, width: int, height: int, grey: int) -> Tensor:
    """That part of an image as a cut uint8 [256, 320, 3], grey where there is no image."""
    y1, y2, x1, x2 = max(0, top), min(image.shape[0], top + height), max(0, left), min(image.shape[1], left + width)
    part = image[y1:y2, x1:x2]
    if part.shape[:2] != (height, width):
        whole = np.full((height, width, 3), grey, np.uint8)
        whole[y1 - top : y2 - top, x1 - left : x2 - left] = part
        part = whole
    return resized(torch.from_numpy(np.ascontiguousarray(part)).unsqueeze(0), CUT)[0].permute(1, 2, 0).contiguous()


def _changed(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Other light, colours, sharpness and noise: uint8 [h, w, 3] BGR."""
    dice = rng.random(4)
    image = relight(image, rng, strength)
    if dice[0] < strength:
        image = recolour(image, rng, strength)
    if dice[1] < strength / 2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.4 + strength))
    if dice[2] < strength / 2:
        image = noise(image, rng, strength)
    if dice[3] < strength:
        image = jpeg(image, rng, strength)
    return np.ascontiguousarray(image)
