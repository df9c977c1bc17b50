"""Augmentation of plate pictures: what cameras, weather and careless crops do to them.

One `strength` from 0 (almost nothing) to 1 (as bad as street cameras get) drives everything, so that a curriculum
has one number to raise. All randomness comes from the generator handed in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from lprf.data import Dataset, Example

if TYPE_CHECKING:
    from lprf.builtin.params import AugmentParams
    from lprf.context import Context


def augment(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """A changed copy of a plate crop: moved a little, then degraded.

    image: uint8 [H, W, 3] BGR; so is the result, of the same size. strength: 0 to 1.
    """
    return degrade(move(image, rng, strength), rng, strength)


def move(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Shift the corners, each on its own and all together: shift, zoom, roll, shear, perspective. uint8 [H, W, 3]."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    own = rng.normal(0, 0.012 + 0.03 * strength, (4, 2))
    grow = 1 + rng.normal(-0.01, 0.02 + 0.04 * strength, 2)  # below 1 cuts the borders off
    shift = rng.normal(0, 0.01 + 0.02 * strength, 2)
    shear = rng.normal(0, 0.02 + 0.06 * strength)  # both in parts of the height
    roll = rng.normal(0, 0.02 + 0.06 * strength)
    source = (corners - 0.5) * grow + 0.5 + shift + own
    source[:, 0] += (corners[:, 1] - 0.5) * shear * height / width
    source[:, 1] += (corners[:, 0] - 0.5) * roll * min(3.0, width / height)
    size = np.array([width, height], np.float32)
    matrix = cv2.getPerspectiveTransform((source * size).astype(np.float32), corners * size)
    return cv2.warpPerspective(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def degrade(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Light, colour, glare, shadow, blur, lost resolution, noise, JPEG and erased parts. uint8 [H, W, 3] BGR."""
    dice = rng.random(16)
    s = float(strength)
    if dice[0] < 0.25 + 0.35 * s:
        image = recolour(image, rng, s)
    image = relight(image, rng, s)
    if dice[1] < 0.15 + 0.45 * s:
        image = shade(image, rng, s)
    if dice[2] < 0.12 * s:
        image = dirty(image, rng, s)
    if dice[3] < 0.08 + 0.42 * s:
        image = shrink(image, rng, s)
    if dice[4] < 0.15 + 0.3 * s:
        image = blur(image, rng, s)
    if dice[5] < 0.25 * s:
        image = motion_blur(image, rng, s)
    if dice[6] < 0.3 + 0.3 * s:
        image = noise(image, rng, s)
    if dice[7] < 0.1 + 0.1 * s:
        image = sharpen(image, rng)
    if dice[8] < 0.3 + 0.3 * s:
        image = jpeg(image, rng, s)
    if dice[9] < 0.08 * s:
        image = erase(image, rng)
    return image


def recolour(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Turn hues and change the saturation, by one 3 x 3 matrix; now and then swap channels or drop all colour."""
    chance = rng.random()
    if chance < 0.04:
        return np.ascontiguousarray(image[:, :, rng.permutation(3)])
    saturation = 0.0 if chance < 0.08 else float(np.clip(rng.normal(1, 0.15 + 0.3 * strength), 0, 2.2))
    angle = rng.normal(0, 0.08 + 0.2 * strength)
    axis = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) * axis + np.sin(angle) * cross
    return cv2.transform(image, saturation * turn + (1 - saturation) * axis)


_RAMP = np.linspace(0, 1, 256, dtype=np.float32)[:, None]


def relight(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Exposure, contrast, haze, gamma and white balance as one table a channel."""
    gamma = np.exp(rng.normal(0, 0.08 + 0.3 * strength))
    tint = np.exp(rng.normal(0, 0.03 + 0.09 * strength, 3))
    gain = np.exp(rng.normal(0.0, 0.08 + 0.22 * strength))
    if rng.random() < 0.2 * strength:
        gain *= rng.uniform(0.15, 0.6)  # dusk and night
    gain = max(gain, 22 / max(1.0, sum(cv2.mean(image)[:3]) / 3))  # not so dark that nothing can be read
    low = rng.uniform(0, 0.05 + 0.25 * strength) if rng.random() < 0.3 else 0.0  # haze lifts the darks
    table = (_RAMP**gamma) * (gain * tint) * (1 - low) + low
    return cv2.LUT(image, np.clip(table * 255, 0, 255).astype(np.uint8)[:, None, :])


def shade(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Uneven light: a slope, the hard edge of a shadow, or a glare."""
    height, width = image.shape[:2]
    kind = rng.random()
    if kind < 0.4:
        corners = 1 + rng.uniform(-0.5, 0.5, (2, 2)) * (0.3 + 0.7 * strength)
        light = cv2.resize(corners.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    elif kind < 0.75:
        dark = rng.uniform(0.35, 0.85) if strength > 0.3 else rng.uniform(0.6, 0.9)
        light = np.full((height, width), 1, np.float32)
        angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3)
        middle = np.array([width * (0.5 + offset), height * (0.5 + offset)])
        along = np.array([np.cos(angle), np.sin(angle)]) * 2 * width
        across = np.array([-along[1], along[0]])
        half = np.array([middle - along, middle + along, middle + along + across, middle - along + across])
        cv2.fillConvexPoly(light, half.astype(np.int32), float(dark))
        if min(height, width) > 8:
            light = cv2.blur(light, (3, 3))
    else:
        x = (np.arange(width, dtype=np.float32) / width - rng.uniform(0, 1)) / rng.uniform(0.08, 0.35)
        y = (np.arange(height, dtype=np.float32) / height - rng.uniform(0, 1)) / rng.uniform(0.2, 1.0)
        glare = np.exp(-(y[:, None] ** 2) - x[None, :] ** 2) * (rng.uniform(40, 120) + 110 * strength)
        return cv2.add(image, cv2.merge([glare.astype(np.uint8)] * 3))
    return np.clip(image * light[:, :, None], 0, 255).astype(np.uint8)


def dirty(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Blotches of mud or worn paint: soft noise of two sizes that pulls toward one colour."""
    height, width = image.shape[:2]
    coarse = cv2.resize(rng.random((4, 10), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(rng.random((12, 40), np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    amount = np.clip((0.6 * coarse + 0.4 * fine - rng.uniform(0.45, 0.65)) * 4, 0, 0.35 + 0.4 * strength)[:, :, None]
    mud = np.array([60, 80, 95], np.float32) * rng.uniform(0.3, 1.8)
    return np.clip(image + (mud - image) * amount, 0, 255).astype(np.uint8)


_DOWN = (cv2.INTER_AREA, cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_NEAREST)
_UP = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_CUBIC)


def shrink(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Lose resolution: made smaller and back, the plate no narrower than about 36 pixels."""
    height, width = image.shape[:2]
    least = max(36 / width, 0.75 - 0.5 * strength)
    if least >= 1:
        return image
    factor = rng.uniform(least, 1.0)
    small = (max(2, round(width * factor)), max(2, round(height * np.clip(factor * rng.uniform(0.85, 1.3), 0.3, 1))))
    down = _DOWN[int(rng.integers(len(_DOWN)))]
    up = _UP[int(rng.integers(len(_UP)))]
    return cv2.resize(cv2.resize(image, small, interpolation=down), (width, height), interpolation=up)


def blur(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Out of focus, by up to about a 1/60 of the width."""
    sigma = rng.uniform(0.2, 0.5 + 1.0 * strength) * max(1.0, image.shape[1] / 94)
    return cv2.GaussianBlur(image, (0, 0), sigma)


def motion_blur(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Moved while the shutter was open: along a line, mostly level."""
    length = max(2.0, rng.uniform(1.5, 2 + 4.5 * strength) * max(1.0, image.shape[1] / 94))
    angle = rng.normal(0, 0.35) if rng.random() < 0.7 else rng.uniform(0, np.pi)
    if abs(np.sin(angle)) > 0.5:
        length = max(2.0, length * 0.6)  # characters are less high than the plate is wide
    side = int(np.ceil(length)) | 1
    kernel = np.zeros((side, side), np.float32)
    reach = np.array([np.cos(angle), np.sin(angle)]) * (length - 1) / 2
    start, end = (side // 2 - reach) * 16, (side // 2 + reach) * 16
    cv2.line(kernel, tuple(int(v) for v in start), tuple(int(v) for v in end), 1.0, 1, cv2.LINE_8, 4)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def noise(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Sensor noise, partly shared by the channels, fine or in coarse grains; never so much that it drowns the text."""
    height, width = image.shape[:2]
    contrast = float(cv2.meanStdDev(image)[1].max())
    sigma = min(rng.uniform(1, 4 + 12 * strength), 0.5 * contrast)
    grain = rng.random() < 0.3
    shape = (max(1, height // 2), max(1, width // 2), 3) if grain else (height, width, 3)
    grains: Any = rng.standard_normal(shape, np.float32) * np.float32(sigma)
    if rng.random() < 0.5:
        grains = grains * 0.5 + grains[:, :, :1] * 0.8
    if grain:
        grains = cv2.resize(grains, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(image + grains, 0, 255).astype(np.uint8)


def sharpen(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The bright rims that phones draw around edges."""
    soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.7, 1.5))
    amount = rng.uniform(0.3, 1.2)
    return cv2.addWeighted(image, 1 + amount, soft, -amount, 0)


def jpeg(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Through JPEG and back, at a quality from 95 down to 20."""
    quality = int(rng.uniform(85 - 65 * strength, 96))
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    back = cv2.imdecode(data, cv2.IMREAD_COLOR) if done else None
    return image if back is None else back


def erase(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hide a small part, less than a character, behind one colour."""
    height, width = image.shape[:2]
    w, h = int(width * rng.uniform(0.02, 0.07)) + 1, int(height * rng.uniform(0.15, 0.6)) + 1
    x, y = int(rng.integers(0, max(1, width - w))), int(rng.integers(0, max(1, height - h)))
    result = image.copy()
    result[y : y + h, x : x + w] = rng.integers(0, 256, 3) if rng.random() < 0.5 else image.mean((0, 1))
    return result


class Augmented:
    """`core.augment`: a dataset of crops whose pictures are augmented whenever they are decoded.

    Boxes stay (a crop's box is the whole crop); corners are dropped, since the picture moves under them.
    Deterministic: picture `index` of copy `k` always comes out the same for one seed.
    """

    def __init__(self, params: AugmentParams, context: Context):
        self.params = params
        self.seed = context.seed

    def run(self, dataset: Dataset) -> dict[str, Dataset]:
        return {"dataset": AugmentedDataset(dataset, self.params.strength, self.params.copies, self.seed)}


class AugmentedDataset:
    """`copies` differently augmented copies of a dataset, one after the other."""

    def __init__(self, dataset: Dataset, strength: float, copies: int = 1, seed: int = 0):
        self.dataset, self.strength, self.copies, self.seed = dataset, strength, copies, seed
        self.problems: Sequence[str] = dataset.problems

    def __len__(self) -> int:
        return len(self.dataset) * self.copies

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        example = self.dataset[index % len(self.dataset)]
        return replace(
            example,
            source=f"{example.source}#{index // len(self.dataset)}" if self.copies > 1 else example.source,
            image=self._decode(example.image, index),
            plates=tuple(replace(plate, corners=None) for plate in example.plates),
        )

    def _decode(self, image: Callable[[], np.ndarray], index: int) -> Callable[[], np.ndarray]:
        return lambda: augment(image(), np.random.default_rng([self.seed, index]), self.strength)

    def fingerprint(self) -> str:
        told = f"augment 1 {self.dataset.fingerprint()} {self.strength} {self.copies} {self.seed}"
        return hashlib.sha256(told.encode()).hexdigest()
