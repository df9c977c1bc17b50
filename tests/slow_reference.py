"""The seed's algorithm word for word, slow and in float32: what the fast path is checked and timed against.

One photo after another, one scale after another from the photo's own size down, boxes one by one in NumPy, one plate
after another through the transformer and LPRNet; nothing folded, nothing batched, nothing kept. It differs from the
seed in its known faults alone: boxes are cut at the border, no plate gives no box, and the first character stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from lprf import weights
from lprf_lprnet.build import build as build_reader
from lprf_mtcnn.nets import load_onet, load_pnet
from lprf_stn.net import build as build_stn
from plain_lprnet import PlainLPRNet

FACTOR = 0.707
THRESHOLDS = (0.6, 0.8)
OVERLAPS = (0.7, 0.7)  # across the scales, and of ONet's boxes


@dataclass(frozen=True)
class Plate:
    """box: x1 y1 x2 y2, pixels, half-open."""

    text: str
    box: tuple[float, float, float, float]


class SlowReader:
    """The seed's networks, from weights named as `lprf weights import` names them."""

    def __init__(self, prefix: str = "seed"):
        self.pnet = load_pnet(weights.find_and_load(f"{prefix}-pnet")).eval()
        self.onet = load_onet(weights.find_and_load(f"{prefix}-onet")).eval()
        self.stn = build_stn(weights.find_and_load(f"{prefix}-stn")).eval()
        net, metadata = build_reader(weights.find_and_load(f"{prefix}-lprnet"))
        self.alphabet = metadata.alphabet
        self.lprnet = PlainLPRNet(len(self.alphabet) + 1).load_ours(net).eval()

    def photo(self, image: np.ndarray) -> list[Plate]:
        """Find and read: uint8 [H, W, 3] BGR."""
        plates = []
        for box in self.detect(image):
            x1, y1, x2, y2 = (round(float(side)) for side in box)
            plates.append(Plate(self.read(image[y1:y2, x1:x2]), (x1, y1, x2, y2)))
        return plates

    @torch.no_grad()
    def detect(self, image: np.ndarray) -> np.ndarray:
        """Boxes [N, 4] of the plates in a photo."""
        height, width = image.shape[:2]
        boxes, scores = [np.empty((0, 4))], [np.empty(0)]
        scale = 1.0
        while height * scale >= 12 and width * scale >= 47:
            size = (int(np.ceil(width * scale)), int(np.ceil(height * scale)))
            pixels = _rgb(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR))
            logits, offsets = (out[0].numpy() for out in self.pnet(pixels))
            score = 1 / (1 + np.exp(np.clip(logits[0] - logits[1], -80, 80)))
            rows, columns = np.nonzero(score > THRESHOLDS[0])
            corner = np.stack([5 * columns + 1, 2 * rows + 1], 1)
            cells = np.round(np.concatenate([corner, corner + np.array([44, 12])], 1) / scale)
            cells[:, 2:] += 1  # the last pixel is in the box
            sides = cells[:, 2:] - cells[:, :2]
            boxes.append(np.round(cells + offsets[:, rows, columns].T * np.tile(sides, 2)))
            scores.append(score[rows, columns])
            scale *= FACTOR
        found, score = np.concatenate(boxes), np.concatenate(scores)
        found = _inside(found[_greedy_nms(found, score, OVERLAPS[0])], image)
        if not len(found):
            return found
        crops = [
            _rgb(cv2.resize(image[y1:y2, x1:x2], (94, 24), interpolation=cv2.INTER_LINEAR))
            for x1, y1, x2, y2 in found.astype(int).tolist()
        ]
        logits, offsets, _ = self.onet(torch.cat(crops))
        score = logits.softmax(1)[:, 1].numpy()
        sides = found[:, 2:] - found[:, :2]
        found = np.round(found + offsets.numpy() * np.tile(sides, 2))
        sure = score > THRESHOLDS[1]
        found, score = found[sure], score[sure]
        return _inside(found[_greedy_nms(found, score, OVERLAPS[1])], image)

    @torch.no_grad()
    def read(self, crop: np.ndarray) -> str:
        """The text of one cut-out plate, by greedy decoding."""
        pixels = cv2.resize(crop, (94, 24), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        x = torch.from_numpy((pixels - 127.5) / 128).permute(2, 0, 1)[None]
        classes = self.lprnet(self.stn(x.contiguous()))[0].argmax(0).tolist()
        blank = len(self.alphabet)
        new = [c for before, c in zip([blank, *classes], classes, strict=False) if c not in (before, blank)]
        return "".join(self.alphabet[c] for c in new)


def _rgb(image: np.ndarray) -> torch.Tensor:
    pixels = (image[:, :, ::-1].astype(np.float32) - 127.5) / 128
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]


def _inside(boxes: np.ndarray, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    boxes = np.clip(boxes, 0, [width, height, width, height])
    return boxes[((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)]


def _greedy_nms(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> list[int]:
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1) * (y2 - y1)
    left, kept = np.argsort(-scores, kind="stable"), []
    while len(left):
        best, rest = left[0], left[1:]
        kept.append(int(best))
        w = np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest])
        h = np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest])
        common = np.maximum(w, 0) * np.maximum(h, 0)
        left = rest[common / (areas[best] + areas[rest] - common) <= overlap]
    return kept


def read_photo(path: Path) -> np.ndarray:
    """uint8 [H, W, 3] BGR."""
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None, path
    return image
