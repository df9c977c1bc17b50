"""`synth.reletter`: real plates with a drawn first character in place of their own.

Real plates to learn from come from few provinces. A reader that has seen some provinces on real plates and others on
rendered ones alone takes every real plate for one of the first. Here each province comes on real plates.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lprf.data import Dataset, Example, Truth
from lprf.errors import LprfError
from lprf_synth.atlas import CELL, mask
from lprf_synth.plates import kinds, paste_mask, thinning

if TYPE_CHECKING:
    from lprf.context import Context
    from lprf_synth.plugin import ReletterParams

VERSION = 2

HEIGHT = 140  # mm, of a plate of one row to GA 36
WIDTHS = {7: 440, 8: 480}  # mm, by the length of the text
PLACE = (15.5, 25.0)  # mm, top left of the first character's cell
AROUND = 7.0  # mm, what is painted over beside the cell


class Reletter:
    """`copies` of each plate of one row, each with a province drawn by chance; what else a picture has stays."""

    def __init__(self, params: ReletterParams, context: Context):
        self.params = params
        self.seed = context.seed
        self.provinces = next(iter(kinds("cn").values())).provinces
        self.dataset: Dataset | None = None
        self.rows: list[tuple[int, int]] = []
        self.problems: list[str] = []

    def run(self, dataset: Dataset) -> dict[str, Reletter]:
        self.dataset = dataset
        self.problems = list(dataset.problems)
        self.rows = [
            (index, number)
            for index in range(len(dataset))
            for number, plate in enumerate(dataset[index].plates)
            if plate.text and plate.text[0] in self.provinces and len(plate.text) in WIDTHS
        ]
        if not self.rows:
            raise LprfError(f"none of {len(dataset)} pictures has a plate that begins with a province")
        return {"dataset": self}

    def __len__(self) -> int:
        return len(self.rows) * self.params.copies

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        assert self.dataset is not None
        row, number = self.rows[index % len(self.rows)]
        example = self.dataset[row]
        plate = example.plates[number]
        assert plate.text is not None
        rng = np.random.default_rng([self.seed, index])
        province = self.provinces[int(rng.integers(len(self.provinces)))]
        written = replace(plate, text=province + plate.text[1:], attributes={**plate.attributes, "province": province})
        draw = partial(_draw, example, plate, province, int(rng.integers(2**62)))
        return replace(example, source=f"{example.source}#{number}{province}{index}", image=draw, plates=(written,))

    def fingerprint(self) -> str:
        assert self.dataset is not None
        told = f"reletter {VERSION} {self.dataset.fingerprint()} {self.params.copies} {self.seed}"
        return hashlib.sha256(told.encode()).hexdigest()


def _draw(example: Example, plate: Truth, province: str, seed: int) -> np.ndarray:
    return reletter(example.image(), plate, province, np.random.default_rng(seed))


def reletter(image: np.ndarray, plate: Truth, province: str, rng: np.random.Generator) -> np.ndarray:
    """A copy of the picture (uint8 [H, W, 3] BGR) with `province` drawn over the first character of `plate`.

    The plate's own background goes on over the place, its ink and sharpness are those of the character drawn.
    """
    x1, y1, x2, y2 = plate.box
    corners = plate.corners
    if corners is None:
        corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)
    long = WIDTHS[len(plate.text or "")]
    across = float(np.linalg.norm(corners[1] - corners[0]))
    scale = float(np.clip(across / long, 0.25, 2.0))  # pixels a mm, about the picture's own
    left, top = PLACE[0] - AROUND, PLACE[1] - AROUND
    size = (round((CELL[0] + 2 * AROUND) * scale), round((CELL[1] + 2 * AROUND) * scale))
    if min(size) < 6:
        return image
    upright = np.array([[0, 0], [long, 0], [long, HEIGHT], [0, HEIGHT]], np.float32)
    to_patch = cv2.getPerspectiveTransform(
        corners.astype(np.float32) - 0.5, ((upright - (left, top)) * scale - 0.5).astype(np.float32)
    )
    patch = cv2.warpPerspective(image, to_patch, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    patch = patch.astype(np.float32)
    back, ink, grain = _colours(patch)
    grey = patch.mean(2)
    steepest = float(np.quantile(np.hypot(cv2.Sobel(grey, -1, 1, 0), cv2.Sobel(grey, -1, 0, 1)) / 8, 0.99))
    contrast = float(np.abs(ink - back).mean())
    soft = float(np.clip(contrast / (2.5 * max(steepest, 1e-3)), 0.4, 2.5))  # the width of its edges, as a sigma
    width, height = round(CELL[0] * scale * rng.uniform(0.86, 1.0)), round(CELL[1] * scale * rng.uniform(0.9, 1.0))
    weight = round(2 * rng.uniform(6, 11.5) * thinning(province)) / 2
    face = "plate" if rng.random() < 0.75 else "uni"
    glyph = mask(province, face, max(3, width), max(5, height), weight)
    inked = np.zeros((size[1], size[0]), np.uint8)
    middle = np.array(size) / 2 + rng.normal(0, scale, 2)
    paste_mask(inked, glyph, (middle[0], middle[1]))
    cover = cv2.GaussianBlur(inked.astype(np.float32) / 255, (0, 0), soft)[:, :, None]
    drawn = back + (ink - back) * cover
    drawn += cv2.GaussianBlur(rng.standard_normal(drawn.shape, np.float32), (0, 0), 0.6) * 2 * grain
    edge = max(1, round(0.5 * AROUND * scale))
    share = np.zeros((size[1], size[0]), np.float32)
    share[edge:-edge, edge:-edge] = 1
    faded = cv2.blur(share, (2 * edge + 1, 2 * edge + 1))
    there = (image.shape[1], image.shape[0])
    back_flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    laid = cv2.warpPerspective(drawn, to_patch, there, flags=back_flags)
    laid_share = cv2.warpPerspective(faded, to_patch, there, flags=back_flags)
    return np.clip(image + (laid - image) * laid_share[:, :, None], 0, 255).astype(np.uint8)


def _colours(patch: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Background (its shade from top to bottom), ink, and the grain of the background in a float32 [h, w, 3] patch."""
    stop = (cv2.TERM_CRITERIA_MAX_ITER, 8, 0)
    pixels = patch.reshape(-1, 3)
    first = (pixels.sum(1) > np.median(pixels.sum(1))).astype(np.int32)
    _, labels, centres = cv2.kmeans(pixels, 2, first, stop, 1, cv2.KMEANS_USE_INITIAL_LABELS)
    of_back = int(np.bincount(labels.ravel(), minlength=2).argmax())
    direction = centres[1 - of_back] - centres[of_back]
    along = (pixels - centres[of_back]) @ direction
    ink = pixels[along >= np.quantile(along, 0.93)].mean(0)
    quiet = (labels.ravel() == of_back).reshape(patch.shape[:2])[:, :, None]
    shade = (patch * quiet).sum(1) / np.maximum(quiet.sum(1), 1)
    shade[quiet.sum((1, 2)) < 0.2 * patch.shape[1]] = centres[of_back]
    shade = cv2.blur(shade[:, None, :], (1, max(1, patch.shape[0] // 3))).reshape(-1, 1, 3)
    grain = float(np.clip((patch - shade)[np.broadcast_to(quiet, patch.shape)].std() * 0.5, 0, 8))
    return shade.astype(np.float32), ink, grain
